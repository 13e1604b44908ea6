# frozen_string_literal: true

name 'embedmill'
maintainer 'The embedmill maintainers'
license 'Apache-2.0'
description 'Makes a virtual machine a worker, a head or a single-node installation of embedmill'
version '0.2.0'
chef_version '>= 16.0'
supports 'debian', '>= 12.0'
