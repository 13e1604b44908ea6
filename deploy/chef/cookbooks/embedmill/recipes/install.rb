# frozen_string_literal: true

# An installation has a folder of its own, by its version and fingerprint, and a link moves to it when it is complete:
# one that fails changes nothing of the former.
embedmill = node['embedmill']
release = EmbedmillCookbook::Settings.release(embedmill)
archive = "#{release}/embedmill.tar.gz"
source = "#{release}/src"
prefix = "#{release}/venv"
mark = "#{release}/complete"
fingerprint = EmbedmillCookbook::Settings.fingerprint(embedmill)
complete = "grep --quiet --line-regexp --fixed-strings '#{fingerprint}' #{mark}"
extras = EmbedmillCookbook::Settings.chosen(embedmill['install']['extras'])
pip = EmbedmillCookbook::Settings.pip(embedmill)

[release, source].each do |folder|
  directory folder do
    owner 'root'
    group 'root'
    mode '0755'
  end
end

remote_file archive do
  source embedmill['release']['url']
  checksum embedmill['release']['checksum']
  owner 'root'
  group 'root'
  mode '0644'
end

execute 'unpack embedmill' do
  command ['tar', '--extract', '--gzip', '--file', archive, '--directory', source, '--strip-components', '1',
           '--no-same-owner']
  not_if complete
end

execute 'install embedmill' do
  command ['docker/install/python.sh', embedmill['install']['list'], prefix]
  cwd source
  environment pip.merge('PYTHON' => embedmill['python'], 'TORCH' => embedmill['install']['torch'],
                        'TORCH_INDEX' => embedmill['install']['torch_index'])
  umask '0022'
  timeout embedmill['install']['timeout']
  not_if complete
end

unless extras.empty?
  execute 'install extras of embedmill' do
    command ["#{prefix}/bin/python", '-m', 'pip', 'install', '--constraint', 'requirements.txt', *extras]
    cwd source
    environment pip
    umask '0022'
    timeout embedmill['install']['timeout']
    not_if complete
  end
end

file mark do
  content "#{fingerprint}\n"
  owner 'root'
  group 'root'
  mode '0644'
end

link EmbedmillCookbook::Settings.current(embedmill) do
  to prefix
end
