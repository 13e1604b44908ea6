"""Spark's and Ray's own exporters, switched on by the configuration, as a real Prometheus reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.ports import free_ports
from tests.support.prometheus import MISSING, Prometheus, quick_waits, until

# The engines of a command, for as long as something is read of them: ended by the end of standard input.
ENGINES = """
import sys
from pathlib import Path
from jobs.config import load_config
from jobs.engines.ray import start_ray
from jobs.engines.spark import start_spark
config, scratch = load_config(Path(sys.argv[1])), Path(sys.argv[2])
spark = start_spark(config, scratch, scratch / "log", reads=True)
assert spark.range(100).count() == 100
start_ray(config, scratch)
print("up", flush=True)
sys.stdin.read()
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed (Debian): {MISSING}"),
]


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[list[int]]:
    """Those of the engines of a process that runs meanwhile."""
    spark, ray = free_ports(2)
    (tmp_path / "files").mkdir()
    config = tmp_path / "embedmill.toml"
    config.write_text(
        '[[sources]]\nkind = "files"\nuri = "files"\nteam_id = "T01"\n[spark]\nmaster = "local[1]"\n'
        f"[telemetry]\nspark_port = {spark}\nray_port = {ray}\n"
    )
    words = [sys.executable, "-c", ENGINES, str(config), str(tmp_path / "scratch")]
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as engines:
        assert engines.stdout is not None and engines.stdin is not None
        assert b"up" in engines.stdout.readline()
        yield [spark, ray]
        engines.stdin.close()


def test_prometheus_reads_the_engines_by_names_that_stay(ports: list[int], tmp_path: Path) -> None:
    folder = tmp_path / "prometheus"
    folder.mkdir()
    spark, ray = (f"127.0.0.1:{port}" for port in ports)
    chain = Prometheus(folder, quick_waits, engines={spark: "/metrics/prometheus", ray: "/metrics"})
    try:
        for name in ("metrics_embedmill_driver_jvm_heap_used_Value", "ray_node_mem_used"):
            until(lambda name=name: chain.query(name), f"{name}: {json.dumps(chain.query('up'))}")  # type: ignore[misc]
    finally:
        chain.stop()
