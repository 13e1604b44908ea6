# frozen_string_literal: true

require 'shellwords'

module EmbedmillCookbook
  # Text of systemd's files.
  module Units
    BARE = %r{\A[\w./:=@,+*-]+\z}.freeze

    module_function

    # A command line of ExecStart: no word is split again, and no % or $ means anything.
    def command(words)
      words.map { |word| word(word.to_s) }.join(' ')
    end

    def word(word)
      raise ArgumentError, 'a line break in a command' if word.match?(/[\r\n]/)

      text = word.gsub('%', '%%').gsub('$', '$$')
      text.match?(BARE) ? text : "\"#{text.gsub(/["\\]/) { |one| "\\#{one}" }}\""
    end

    # An assignment of Environment=, where a % is systemd's and a $ is not.
    def assignment(name, value)
      raise ArgumentError, "#{name}: a line break in a variable" if value.to_s.match?(/[\r\n]/)

      "\"#{name}=#{value.to_s.gsub('%', '%%').gsub(/["\\]/) { |one| "\\#{one}" }}\""
    end

    # A line of an environment file, read alike by systemd and by a shell. The value is never in a message.
    def variable(name, value)
      raise ArgumentError, "#{name}: not the name of a variable" unless name.match?(/\A[A-Z_][A-Z0-9_]*\z/)
      raise ArgumentError, "#{name}: a line break or a control character" if value.match?(/[[:cntrl:]]/)

      "#{name}=\"#{value.gsub(/["\\$`]/) { |one| "\\#{one}" }}\""
    end
  end
end
