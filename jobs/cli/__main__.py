"""``python -m jobs.cli``: the same as the command ``embedmill``."""

from jobs.cli.app import script

if __name__ == "__main__":
    script()
