#!/usr/bin/env bash
# Versions: mlflow 3.17.2 (client and server).
# Behaviour: `MlflowClient.download_artifacts(run_id, path)` raises RESOURCE_DOES_NOT_EXIST ("please ensure that the path is
#   correct") for a file that is not there, and word for word the same where the server goes away after the run was looked up: an
#   outage in the middle of a download is told as a file that was never logged. Who retries by the error's code does not retry,
#   and who takes the code for "nothing was logged" goes on without it. The artifact repository, by itself, says that the
#   connection failed.
# Source: mlflow/store/artifact/runs_artifact_repo.py, RunsArtifactRepository.download_artifacts: what the run's own repository
#   raises is caught and logged at debug level, whatever it was, and so is the search through the run's logged models; then
#   "no path" is one error.
set -euo pipefail
work=$(mktemp -d); server=
trap 'test -z "$server" || kill -- "-$server" 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check mlflow==3.17.2 2>/dev/null
export MLFLOW_HTTP_REQUEST_MAX_RETRIES=0 MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
export MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR=false
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
(cd "$work" && exec setsid "$work/venv/bin/mlflow" server --host 127.0.0.1 --port "$port" --workers 1 \
  --backend-store-uri "sqlite:///$work/store.db" --artifacts-destination "$work/files" >"$work/log" 2>&1) &
server=$!
cat > "$work/ask.py" <<'PY'
import os
import signal
import sys
import time
import urllib.request

import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

uri, group, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
for _ in range(600):
    try:
        urllib.request.urlopen(f"{uri}/health", timeout=2)
        break
    except OSError:
        time.sleep(0.2)
client = MlflowClient(uri, uri)
run = client.create_run(client.create_experiment("try"))
with open(f"{folder}/there.txt", "w") as file:
    file.write("it is here")
client.log_artifact(run.info.run_id, f"{folder}/there.txt")


def told(what, ask):
    """Print how it failed; returns the code and whether it speaks of a path."""
    try:
        ask()
        found = ("no error", False)
    except (MlflowException, requests.RequestException) as error:
        found = (getattr(error, "error_code", type(error).__name__), "path is correct" in str(error))
    print(f"{what}: {found[0]}{', please ensure that the path is correct' if found[1] else ''}")
    return found


there = told("a file that is there", lambda: client.download_artifacts(run.info.run_id, "there.txt", folder))
missing = told("a file that is not there", lambda: client.download_artifacts(run.info.run_id, "none.txt", folder))
files = get_artifact_repository(run.info.artifact_uri, tracking_uri=uri)

really = requests.Session.send


def send(session, request, **given):
    """End the server once the run was looked up."""
    answer = really(session, request, **given)
    if "runs/get" in request.url:
        os.killpg(group, signal.SIGKILL)
        time.sleep(1)
    return answer


requests.Session.send = send
lost = told("a server that went away meanwhile", lambda: client.download_artifacts(run.info.run_id, "there.txt", folder))
requests.Session.send = really
plain = told("the same, asked of the repository", lambda: files.list_artifacts())
sys.exit(not (there[0] == "no error" and lost == missing == ("RESOURCE_DOES_NOT_EXIST", True) and plain[0] != missing[0]))
PY
"$work/venv/bin/python" "$work/ask.py" "http://127.0.0.1:$port" "$server" "$work" 2>/dev/null
# a file that is there: no error
# a file that is not there: RESOURCE_DOES_NOT_EXIST, please ensure that the path is correct
# a server that went away meanwhile: RESOURCE_DOES_NOT_EXIST, please ensure that the path is correct
# the same, asked of the repository: INTERNAL_ERROR
