# frozen_string_literal: true

name 'embedmill_worker'
description 'A machine that joins a head: a node of Ray and a worker of Spark, and no configuration of its own'
run_list 'recipe[embedmill]', 'recipe[embedmill::ray_worker]', 'recipe[embedmill::spark_worker]'
default_attributes(
  'embedmill' => {
    'config' => { 'telemetry' => { 'textfile' => '' } },
    'secrets' => {
      'names' => {
        'AWS_ACCESS_KEY_ID' => true,
        'AWS_SECRET_ACCESS_KEY' => true,
        'RAY_AUTH_TOKEN' => true
      }
    }
  }
)
