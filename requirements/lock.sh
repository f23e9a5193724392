#!/usr/bin/env bash
# Write the locks from pyproject.toml. Run it through `make lock`. Pip's find-links is honoured, for a local torch build.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
"$python" -m pip install --quiet uv
export UV_FIND_LINKS=${PIP_FIND_LINKS:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# write NAME COMMENT ARGS...: resolve into requirements/NAME.txt
write() {
  local name=$1 comment=$2
  shift 2
  "$python" -m uv pip compile --quiet --python-version 3.11 --no-annotate --no-header "$@" pyproject.toml \
    --output-file "$work/$name"
  {
    echo "# Pinned by \`make lock\` from pyproject.toml. Do not edit."
    printf '%s' "$comment"
    grep -vE '^(#|--)' "$work/$name" | sed -E 's/^(torch==[0-9.]+)\+cpu/\1/'
  } >"requirements/$name.txt"
}

write cpu "# Install with: pip install --no-deps -r requirements/cpu.txt
# torchvision, torchaudio and torchcodec are left out on purpose: softrec needs none of them, and their published wheels
# are CUDA builds, beside which \`import transformers\` fails on a CPU build of torch.
" --extra cpu --extra postgres --no-emit-package torchvision --no-emit-package torchaudio --no-emit-package torchcodec
UV_FIND_LINKS='' write gpu "# Install with: pip install --no-deps -r requirements/gpu.txt
" --extra gpu --extra postgres
write dev "# Beside cpu.txt: what the tests and linters need.
" --group dev --constraint requirements/cpu.txt
