# frozen_string_literal: true

name 'production'
description 'embedmill, production'
cookbook_versions 'embedmill' => '= 0.2.0'
# The archive's address and checksum, the head's address and the sources are yours to add; see docs/chef.md.
default_attributes(
  'embedmill' => {
    'config' => {
      'index' => { 'name' => 'messages' },
      'slo' => { 'lag_hours' => 26, 'coverage' => 0.999, 'held_deletion_hours' => 72 }
    },
    'secrets' => { 'source' => 'vault' }
  }
)
