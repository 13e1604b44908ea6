"""A real MLflow server for tests. It asks for other versions of what we use: it lives in an environment of its own.

`make mlflow` installs it into .venv-mlflow, and EMBEDMILL_MLFLOW_PYTHON names another interpreter that has it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.ports import free_ports

PYTHON = Path(os.environ.get("EMBEDMILL_MLFLOW_PYTHON") or ROOT / ".venv-mlflow" / "bin" / "python")
MISSING = "" if PYTHON.exists() else f"no MLflow server: {PYTHON} is not there; `make mlflow` makes it"


class MlflowServer:
    """A running server that keeps all it has below ``folder``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.files = folder / "files"
        [port] = free_ports(1)
        self.uri = f"http://127.0.0.1:{port}"
        self._log = (folder / "log").open("wb")
        command = [str(PYTHON), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{folder / 'store.db'}"]
        command += ["--artifacts-destination", str(self.files), "--serve-artifacts"]
        given = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        given |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._process = subprocess.Popen(
            command, cwd=folder, env=given, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._wait(folder)

    def stop(self) -> None:
        """End it and the processes that it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        self._log.close()

    def _wait(self, folder: Path) -> None:
        end = time.monotonic() + 180
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.3)
        self.stop()
        raise RuntimeError(f"MLflow did not start: {(folder / 'log').read_text()[-800:]}")
