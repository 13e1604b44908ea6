"""The command line: parses options, runs one command, shows its result or its error."""
