"""Starts and stops Spark and Ray, and keeps their output off the terminal."""
