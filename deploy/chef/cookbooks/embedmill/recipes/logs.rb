# frozen_string_literal: true

embedmill = node['embedmill']

template '/etc/logrotate.d/embedmill' do
  source 'logrotate.erb'
  owner 'root'
  group 'root'
  mode '0644'
  variables(log: embedmill['log'], days: embedmill['logrotate']['days'], max_size: embedmill['logrotate']['max_size'])
end
