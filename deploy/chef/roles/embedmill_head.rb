# frozen_string_literal: true

name 'embedmill_head'
description "A cluster's head: masters of Ray and Spark, the configuration, timers and the service"
run_list 'recipe[embedmill]', 'recipe[embedmill::config]', 'recipe[embedmill::ray_head]',
         'recipe[embedmill::spark_master]', 'recipe[embedmill::jobs]', 'recipe[embedmill::serve]'
default_attributes(
  'embedmill' => {
    'secrets' => {
      'names' => {
        'AWS_ACCESS_KEY_ID' => true,
        'AWS_SECRET_ACCESS_KEY' => true,
        'EMBEDMILL__INDEX__TOKEN' => true,
        'EMBEDMILL__STATE__HASH_KEY' => true,
        'RAY_AUTH_TOKEN' => true
      }
    }
  }
)
