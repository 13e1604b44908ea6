# frozen_string_literal: true

name 'embedmill_single'
description 'All of embedmill on one machine: engines that a run starts itself, Milvus Lite, timers and the service'
run_list 'recipe[embedmill]', 'recipe[embedmill::config]', 'recipe[embedmill::milvus_lite]', 'recipe[embedmill::jobs]',
         'recipe[embedmill::serve]'
default_attributes(
  'embedmill' => {
    'install' => { 'extras' => { 'milvus-lite' => true } },
    'config' => {
      'index' => { 'uri' => 'http://127.0.0.1:19530' },
      'spark' => { 'master' => 'local[*]', 'driver_memory' => '2g' },
      'ray' => { 'address' => 'local' }
    }
  }
)
