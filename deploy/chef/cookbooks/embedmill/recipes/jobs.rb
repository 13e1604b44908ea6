# frozen_string_literal: true

# The nightly run, verify and gc. Two at a time wait for each other by the lease, also on different machines.
embedmill = node['embedmill']

embedmill['jobs'].each do |name, job|
  if job['calendar'].empty?
    service "embedmill-#{name}.timer" do
      action %i[stop disable]
    end
    next
  end

  embedmill_unit "embedmill-#{name}" do
    description "embedmill #{name}"
    command EmbedmillCookbook::Settings.embedmill(embedmill, job['arguments'])
    environment EmbedmillCookbook::Settings.configured(embedmill)
    after EmbedmillCookbook::Settings.servers
    calendar job['calendar']
    delay job['delay']
    memory job['memory']
    success job['success'].to_s
  end
end
