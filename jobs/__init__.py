"""The steps of a run, the state they read and write, the configuration and the command line."""
