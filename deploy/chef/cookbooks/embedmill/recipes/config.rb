# frozen_string_literal: true

embedmill = node['embedmill']

# A configuration that embedmill itself refuses never takes the place of one that works.
template '/etc/embedmill/embedmill.toml' do
  source 'embedmill.toml.erb'
  owner 'root'
  group embedmill['user']['name']
  mode '0640'
  variables(toml: EmbedmillCookbook::Toml.render(EmbedmillCookbook::Settings.config(embedmill)))
  verify "#{embedmill['root']}/current/bin/embedmill config --config %{path}" # rubocop:disable Style/FormatStringToken
end
