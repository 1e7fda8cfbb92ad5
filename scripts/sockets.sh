#!/usr/bin/env bash
# What viewers by WebSocket cost our relay and moq-relay, and how far behind live they leave one whose link is
# narrower than the track. scripts/measure/sockets.py does it; see there, or --help.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[[ " $* " == *' --help '* || " $* " == *' -h '* ]] || "$root/scripts/setup.sh" --minimal >&2
# A fresh shell may not have been told where rustup puts things.
[[ -d $HOME/.cargo/bin ]] && PATH=$HOME/.cargo/bin:$PATH
# Rings of moq-relay count as locked memory; as much of it as we may have.
ulimit -l unlimited 2>/dev/null || ulimit -l "$(ulimit -Hl)"

PYTHONPATH="$root/scripts" exec python3 -m measure.sockets "$@"
