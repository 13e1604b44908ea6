"""Where the repository is, and a name that the file system takes and few programs do."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# By itself each of its characters has stopped an engine.
HARD = "my data Büro, 100%25#?'x+y=z [1]{2}*\\:\"&日本"
