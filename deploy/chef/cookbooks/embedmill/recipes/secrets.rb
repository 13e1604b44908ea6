# frozen_string_literal: true

# The named variables, from a data bag item (encrypted or not) or a vault, into a file that root alone reads.
secrets = node['embedmill']['secrets']
names = EmbedmillCookbook::Settings.chosen(secrets['names'])
id = secrets['item'].to_s.empty? ? node.chef_environment : secrets['item']
values =
  if names.empty?
    {}
  elsif secrets['source'] == 'vault'
    EmbedmillCookbook::Settings.secrets(chef_vault_item(secrets['bag'], id), names)
  else
    EmbedmillCookbook::Settings.secrets(data_bag_item(secrets['bag'], id), names)
  end

template '/etc/embedmill/environment' do
  source 'environment.erb'
  owner 'root'
  group 'root'
  mode '0600'
  sensitive true
  variables(values: values, origin: "#{secrets['bag']}/#{id}")
end
