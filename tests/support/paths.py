"""Where the repository is, a name for what lies elsewhere, and the environment of a small process."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# By itself each of its characters has stopped an engine.
HARD = "my data Büro, 100%25#?'x+y=z [1]{2}*\\:\"&日本"

# Of a process whose Spark reads little: a second core only adds two processes, of Spark and for reading in isolation.
ONE_CORE = {"EMBEDMILL__SPARK__MASTER": "local[1]"}
# What lets Spark spend less on planning, compiling and starting than a few rows are worth.
QUICK = {
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.adaptive.enabled": "false",
}
_PROPERTIES = ", ".join(f'"{name}" = "{value}"' for name, value in QUICK.items())
BY_SPARK = f"[spark]\nin_process_mb = 0\nproperties = {{{_PROPERTIES}}}\n"  # in place of "[spark]\n" in a configuration
ALWAYS_SPARK = ONE_CORE | {"EMBEDMILL__SPARK__IN_PROCESS_MB": "0", "EMBEDMILL__SPARK__PROPERTIES": json.dumps(QUICK)}
# The same for Ray, ahead of the next section: of more than one shard.
ON_RAY = "[ray]\nmin_tokens = 0\n"
