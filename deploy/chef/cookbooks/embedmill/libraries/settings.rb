# frozen_string_literal: true

require 'digest'

module EmbedmillCookbook
  # Paths and choices that several recipes share, from the attributes.
  module Settings
    # One folder's name: a version goes into a path.
    VERSION = /\A[0-9A-Za-z+_-][0-9A-Za-z.+_-]*\z/.freeze

    module_function

    # The folder of one installation: another fingerprint has another folder, so that a failed one changes no other.
    def release(own)
      release = own['release']
      %w[version url checksum].each do |key|
        raise ArgumentError, "set node['embedmill']['release']['#{key}']" if release[key].to_s.empty?
      end
      unless release['version'].to_s.match?(VERSION)
        raise ArgumentError, "node['embedmill']['release']['version'] has letters, digits and .+_- alone, no . first"
      end

      "#{own['root']}/releases/#{release['version']}-#{fingerprint(own)[0, 12]}"
    end

    # A name that stays while releases change; the spark and ray workers of a cluster have it in common.
    def current(own)
      "#{own['root']}/current"
    end

    def chosen(names)
      names.select { |_, wanted| wanted }.keys.sort
    end

    # What an installation is made from: another value installs again, into another folder.
    def fingerprint(own)
      install = own['install']
      made = [own['release']['checksum'], install['list'], install['torch'], own['python'],
              *indexes(own).values, *chosen(install['extras'])]
      Digest::SHA256.hexdigest(made.map(&:to_s).join("\n"))
    end

    # The package indexes. One with a password belongs into root's .netrc, which pip reads.
    def indexes(own)
      %w[pip_index torch_index].to_h do |key|
        index = own['install'][key].to_s
        raise ArgumentError, "node['embedmill']['install']['#{key}'] has a password" if index.match?(Toml::PASSWORD)

        [key, index]
      end
    end

    # Where pip looks.
    def pip(own)
      { 'PIP_NO_CACHE_DIR' => '1', 'PIP_INDEX_URL' => indexes(own)['pip_index'] }.reject { |_, value| value.empty? }
    end

    # The configuration; of a cluster with the head's engines, where it does not name others.
    def config(own)
      config = own['config'].to_h
      return config if own['head'].to_s.empty?

      ray = { 'address' => "#{own['head']}:#{own['ray']['port']}" }
      config.merge('ray' => ray.merge(config['ray'].to_h),
                   'spark' => { 'master' => spark(own) }.merge(config['spark'].to_h))
    end

    # Spark looks up the machine's own name where it is not told an address, and Debian knows that as 127.0.1.1.
    def spark_environment(own, address, more = {})
      environment(own).merge('SPARK_LOCAL_IP' => address).merge(more)
    end

    def spark(own)
      "spark://#{head(own)}:#{own['spark']['port']}"
    end

    # What a command needs first, of which a machine has one or the other.
    def servers
      %w[embedmill-milvus embedmill-ray embedmill-spark-master]
    end

    # What a service is restarted after: another release, and another of its files.
    def restarts(own, *files)
      files = files.map { |one| "template[/etc/embedmill/#{one}]" }
      ["file[#{release(own)}/complete]", "link[#{current(own)}]", *files]
    end

    # Folders that services may write: all that changes is below the home.
    def writable(own)
      folder = own['config']['telemetry']['textfile'].to_s
      [own['home'], folder, *chosen(own['units']['writable'])].reject(&:empty?)
    end

    # What every process of embedmill, Ray and Spark is told; nothing of it is secret.
    def environment(own)
      told = {
        'PYTHONUNBUFFERED' => '1', 'HF_HUB_OFFLINE' => '1', 'PYSPARK_PYTHON' => "#{current(own)}/bin/python",
        'RAY_USAGE_STATS_ENABLED' => '0', 'RAY_idle_worker_killing_time_threshold_ms' => '600000',
        'MALLOC_MMAP_THRESHOLD_' => '1048576'
      }
      own['head'].to_s.empty? ? told : told.merge('RAY_AUTH_MODE' => 'token')
    end

    # The same of what reads the configuration.
    def configured(own)
      environment(own).merge('EMBEDMILL_CONFIG' => '/etc/embedmill/embedmill.toml')
    end

    def embedmill(own, arguments)
      ["#{current(own)}/bin/embedmill", *arguments.split]
    end

    # Sockets of a node are in this folder: commands find them there, which have a /tmp of their own.
    def ray(own)
      ["#{current(own)}/bin/ray", 'start', '--block', "--temp-dir=#{own['home']}/ray",
       "--object-store-memory=#{own['ray']['object_store_mb'] * 1_000_000}"]
    end

    # A start of Ray makes a new folder of logs and sockets, and leaves the former.
    def without_former_sessions(own)
      [['/usr/bin/mkdir', '-p', "#{own['home']}/ray"],
       ['/usr/bin/find', "#{own['home']}/ray", '-mindepth', '1', '-maxdepth', '1', '-name', 'session_*',
        '-exec', '/usr/bin/rm', '-rf', '{}', '+']]
    end

    def head(own)
      raise ArgumentError, "set node['embedmill']['head'] to the head's address" if own['head'].to_s.empty?

      own['head']
    end

    # The named values of a data bag item. A name that it lacks is an error, and no value is in the message.
    def secrets(item, names)
      names.to_h do |name|
        value = item[name]
        raise ArgumentError, "the data bag item has no #{name}" unless value.is_a?(String) && !value.empty?

        [name, value]
      end
    end
  end
end
