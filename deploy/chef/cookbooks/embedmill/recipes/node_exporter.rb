# frozen_string_literal: true

# The folder of node-exporter's textfile collector, which the commands write their series to.
embedmill = node['embedmill']
folder = embedmill['config']['telemetry']['textfile'].to_s

if embedmill['node_exporter']['install']
  package 'prometheus-node-exporter' do
    options '--no-install-recommends'
  end
end

unless folder.empty?
  directory folder do
    owner 'root'
    group embedmill['user']['name']
    mode '0775'
    recursive true
  end
end
