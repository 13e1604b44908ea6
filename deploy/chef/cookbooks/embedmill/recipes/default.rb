# frozen_string_literal: true

# What every machine of embedmill has: packages, user, folders, a release, secrets and log rotation; no service.
%w[packages user install secrets logs node_exporter].each { |recipe| include_recipe "embedmill::#{recipe}" }
