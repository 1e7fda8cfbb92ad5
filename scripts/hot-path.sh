#!/usr/bin/env bash
# Counts the instructions of the hot path under callgrind and compares them with what is stored. Fails
# if one has grown by more than ten percent. With --update the counts are stored instead.
set -euo pipefail
cd "$(dirname "$0")/.."

# The runner must be of the library's version, which Cargo.toml pins.
GUNGRAUN=0.20.0
BASELINE=bench/hot_path.baseline
GROWTH_MAX_PERCENT=10

[[ -d $HOME/.cargo/bin ]] && PATH=$HOME/.cargo/bin:$PATH

fail() {
    echo "hot-path: $*" >&2
    exit 1
}

usage() {
    cat <<'TEXT'
usage: scripts/hot-path.sh [--update]

Counts the instructions of the hot path and compares them with bench/hot_path.baseline; with --update they are
stored there instead.

Example: scripts/hot-path.sh
TEXT
}

update=''
case ${1-} in
    '') ;;
    --update) update=yes ;;
    --help | -h) usage && exit ;;
    *) usage >&2 && exit 2 ;;
esac
command -v valgrind >/dev/null || fail "no valgrind; install it with: apt-get install valgrind"

tools=$PWD/target/tools log=target/gungraun-runner.log
if ! grep -qs "gungraun-runner $GUNGRAUN " "$tools/.crates.toml"; then
    echo "hot-path: building gungraun-runner $GUNGRAUN (some minutes)"
    mkdir -p target
    # As a debug build: the time goes to valgrind.
    cargo install gungraun-runner --version "$GUNGRAUN" --locked --debug --root "$tools" \
        >"$log" 2>&1 || fail "gungraun-runner does not build; see $log"
fi

counts=target/hot-path.json
GUNGRAUN_RUNNER=$tools/bin/gungraun-runner \
    cargo bench -q --bench hot_path -- --output-format=json >"$counts"

python3 - "$counts" "$BASELINE" "$GROWTH_MAX_PERCENT" "$update" <<'PYTHON'
import json, sys

counts, baseline, growth_max, update = sys.argv[1:]


def instructions(run):
    return run["profiles"][0]["data"]["total"]["metrics"]["Ir"]["values"]["new"]


def name(run):
    return f'{run["function_name"]}/{run["id"]}'


with open(counts) as lines:
    now = {name(run): instructions(run) for run in map(json.loads, filter(str.strip, lines))}
if not now:
    sys.exit("hot-path: nothing was counted")
if update:
    with open(baseline, "w") as out:
        out.writelines(f"{which} {count}\n" for which, count in now.items())
with open(baseline) as lines:
    before = {which: int(count) for which, count in map(str.split, lines)}

grown = []
print(f'{"":32} {"stored":>12} {"now":>12} {"change":>8}')
for which, count in now.items():
    stored = before.get(which)
    change = (count / stored - 1) * 100 if stored else 0
    print(f'{which:32} {stored or "-":>12} {count:>12} {change:>+7.1f} %')
    if stored is None or change > float(growth_max):
        grown.append(which)
gone = before.keys() - now.keys()
if gone:
    sys.exit(f"hot-path: stored but not counted: {', '.join(sorted(gone))}")
if grown:
    sys.exit(
        f"hot-path: more than {growth_max} % above what is stored, or new: {', '.join(grown)}; "
        "if that is meant, run scripts/hot-path.sh --update"
    )
PYTHON
