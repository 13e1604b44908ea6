# frozen_string_literal: true

embedmill = node['embedmill']
spark = embedmill['spark']

embedmill_unit 'embedmill-spark-master' do
  description "embedmill: Spark's master"
  command ["#{EmbedmillCookbook::Settings.current(embedmill)}/bin/spark-class",
           'org.apache.spark.deploy.master.Master', '--host', EmbedmillCookbook::Settings.head(embedmill),
           '--port', spark['port']]
  memory spark['master_memory']
  secrets false
  subscribes :restart, EmbedmillCookbook::Settings.restarts(embedmill), :delayed
end
