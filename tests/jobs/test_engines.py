"""The engines that a command starts for itself end with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from jobs.engines.compat import minimal_ray
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
