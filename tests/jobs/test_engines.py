"""The engines that a command starts for itself end with it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from embedding.errors import ConfigError, ResourceError
from jobs.config import load_config
from jobs.engines.compat import minimal_ray
from jobs.engines.ray import start_ray
from jobs.engines.spark import driver_address
from tests.support.paths import ROOT
from tests.support.workspace import Workspace

START_AND_END = """
import sys
from pathlib import Path
import psutil
from jobs.config import load_config
from jobs.engines.environment import quiet_engines
from jobs.engines.ray import end_ray, start_ray
quiet_engines()
end_ray()
assert "ray" not in sys.modules, "nothing to end, nothing to load"
start_ray(load_config(Path(sys.argv[1])), Path(sys.argv[2]))
import ray
started = psutil.Process().children(recursive=True)
nobody_needs = ("dashboard.py", "monitor.py", "log_monitor.py")
spare = [word for p in started for word in p.cmdline() if Path(word).name in nobody_needs]
end_ray()
alive = psutil.wait_procs(started, timeout=10)[1]
print(len(started) > 3, spare, ray.is_initialized(), [p.name() for p in alive])
"""


def test_what_other_threads_import_while_ray_starts_stays() -> None:
    """Spark is started beside it, and imports for seconds."""
    kept, taken = "jobs.imported_meanwhile", "ray.dashboard.optional_deps"
    before = sys.modules.get(taken)
    try:
        with minimal_ray():
            assert sys.modules[taken] is None
            sys.modules[kept] = sys
        assert sys.modules[kept] is sys and sys.modules.get(taken) is before
    finally:
        sys.modules.pop(kept, None)


def test_ray_of_our_own_is_small_and_ended_with_all_of_its_processes(workspace: Workspace, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", START_AND_END, str(workspace.config), str(tmp_path / "ray")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ended.stdout.split("\n")[0] == "True [] False []", ended.stderr


def test_executors_reach_the_driver_by_the_interface_that_leads_to_the_master() -> None:
    """It was 127.0.0.1 for every master, which is another machine to each of them: a run hung."""
    assert driver_address("local[2]") == driver_address("spark://127.0.0.1:7077") == "127.0.0.1"
    assert driver_address("spark://127.0.0.1:7077,other:7077") == "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as looking:
        try:
            looking.connect(("192.0.2.1", 9))
            ours = looking.getsockname()[0]
        except OSError:
            pytest.skip("this machine has no way to any other")
    assert driver_address("spark://192.0.2.1:7077") == ours
    assert driver_address("k8s://https://cluster:443") is None and driver_address("yarn") is None
    with pytest.raises(ConfigError, match="spark.master: this machine does not find no-such-host.invalid"):
        driver_address("spark://no-such-host.invalid:7077")


def test_a_cluster_of_ray_is_joined_from_one_of_its_nodes(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself ends the process without a word, or with an AttributeError for its client's address."""
    text = workspace.config.read_text()
    workspace.config.write_text(f'{text}[ray]\naddress = "192.0.2.1:6379"\n')
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr(psutil, "process_iter", lambda names: iter([SimpleNamespace(info={"name": "python"})]))
    with pytest.raises(ResourceError, match=r"no node of Ray runs on .* `ray start --address=192.0.2.1:6379"):
        start_ray(load_config(workspace.config), tmp_path / "scratch")
    workspace.config.write_text(f'{text}[ray]\naddress = "ray://192.0.2.1:10001"\n')
    with pytest.raises(ConfigError, match=r"ray.address: Ray's client \(ray://\)"):
        load_config(workspace.config)
