"""One module for each command: what it does, as a list of steps."""
