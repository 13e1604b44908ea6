"""The state: Delta tables, the writer's lease, small files and work folders below one root."""
