#!/usr/bin/env bash
# The one test command. One line per step; what a step printed is shown when it fails, and kept in
# target/test-logs.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'TEXT'
usage: scripts/test.sh [--documents | --peer]

Everything that is tested; with --documents what a change to documents alone can break: what they name is there,
and figures and dependencies that they speak of are. docs/TESTING.md says what is tested where.

Links with nodes of moq-relay are played where that is built: at PEER_RELAY, or by scripts/compare.sh. It takes half
an hour to build, and so that is done here only with --peer.

Example: scripts/test.sh
TEXT
}

mode=${1-}
build_peer=
case $mode in
'' | --documents) ;;
--peer) build_peer=1 ;;
--help | -h) usage && exit ;;
*) usage >&2 && exit 2 ;;
esac

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
    test | peer)
        awk '/^test result:/ { passed += $4; ignored += $8 }
             END { printf "%d passed, %d ignored", passed, ignored }' "$logs/$1.log"
        ;;
    setup | licences | measure | video) tail -n 1 "$logs/$1.log" ;;
    esac
}

peer=${PEER_RELAY:-$PWD/target/tools/bin/moq-relay}
plays_with_peer() {
    if [[ -n $build_peer && -z ${PEER_RELAY:-} ]]; then
        PYTHONPATH=scripts python3 -c 'from measure.tools import peer; peer()' || return
    fi
    # One at a time: each has processes of its own. What is built for the suites is not built again.
    PEER_RELAY=$peer cargo test --workspace --test linked -- --ignored --test-threads 1
}

if [[ $mode == --documents ]]; then
    step licences scripts/dependencies.py
    step test cargo test -p shardcast-house -p shardcast --test house --test dashboard
    echo "documents passed in $SECONDS s"
    exit
fi

step setup scripts/setup.sh
step fmt cargo fmt --all --check
step licences scripts/dependencies.py
step clippy cargo clippy --workspace --all-targets -- -D warnings
step test scripts/suites.py
if [[ -n $build_peer || -n ${PEER_RELAY:-} || -x $peer ]]; then
    step peer plays_with_peer
else
    echo "NOT RUN peer              links with moq-relay, which is not built: --peer builds it, or say PEER_RELAY"
fi
step measure python3 -m unittest discover -s scripts/measure -t scripts
step video scripts/demo-video.sh
echo "all passed in $SECONDS s"
awk '/^test result:/ { passed += $4; failed += $6 }
     END { printf "tests: %d passed, %d failed\n", passed, failed }' "$logs/test.log"
# Where .ci/run begins the next time.
if [[ -z $(git status --porcelain 2>/dev/null || echo unknown) ]]; then
    git rev-parse HEAD >target/tested
fi
