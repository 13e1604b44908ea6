#!/usr/bin/env bash
# Versions: apache-airflow 3.3.2, apache-airflow-task-sdk 1.3.2, SQLite.
# Behaviour: a task that remembers what its last run found asks `xcom_pull(include_prior_dates=True)`, which takes the value of
#   this run or the newest before it. A run that a person starts, by REST or in the page, has no logical date. Which runs are
#   before this one goes by `coalesce(logical_date, run_after)`, but which of them is the newest goes by `logical_date` alone.
#   So what the database does with nulls decides: SQLite has them last in a descending order, and a scheduled run gets what
#   the scheduled run before it said although a person's run came after that; PostgreSQL has them first, and every later run
#   gets what a person's run said once, however long ago.
# Source: airflow/models/xcom.py, XComModel.get_many: the filter by `func.coalesce(DagRun.logical_date, DagRun.run_after)`,
#   then `query.order_by(DagRun.logical_date.desc(), cls.timestamp.desc())`.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q apache-airflow==3.3.2 2>/dev/null
export AIRFLOW_HOME="$work" AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="sqlite:///$work/airflow.db"
"$work/venv/bin/airflow" db migrate >/dev/null 2>&1
cat > "$work/ask.py" <<'PY'
import datetime as dt
import sqlite3
import sys

from airflow.models.xcom import XComModel
from sqlalchemy.dialects import postgresql, sqlite

query = XComModel.get_many(
    run_id="night 3", key="return_value", task_ids="look", dag_ids="nightly", include_prior_dates=True
)
order = str(query.compile(dialect=postgresql.dialect())).split("ORDER BY")[1].strip()
print("order:", order)

# Three runs, the second of which a person started: each left a value.
nights = [("night 1", 1, True), ("by hand", 2, False), ("night 3", 3, True)]
with sqlite3.connect(sys.argv[1]) as database:
    database.execute("pragma foreign_keys = off")

    def put(table, **values):
        """Insert a row; what must not be null and is not given gets something."""
        for _, name, kind, needed, default, _ in database.execute(f"pragma table_info({table})"):
            if needed and default is None and name not in values and name != "id":
                values[name] = 0 if "INT" in kind or "BOOL" in kind or "FLOAT" in kind else "x"
        columns = ", ".join(f'"{name}"' for name in values)
        database.execute(f"insert into {table} ({columns}) values ({', '.join('?' * len(values))})", [*values.values()])

    for number, (run, day, scheduled) in enumerate(nights, 1):
        moment = dt.datetime(2026, 11, day, 2, tzinfo=dt.timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")
        logical = moment if scheduled else None
        put("dag_run", id=number, dag_id="nightly", run_id=run, logical_date=logical, run_after=moment)
        if run != "night 3":  # it has not said anything yet
            put("xcom", dag_run_id=number, task_id="look", map_index=-1, key="return_value", dag_id="nightly",
                run_id=run, value=f'"{run}"', timestamp=moment)
    database.commit()
    said = query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    rows = database.execute(str(said)).fetchall()
print("found, the first is taken:", [next(v for v in row if v in ("night 1", "by hand")) for row in rows])
PY
"$work/venv/bin/python" "$work/ask.py" "$work/airflow.db" 2>/dev/null > "$work/seen"
cat "$work/seen"
sed -n '/^# Seen:$/,$p' "$0" | sed '1d;s/^# //' | diff - "$work/seen"
exit
# Seen:
# order: dag_run.logical_date DESC, xcom.timestamp DESC
# found, the first is taken: ['night 1', 'by hand']
