# frozen_string_literal: true

embedmill = node['embedmill']
name = embedmill['user']['name']

group name do
  gid embedmill['user']['uid']
  system true
end

user name do
  comment 'embedmill'
  uid embedmill['user']['uid']
  gid name
  home embedmill['home']
  shell '/usr/sbin/nologin'
  system true
  manage_home false
end

# Texts, vectors and hashes: its user's alone.
directory embedmill['home'] do
  owner name
  group name
  mode '0700'
end

# Code is root's: what runs it cannot change it.
[embedmill['root'], "#{embedmill['root']}/releases"].each do |folder|
  directory folder do
    owner 'root'
    group 'root'
    mode '0755'
  end
end

# systemd opens the logs as root before it gives up root.
['/etc/embedmill', embedmill['log']].each do |folder|
  directory folder do
    owner 'root'
    group name
    mode '0750'
  end
end
