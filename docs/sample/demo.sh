#!/usr/bin/env bash
# The demo: one run over the sample, then three searches. `make demo` calls it with the environment's bin folder.
set -euo pipefail
bin=$1
export EMBEDMILL_CONFIG=docs/sample/embedmill.toml
mkdir -p build/demo
echo '$ embedmill run'
"$bin/embedmill" run
for question in \
    "why did the lockers at the train station stop opening" \
    "how do I get reimbursed for a home office chair" \
    "who is on call this weekend"; do
    echo
    echo "\$ embedmill search \"$question\" --team T01FERN --kind message --k 3"
    "$bin/embedmill" search "$question" --team T01FERN --kind message --k 3
done
