"""What a run reports about itself while it works: progress bars and unexpected errors, never text."""
