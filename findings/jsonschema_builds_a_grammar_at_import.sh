#!/usr/bin/env bash
# Versions: jsonschema 4.26.0, rfc3987-syntax 1.1.0, lark 1.3.1; the former pair comes with cyclonedx-bom 7.5.0, a tool of builds.
# Behaviour: where rfc3987-syntax is installed (jsonschema's extra `format-nongpl`, and so any package that asks for it),
#   `import jsonschema` builds a parser of IRIs from a grammar: many times the CPU of the import alone, a second and more on a
#   server, in every process, whether or not anything is validated, and without a format checker. Who imports jsonschema pays:
#   with Ray each worker, with Airflow each task. A build's tool in the environment of a service slows all of its processes.
# Source: jsonschema/_format.py imports each optional checker at its own import, inside suppress(ImportError);
#   rfc3987_syntax/syntax_helpers.py makes a Lark of the whole grammar at module level, and one more for each rule.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
install() { "$work/venv/bin/pip" install -q --disable-pip-version-check "$@" 2>/dev/null; }
# CPU of the import in ms, the least of seven; then whether the grammar's library was loaded.
cat > "$work/cost.py" <<'PY'
import subprocess
import sys

ask = (
    "import sys, time; began = time.process_time(); import jsonschema; "
    "print((time.process_time() - began) * 1000, 'lark' in sys.modules)"
)
said = [subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.split() for _ in range(7)]
print(round(min(float(ms) for ms, _ in said)), said[0][1])
PY
install jsonschema==4.26.0
read -r alone loaded_alone <<<"$("$work/venv/bin/python" "$work/cost.py")"
install cyclonedx-bom==7.5.0 rfc3987-syntax==1.1.0 lark==1.3.1
"$work/venv/bin/pip" show rfc3987-syntax >/dev/null
read -r beside loaded_beside <<<"$("$work/venv/bin/python" "$work/cost.py")"
"$work/venv/bin/pip" uninstall -q -y rfc3987-syntax
"$work/venv/bin/pip" check >/dev/null
read -r after loaded_after <<<"$("$work/venv/bin/python" "$work/cost.py")"
echo "import jsonschema: alone $alone ms of CPU (lark loaded: $loaded_alone)"
echo "beside a tool that brings rfc3987-syntax: $beside ms (lark loaded: $loaded_beside)"
echo "without that package again, which pip check does not miss: $after ms (lark loaded: $loaded_after)"
[ "$loaded_alone" = False ] && [ "$loaded_beside" = True ] && [ "$loaded_after" = False ]
[ "$beside" -gt $((4 * alone)) ] && [ "$beside" -gt $((4 * after)) ]

# It printed:
# import jsonschema: alone 74 ms of CPU (lark loaded: False)
# beside a tool that brings rfc3987-syntax: 1196 ms (lark loaded: True)
# without that package again, which pip check does not miss: 112 ms (lark loaded: False)
