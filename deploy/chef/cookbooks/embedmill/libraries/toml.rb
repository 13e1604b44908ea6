# frozen_string_literal: true

# What the recipes work out; none of it touches the machine.
module EmbedmillCookbook
  # Writes attributes as TOML. Keys that hold a secret are refused: attributes are kept by the Chef server in the clear.
  module Toml
    SECRETS = %w[token hash_key jwt_key].freeze
    # Of Spark's properties, whose names are Spark's.
    SECRET_PROPERTY =
      /password|passwd|pwd|secret|token|credential|signature|(api|access|account|shared)[_.-]?key/i.freeze
    PASSWORD = %r{://[^/?#\s]*@}.freeze
    BARE = /\A[A-Za-z0-9_-]+\z/.freeze
    ESCAPES = { '"' => '\\"', '\\' => '\\\\', "\n" => '\\n', "\t" => '\\t', "\r" => '\\r' }.freeze

    module_function

    # Keys without a value (nil) are left out, so that a role can take back what the cookbook says.
    def render(table, path = [])
      inner, own = table.compact.partition { |_, found| found.is_a?(Hash) || tables?(found) }
      blocks = inner.map { |key, found| below(path + [key.to_s], found) }
      [lines(own, path), *blocks].reject(&:empty?).join("\n\n")
    end

    def lines(pairs, path)
      pairs.map { |key, found| "#{name(path, key, found)} = #{value(found)}" }.join("\n")
    end

    def below(path, found)
      heading = path.map { |key| bare(key) }.join('.')
      return found.map { |one| "[[#{heading}]]\n#{render(one, path)}".strip }.join("\n\n") if tables?(found)

      "[#{heading}]\n#{render(found, path)}".strip
    end

    def tables?(value)
      value.is_a?(Array) && !value.empty? && value.all?(Hash)
    end

    def name(path, key, value)
      key = key.to_s
      return bare(key) unless secret?(path, key) || value.to_s.match?(PASSWORD)

      raise ArgumentError, "#{(path + [key]).join('.')} is a secret: put it into the data bag and the name of its " \
                           "variable into node['embedmill']['secrets']['names']"
    end

    def secret?(path, key)
      SECRETS.include?(key) || (path == %w[spark properties] && key.match?(SECRET_PROPERTY))
    end

    def bare(key)
      key.match?(BARE) ? key : text(key)
    end

    def value(value)
      case value
      when String, Symbol then text(value.to_s)
      when true, false, Integer, Float then value.to_s
      when Array then "[#{value.map { |one| value(one) }.join(', ')}]"
      else raise ArgumentError, "no TOML for a #{value.class}"
      end
    end

    def text(text)
      "\"#{text.gsub(/["\\\u0000-\u001f\u007f]/) { |one| ESCAPES[one] || format('\\u%04X', one.ord) }}\""
    end
  end
end
