"""Encoders that are services: requests within limits, retried, checked."""
