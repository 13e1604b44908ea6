# frozen_string_literal: true

# The query side as a service. SIGTERM lets it answer what it has taken; systemd waits a little longer than that takes.
embedmill = node['embedmill']
serve = embedmill['serve']

embedmill_unit 'embedmill-serve' do
  description 'embedmill: vectors and hits of queries'
  command EmbedmillCookbook::Settings.embedmill(embedmill, "serve --host #{serve['host']} --port #{serve['port']}")
  environment EmbedmillCookbook::Settings.configured(embedmill)
  after EmbedmillCookbook::Settings.servers
  memory serve['memory']
  stop_seconds serve['drain_seconds'] + 15
  subscribes :restart, EmbedmillCookbook::Settings.restarts(embedmill, 'embedmill.toml', 'environment'), :delayed
end
