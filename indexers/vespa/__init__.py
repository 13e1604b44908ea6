"""The index in Vespa."""
