# frozen_string_literal: true

# Executors have the worker's environment, and with it the credentials of the state's store.
embedmill = node['embedmill']
spark = embedmill['spark']
cleanup = { 'SPARK_WORKER_OPTS' => '-Dspark.worker.cleanup.enabled=true -Dspark.worker.cleanup.appDataTtl=604800' }

embedmill_unit 'embedmill-spark-worker' do
  description 'embedmill: a worker of Spark'
  command ["#{EmbedmillCookbook::Settings.current(embedmill)}/bin/spark-class",
           'org.apache.spark.deploy.worker.Worker', '--host', node['ipaddress'], '--cores', spark['cores'],
           '--memory', spark['executor_memory'], '--work-dir', "#{embedmill['home']}/spark",
           EmbedmillCookbook::Settings.spark(embedmill)]
  environment EmbedmillCookbook::Settings.spark_environment(embedmill, node['ipaddress'], cleanup)
  memory spark['memory']
  subscribes :restart, EmbedmillCookbook::Settings.restarts(embedmill, 'environment'), :delayed
end
