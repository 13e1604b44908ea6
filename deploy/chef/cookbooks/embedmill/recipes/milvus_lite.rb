# frozen_string_literal: true

# Milvus Lite in a process of its own on 127.0.0.1, of which a command and the service are clients at once.
embedmill = node['embedmill']
lite = embedmill['milvus_lite']

embedmill_unit 'embedmill-milvus' do
  description 'embedmill: Milvus Lite'
  command ["#{EmbedmillCookbook::Settings.current(embedmill)}/bin/milvus-lite", 'server', '--host', '127.0.0.1',
           '--port', lite['port'], '--data-dir', "#{embedmill['home']}/milvus"]
  memory lite['memory']
  secrets false
  subscribes :restart, EmbedmillCookbook::Settings.restarts(embedmill), :delayed
end
