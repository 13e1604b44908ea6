#!/usr/bin/env bash
# A local Airflow with embedmill's DAGs over the sample. `make airflow` calls it with the environment's bin folder;
# Ctrl-C stops it with everything that it started.
set -euo pipefail
bin=$(cd "$1" && pwd)
port=${AIRFLOW_PORT:-8080}
export PATH="$bin:$PATH"
export AIRFLOW_HOME="$PWD/build/airflow"
export AIRFLOW__CORE__DAGS_FOLDER="$PWD/dags"
export AIRFLOW__CORE__LOAD_EXAMPLES=False
export AIRFLOW__CORE__PARALLELISM=8
export AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION=False
export AIRFLOW__CORE__EXECUTION_API_SERVER_URL="http://127.0.0.1:$port/execution/"
export AIRFLOW__API__HOST=127.0.0.1
export AIRFLOW__API__PORT="$port"
export AIRFLOW__API__BASE_URL="http://127.0.0.1:$port"
export EMBEDMILL_CONFIG="$PWD/docs/sample/embedmill.toml"
# Nothing runs until it is asked for.
export EMBEDMILL_NIGHTLY_CRON=${EMBEDMILL_NIGHTLY_CRON-}
mkdir -p "$AIRFLOW_HOME" build/demo

if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "airflow: port $port is in use; set AIRFLOW_PORT to another" >&2
    exit 1
fi
airflow db migrate >"$AIRFLOW_HOME/setup.log" 2>&1
airflow pools set embedmill 1 "one writer on the live index" --include-deferred >>"$AIRFLOW_HOME/setup.log" 2>&1
airflow pools set embedmill_build 1 "one build beside it" --include-deferred >>"$AIRFLOW_HOME/setup.log" 2>&1

pids=()
tree() {  # a process and all below it
    echo "$1"
    for child in $(ps -o pid= --ppid "$1" 2>/dev/null); do tree "$child"; done
}
stop() {
    trap - EXIT
    trap '' INT TERM  # once more by make, which passes them on
    local all=() pid
    for pid in "${pids[@]}"; do mapfile -t -O "${#all[@]}" all < <(tree "$pid"); done
    kill "${pids[@]}" 2>/dev/null || true
    for _ in $(seq 20); do
        kill -0 "${all[@]}" 2>/dev/null || break
        sleep 0.5
    done
    kill -9 "${all[@]}" 2>/dev/null || true
    echo "airflow: stopped" >&2
}
trap stop EXIT
trap 'exit 130' INT TERM
for part in api-server scheduler dag-processor triggerer; do
    # A session of its own, so that Ctrl-C reaches this script alone and it ends them in order.
    setsid airflow "$part" >"$AIRFLOW_HOME/$part.log" 2>&1 </dev/null &
    pids+=($!)
done
for _ in $(seq 120); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    kill -0 "${pids[@]}" 2>/dev/null || { echo "airflow: did not start; see $AIRFLOW_HOME/*.log" >&2; exit 1; }
    sleep 1
done
echo "airflow: http://127.0.0.1:$port  user admin, password in $AIRFLOW_HOME/simple_auth_manager_passwords.json.generated"
echo "airflow: Ctrl-C stops it"
wait -n "${pids[@]}"
echo "airflow: a part of it ended; see $AIRFLOW_HOME/*.log" >&2
exit 1
