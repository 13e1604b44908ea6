# frozen_string_literal: true

embedmill = node['embedmill']
ray = embedmill['ray']
head = EmbedmillCookbook::Settings.head(embedmill)

embedmill_unit 'embedmill-ray' do
  description 'embedmill: a node of Ray'
  command [*EmbedmillCookbook::Settings.ray(embedmill), "--address=#{head}:#{ray['port']}",
           "--node-ip-address=#{node['ipaddress']}"]
  environment EmbedmillCookbook::Settings.environment(embedmill)
  preparation EmbedmillCookbook::Settings.without_former_sessions(embedmill)
  memory ray['memory']
  stop_seconds 60 # a node drains for up to 30
  success '1' # with which it ends when it is asked to, as when it fails: so it is always started again
  restart 'always'
  subscribes :restart, EmbedmillCookbook::Settings.restarts(embedmill, 'environment'), :delayed
end
