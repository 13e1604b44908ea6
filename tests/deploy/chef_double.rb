# frozen_string_literal: true

# Stands in for chef-client, which cannot be had here: evaluates the real attributes, roles, environments, recipes and
# custom resources as Chef's documentation says, renders the real templates, and prints the resources as JSON.
#   chef_double.rb < {"chef": FOLDER, "role": R, "environment": E, "attributes": {}, "automatic": {}, "bags": {}}
# A bag's key is SOURCE/BAG/ITEM, its source data_bag or vault.
# It changes nothing. A property, action or resource that Chef does not have, and a notification of something that is
# not there, is an error.

require 'erb'
require 'json'
require 'pathname'

COMMON = %i[action not_if only_if notifies subscribes sensitive ignore_failure retries].freeze
FILE = %i[owner group mode].freeze
# The properties and actions that are used here, of Chef's own resources, with each one's first action as its default.
TYPES = {
  apt_update: [%i[frequency], %i[periodic update]],
  package: [%i[package_name version options], %i[install upgrade remove]],
  group: [%i[gid members system], %i[create]],
  user: [%i[comment uid gid home shell system manage_home], %i[create]],
  directory: [FILE + %i[path recursive], %i[create delete]],
  file: [FILE + %i[path content verify], %i[create delete]],
  template: [FILE + %i[path source variables verify], %i[create]],
  remote_file: [FILE + %i[path source checksum], %i[create]],
  execute: [%i[command cwd environment umask timeout creates], %i[run nothing]],
  link: [%i[to target_file], %i[create]],
  service: [%i[service_name], %i[nothing start stop restart reload enable disable]]
}.freeze
SYMBOL_TIMES = %i[before immediately delayed].freeze

# How Chef merges: arrays of one level of precedence are united, between levels the higher one's counts.
module Merge
  module_function

  def within(low, high)
    return low.merge(high) { |_, one, other| within(one, other) } if low.is_a?(Hash) && high.is_a?(Hash)

    low.is_a?(Array) && high.is_a?(Array) ? low | high : high
  end

  def between(low, high)
    return high unless low.is_a?(Hash) && high.is_a?(Hash)

    low.merge(high) { |_, one, other| between(one, other) }
  end

  def frozen(value)
    case value
    when Hash then value.to_h { |key, one| [key.to_s, frozen(one)] }.freeze
    when Array then value.map { |one| frozen(one) }.freeze
    else value.freeze
    end
  end
end

# A file of attributes, of a role, of an environment or of metadata: each line is a call, whose arguments are kept.
class Declared < BasicObject
  def self.file(path)
    one = new
    one.instance_eval(::File.read(path), path)
    one.told
  end

  attr_reader :told

  def initialize
    @told = ::Hash.new { |all, key| all[key] = ::Hash.new(&all.default_proc) }
  end

  def default
    @told['default']
  end

  def override
    @told['override']
  end

  def method_missing(name, *given, **keys)
    @told[name.to_s] = given + (keys.empty? ? [] : [keys])
  end

  def respond_to_missing?(*)
    true
  end
end

# The node of a role in an environment, its attributes merged in Chef's order and frozen.
class Node
  attr_reader :chef_environment, :run_list

  def initialize(chef, asked)
    files = {
      own: 'cookbooks/embedmill/attributes/default.rb', role: "roles/#{asked['role']}.rb",
      environment: "environments/#{asked['environment']}.rb"
    }.transform_values { |path| Declared.file(File.join(chef, path)) }
    @chef_environment = files[:environment]['name'].first
    @run_list = files[:role]['run_list']
    @attributes = Merge.frozen(merged(files, asked))
  end

  def [](key)
    @attributes[key]
  end

  private

  def merged(files, asked)
    low = level(files, 'default', %i[environment role])
    high = level(files, 'override', %i[role environment])
    [asked['attributes'], high, asked['automatic']].reduce(low) { |one, other| Merge.between(one, other.to_h) }
  end

  # The cookbook's attributes of a level, and over them those of a role and an environment.
  def level(files, name, order)
    more = order.map { |of| files[of].fetch("#{name}_attributes", [{}]).first }
    more.reduce(plain(files[:own][name])) { |one, other| Merge.within(one, other) }
  end

  def plain(vivid)
    JSON.parse(JSON.generate(vivid))
  end
end

# Where resources are declared: a recipe, or the action of a custom resource.
class Context
  attr_reader :resources, :new_resource

  def initialize(run, resource = nil)
    @run = run
    @new_resource = resource
    @resources = []
  end

  def node
    @run.node
  end

  def include_recipe(name)
    path = @run.path("recipes/#{name.split('::')[1] || 'default'}.rb")
    instance_eval(File.read(path), path) if @run.first_time?(path)
  end

  def data_bag_item(bag, item)
    @run.item('data_bag', bag, item)
  end

  def chef_vault_item(bag, item)
    @run.item('vault', bag, item)
  end

  def method_missing(type, name, &block)
    kind = @run.kind(type)
    super unless kind
    @resources << Resource.new(type, name, kind, @run)
    @resources.last.instance_exec(&block) if block
    @resources.last
  end

  def respond_to_missing?(type, *)
    !@run.kind(type).nil?
  end
end

