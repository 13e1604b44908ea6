# frozen_string_literal: true

apt_update 'embedmill' do
  frequency 86_400
  action :periodic
end

package node['embedmill']['packages'].to_a
