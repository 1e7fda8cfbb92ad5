#!/usr/bin/env bash
# The figures of docs/SPECIFICATION.md, measured on the relay as it is released: one line for each.
# scripts/measure/reliability.py does it; see there, or --help.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# A fresh shell may not have been told where rustup puts things.
[[ -d $HOME/.cargo/bin ]] && PATH=$HOME/.cargo/bin:$PATH

PYTHONPATH="$root/scripts" exec python3 -m measure.reliability "$@"
