"""Encoders that run in this process."""
