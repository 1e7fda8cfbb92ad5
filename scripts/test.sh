#!/usr/bin/env bash
# The one test command: everything that a reviewer would ask. One line per step; what a step
# printed is shown when it fails, and kept in target/test-logs.
set -euo pipefail
cd "$(dirname "$0")/.."

logs=target/test-logs
mkdir -p "$logs"
[[ -d $HOME/.cargo/bin ]] && PATH=$HOME/.cargo/bin:$PATH

step() {
    local name=$1 start=$SECONDS
    shift
    if "$@" >"$logs/$name.log" 2>&1; then
        printf 'ok      %-8s %4d s  %s\n' "$name" $((SECONDS - start)) "$(summary "$name")"
    else
        cat "$logs/$name.log"
        printf 'FAILED  %-8s %4d s  %s\n' "$name" $((SECONDS - start)) "$*" >&2
        exit 1
    fi
}

summary() {
    case $1 in
    test)
        awk '/^test result:/ { passed += $4; ignored += $8 }
             END { printf "%d passed, %d ignored", passed, ignored }' "$logs/test.log"
        ;;
    setup | measure | video) tail -n 1 "$logs/$1.log" ;;
    esac
}

step setup scripts/setup.sh
step fmt cargo fmt --all --check
step clippy cargo clippy --workspace --all-targets -- -D warnings
step test cargo test --workspace
step measure python3 -m unittest discover -s scripts/measure -t scripts
step video scripts/demo-video.sh
echo "all passed in $SECONDS s"
awk '/^test result:/ { passed += $4; failed += $6 }
     END { printf "tests: %d passed, %d failed\n", passed, failed }' "$logs/test.log"