# One declared resource: its properties, actions, guards and notifications.
class Resource
  attr_reader :type, :name, :said

  def initialize(type, name, kind, run)
    @type = type
    @name = Array(name).join(', ')
    @kind = kind
    @run = run
    @said = kind[:defaults].to_h.merge(action: [kind[:actions].first], kind.fetch(:named, :name_given) => name)
    define_properties
  end

  def define_properties
    # Defined one by one: Ruby has methods of its own by some of these names, as system.
    (COMMON - %i[notifies subscribes] + @kind[:properties].keys).each do |property|
      define_singleton_method(property) { |*given| given.empty? ? @said[property] : say(property, given.first) }
    end
  end

  def node
    @run.node
  end

  def notifies(action, target, timing)
    raise ArgumentError, "#{timing} is no time" unless SYMBOL_TIMES.include?(timing)

    (@said[:notifies] ||= []) << [action, target, timing]
  end

  def subscribes(action, targets, timing)
    raise ArgumentError, "#{timing} is no time" unless SYMBOL_TIMES.include?(timing)

    @said[:subscribes] = @said[:subscribes].to_a + Array(targets).map { |target| [action, target, timing] }
  end

  def to_s
    "#{type}[#{name}]"
  end

  # What a custom resource declares in turn, one list for each of its actions.
  def inner
    return [] unless @kind[:bodies]

    missing = @kind[:required].reject { |property| @said.key?(property) }
    raise ArgumentError, "#{self} lacks #{missing.join(', ')}" unless missing.empty?

    @said[:action].flat_map { |action| @run.declare(self, @kind[:bodies].fetch(action)) }
  end

  def as_json
    @said.merge(type: type, name: name, content: content).compact
  end

  private

  def say(property, value)
    value = Array(value).each { |one| check_action(one) } if property == :action
    types = Array(@kind[:properties].fetch(property, Object))
    raise ArgumentError, "#{self}: #{property} is a #{value.class}" unless types.any? { |one| fits?(one, value) }

    @said[property] = value
  end

  # A type, or a value that is allowed.
  def fits?(one, value)
    one.is_a?(Module) ? value.is_a?(one) : one == value
  end

  def check_action(name)
    raise ArgumentError, "#{self} has no action #{name}" unless @kind[:actions].include?(name)
  end

  def content
    return @said[:content] unless type == :template

    path = @run.path("templates/#{@said.fetch(:source)}")
    Page.new(node, @said[:variables].to_h).render(File.read(path))
  end
end

# What a template sees.
class Page
  attr_reader :node

  def initialize(node, variables)
    @node = node
    variables.each { |name, value| instance_variable_set("@#{name}", value) }
  end

  def render(text)
    ERB.new(text, trim_mode: '-').result(binding)
  end
end

# A file of resources/: its properties, and the block of each action.
class Custom
  attr_reader :kind, :provided

  def initialize(path)
    @kind = { properties: {}, defaults: {}, required: [], bodies: {}, actions: [] }
    instance_eval(File.read(path), path)
  end

  def unified_mode(*); end

  def provides(name)
    @provided = name
  end

  def default_action(name)
    @kind[:actions].unshift(name)
  end

  def property(name, types, name_property: false, required: false, default: nil)
    @kind[:properties][name] = types
    @kind[:defaults][name] = default unless default.nil?
    @kind[:required] << name if required
    @kind[:named] = name if name_property
  end

  def action(name, &block)
    @kind[:bodies][name] = block
    @kind[:actions] |= [name]
  end
end

# One run over a role's list.
class Run
  attr_reader :node

  def initialize(asked)
    @asked = asked
    Dir[path('libraries/*.rb')].sort.each { |file| require file }
    @node = Node.new(asked['chef'], asked)
    @custom = Dir[path('resources/*.rb')].to_h { |file| Custom.new(file).then { |one| [one.provided, one.kind] } }
    @seen = []
  end

  def path(name)
    File.join(@asked['chef'], 'cookbooks/embedmill', name)
  end

  def first_time?(path)
    @seen.include?(path) ? false : @seen << path
  end

  def kind(type)
    return @custom[type] if @custom.key?(type)
    return unless TYPES.key?(type)

    { properties: TYPES[type][0].to_h { |name| [name, Object] }, actions: TYPES[type][1] }
  end

  def item(source, bag, item)
    @asked.fetch('bags').fetch("#{source}/#{bag}/#{item}")
  end

  def declare(resource, body)
    context = Context.new(self, resource)
    context.instance_exec(&body)
    context.resources
  end

  def resources
    outer = Context.new(self)
    node.run_list.each { |entry| outer.include_recipe(entry[/\Arecipe\[(.*)\]\z/, 1]) }
    check(outer.resources, [])
    outer.resources.flat_map { |resource| with_inner(resource, outer.resources) }
  end

  private

  def with_inner(resource, outer)
    inner = resource.inner
    check(inner, outer)
    [resource.as_json] + inner.map { |one| one.as_json.merge(of: resource.to_s) }
  end

  def check(resources, outer)
    there = (resources + outer).map(&:to_s)
    resources.each do |resource|
      (resource.said[:notifies].to_a + resource.said[:subscribes].to_a).each do |_, target, _|
        raise KeyError, "#{resource} names #{target}, which is not there" unless there.include?(target)
      end
    end
  end
end

# Metadata is read for its own sake: what is not Ruby there fails.
if $PROGRAM_NAME == __FILE__
  asked = JSON.parse($stdin.read)
  metadata = Declared.file(File.join(asked['chef'], 'cookbooks/embedmill/metadata.rb'))
  run = Run.new(asked)
  puts JSON.generate('metadata' => metadata, 'resources' => run.resources)
end
