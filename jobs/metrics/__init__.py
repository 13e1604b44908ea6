"""What Prometheus is told of a state: which series there are, their values, and how they get there."""
