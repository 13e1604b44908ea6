#!/usr/bin/env bash
# How large the layers of an image are, in MB, from its own install scripts: sizes.sh airflow|spark|ray
# Run from the root of the repository. It installs into a folder of TMPDIR (gigabytes, minutes), and removes that again.
# Java is what apt says that it would take; where it is there already, apt says 0.
set -euo pipefail

image=${1:?give the image: airflow, spark or ray}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
prefix=$folder/prefix

megabytes() { du --summarize --apparent-size --block-size=1000000 "$@" | tail -n 1 | cut -f 1; }
line() { printf '%-44s %8s %8s\n' "$@"; }
largest() { (cd "$prefix"/lib/python3*/site-packages && du --summarize --apparent-size --block-size=1000000 ./* | sort -k 2); }

"$here/python.sh" "$image" "$prefix" >&2
whole=$(megabytes "$prefix")
largest >"$folder/before"
"$here/trim.sh" "$prefix" >&2
largest >"$folder/after"

line "layer of $image" before after
line "virtual environment" "$whole" "$(megabytes "$prefix")"
join -1 2 -2 2 -a 1 -e 0 -o 0,1.1,2.1 "$folder/before" "$folder/after" | sort -k 2 -n -r |
    awk '$2 != $3 { printf "  %-42s %8s %8s\n", substr($1, 3), $2, $3 }'
"$here/sbom.sh" "$prefix" >&2
line "list of packages (sbom.json)" 0 "$(megabytes "$prefix/sbom.json")"
if [ "$image" = airflow ]; then
    line "DAGs and start script" "$(megabytes dags docker/airflow)" "$(megabytes dags docker/airflow)"
else
    java=$(apt-get --assume-no --no-install-recommends install openjdk-17-jre-headless 2>/dev/null |
        sed -nE 's/^After this operation, ([0-9.,]+) MB of additional.*/\1/p' || true)
    line "Java" "${java:-0}" "${java:-0}"
fi
