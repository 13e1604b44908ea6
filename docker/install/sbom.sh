#!/usr/bin/env bash
# Writes what an image's virtual environment holds, as CycloneDX JSON: sbom.sh PREFIX, into PREFIX/sbom.json
# Run from the root of the build context. The tool has an environment of its own and leaves nothing in the image.
set -euo pipefail

prefix=${1:?give the folder of the virtual environment}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT

"${PYTHON:-python3}" -m venv "$tool"
"$tool/bin/python" -m pip --disable-pip-version-check install --quiet --requirement "$here/sbom.txt"
"$tool/bin/cyclonedx-py" environment --output-reproducible --spec-version 1.6 --output-format JSON \
    --output-file "$prefix/sbom.json" "$prefix/bin/python"
chmod 0644 "$prefix/sbom.json"
