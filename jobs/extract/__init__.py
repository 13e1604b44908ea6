"""Reads the source partitions that changed and brings the text tables up to date."""
