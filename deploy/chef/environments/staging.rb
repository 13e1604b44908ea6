# frozen_string_literal: true

name 'staging'
description 'embedmill, staging'
cookbook_versions 'embedmill' => '= 0.2.0'
# The archive's address and checksum, the head's address and the sources are yours to add; see docs/chef.md.
default_attributes(
  'embedmill' => {
    'config' => {
      'index' => { 'name' => 'messages_staging' },
      'slo' => { 'lag_hours' => 50 }
    },
    'jobs' => { 'run' => { 'memory' => '6G' } },
    'logrotate' => { 'days' => 7 }
  }
)
