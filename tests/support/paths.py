"""Where the repository is, a name for what lies elsewhere, and the environment of a small process."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# By itself each of its characters has stopped an engine.
HARD = "my data Büro, 100%25#?'x+y=z [1]{2}*\\:\"&日本"

# Of a process whose Spark reads little: a second core only adds two processes, of Spark and for reading in isolation.
ONE_CORE = {"EMBEDMILL__SPARK__MASTER": "local[1]"}
ALWAYS_SPARK = ONE_CORE | {"EMBEDMILL__SPARK__IN_PROCESS_MB": "0"}
