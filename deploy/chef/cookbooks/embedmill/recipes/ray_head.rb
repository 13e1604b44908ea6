# frozen_string_literal: true

embedmill = node['embedmill']
ray = embedmill['ray']
head = EmbedmillCookbook::Settings.head(embedmill)

embedmill_unit 'embedmill-ray' do
  description "embedmill: Ray's head"
  command [*EmbedmillCookbook::Settings.ray(embedmill), '--head', "--node-ip-address=#{head}", "--port=#{ray['port']}",
           "--dashboard-host=#{ray['dashboard_host']}"]
  environment EmbedmillCookbook::Settings.configured(embedmill)
  preparation EmbedmillCookbook::Settings.without_former_sessions(embedmill)
  memory ray['memory']
  stop_seconds 60 # a node drains for up to 30
  success '1' # with which it ends when it is asked to, as when it fails: so it is always started again
  restart 'always'
  subscribes :restart, EmbedmillCookbook::Settings.restarts(embedmill, 'environment'), :delayed
end
