# frozen_string_literal: true

embedmill = node['embedmill']
spark = embedmill['spark']
head = EmbedmillCookbook::Settings.head(embedmill)

embedmill_unit 'embedmill-spark-master' do
  description "embedmill: Spark's master"
  command ["#{EmbedmillCookbook::Settings.current(embedmill)}/bin/spark-class",
           'org.apache.spark.deploy.master.Master', '--host', head, '--port', spark['port']]
  environment EmbedmillCookbook::Settings.spark_environment(embedmill, head)
  memory spark['master_memory']
  secrets false
  subscribes :restart, EmbedmillCookbook::Settings.restarts(embedmill), :delayed
end
