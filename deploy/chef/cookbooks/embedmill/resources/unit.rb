# frozen_string_literal: true

# A command as a systemd service of the user embedmill, locked in; with a calendar a timer starts it.
unified_mode true
provides :embedmill_unit

property :unit_name, String, name_property: true
property :description, String, required: true
property :command, Array, required: true
property :environment, Hash, default: {}
property :memory, String, required: true
property :after, Array, default: []
property :calendar, String, default: ''
property :delay, String, default: '0'
property :preparation, Array, default: []
property :success, String, default: ''
property :restart, String, default: 'on-failure'
property :stop_seconds, Integer, default: 30
property :secrets, [true, false], default: true

default_action :create

action :create do
  embedmill = node['embedmill']
  unit = new_resource
  timed = !unit.calendar.empty?

  execute "reload systemd for #{unit.unit_name}" do
    command %w[systemctl daemon-reload]
    action :nothing
  end

  template "/etc/systemd/system/#{unit.unit_name}.service" do
    source 'unit.service.erb'
    owner 'root'
    group 'root'
    mode '0644'
    variables(embedmill: embedmill, unit: unit, timed: timed)
    notifies :run, "execute[reload systemd for #{unit.unit_name}]", :immediately
    notifies :restart, "service[#{unit.unit_name}]", :delayed unless timed
  end

  if timed
    template "/etc/systemd/system/#{unit.unit_name}.timer" do
      source 'unit.timer.erb'
      owner 'root'
      group 'root'
      mode '0644'
      variables(unit: unit)
      notifies :run, "execute[reload systemd for #{unit.unit_name}]", :immediately
      notifies :restart, "service[#{unit.unit_name}.timer]", :delayed
    end
  end

  service timed ? "#{unit.unit_name}.timer" : unit.unit_name do
    action %i[enable start]
  end
end

action :restart do
  service new_resource.unit_name do
    action :restart
  end
end
