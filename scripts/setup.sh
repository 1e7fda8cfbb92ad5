#!/usr/bin/env bash
# Installs what building and testing need on Debian or Ubuntu. Safe to run again; quick when
# everything is there. With --minimal, nothing that only the plays with foreign clients need.
set -euo pipefail

RUST_MIN=1.95
NODE_MIN=18
# Released clients that tests/browser.rs and tests/foreign.rs act with; those of browsers and Node are in
# the package-lock.json of each folder in tests/clients.
PYTHON_CLIENT=moq-rs==0.5.1
# What tests/operations.rs reads figures with.
PROMETHEUS_CLIENT=prometheus-client==0.26.0
CLOCK_VERSION=0.10.21

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
    echo "setup: $*" >&2
    exit 1
}

usage() {
    cat <<'TEXT'
usage: scripts/setup.sh [--minimal]

Installs what building and testing need; with --minimal, nothing that only the plays with foreign clients need.

Example: scripts/setup.sh --minimal
TEXT
}

minimal=''
case ${1-} in
    '') ;;
    --minimal) minimal=yes ;;
    --help | -h) usage && exit ;;
    *) usage >&2 && exit 2 ;;
esac

# Command that must exist, and the package that brings it.
#   cc       compiles aws-lc and glommio's bundled liburing; neither needs cmake or make
#   git      glommio's build script calls it
#   ffmpeg   makes and checks the picture of the video demo
#   setpriv  lets the start-up tests run without privileges
NEEDS=(
    "cc build-essential"
    "git git"
    "ffmpeg ffmpeg"
    "ffprobe ffmpeg"
    "python3 python3"
    "setpriv util-linux"
)
#   chromium, firefox-esr, node  run what publishes and watches; npm brings their clients
#   pulseaudio       is the loudspeaker without which Firefox plays no sound
#   certutil         has browsers trust an authority
#   curl             asks the relay's HTTP server
#   valgrind         counts the instructions of the hot path
#   systemd-analyze  judges the unit of the package
#   openssl          makes the certificate of relays that are measured
#   pebble           issues certificates to relays that order them
[[ -n $minimal ]] || NEEDS+=(
    "chromium chromium"
    "firefox-esr firefox-esr"
    "pulseaudio pulseaudio"
    "certutil libnss3-tools"
    "node nodejs"
    "npm npm"
    "curl curl"
    "valgrind valgrind"
    "systemd-analyze systemd"
    "openssl openssl"
    "pebble pebble"
)

packages=()
for need in "${NEEDS[@]}"; do
    read -r command package <<<"$need"
    command -v "$command" >/dev/null || packages+=("$package")
done
# Debian splits both off, so that `python3 -m venv` exists and then fails.
if command -v python3 >/dev/null && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    packages+=(python3-venv)
elif ! command -v python3 >/dev/null; then
    packages+=(python3-venv)
fi
[[ -e /usr/include/stdio.h ]] || packages+=(libc6-dev)
[[ -d /etc/ssl/certs ]] || packages+=(ca-certificates)

if ((${#packages[@]} > 0)); then
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
    command -v apt-get >/dev/null ||
        fail "needs ${packages[*]} and finds no apt-get; install them, then run this again"
    as_root=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || fail "needs ${packages[*]}; run this as root, or install sudo"
        as_root=(sudo)
    fi
    echo "setup: installing ${packages[*]}"
    # Through env, because sudo does not hand our own environment on.
    apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get)
    "${apt[@]}" update -qq
    "${apt[@]}" install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

# rustup puts it here, and a fresh shell may not have been told.
[[ -d $HOME/.cargo/bin ]] && PATH=$HOME/.cargo/bin:$PATH

GET_RUST="get it with: curl -sSf https://sh.rustup.rs | sh -s -- -y --profile default"
command -v rustc >/dev/null || fail "no Rust; $GET_RUST"
version=$(rustc --version | cut -d' ' -f2)
if [[ $(printf '%s\n' "$RUST_MIN" "$version" | sort -V | head -1) != "$RUST_MIN" ]]; then
    fail "rustc $version is older than $RUST_MIN; run: rustup update stable, or $GET_RUST"
fi
for component in clippy fmt; do
    cargo "$component" --version >/dev/null 2>&1 ||
        fail "no cargo $component; run: rustup component add clippy rustfmt"
done

# What only the plays with foreign clients need; it stays in this folder.

browser_clients() {
    local here=$root/tests/clients/$1
    local node
    node=$(node --version)
    [[ $(printf '%s\n' "v$NODE_MIN" "$node" | sort -V | head -1) == "v$NODE_MIN" ]] ||
        fail "node $node is older than $NODE_MIN; install a newer one"
    # npm writes the second of them last.
    [[ $here/node_modules/.package-lock.json -nt $here/package-lock.json ]] && return
    echo "setup: installing the clients of $1"
    (cd "$here" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error) >/dev/null ||
        fail "npm ci in $here failed"
    touch "$here/node_modules/.package-lock.json"
}

python_package() {
    local venv=$root/target/demo-venv name=${1%%==*} wanted=${1##*==}
    local version="from importlib.metadata import version; print(version('$name'))"
    [[ $("$venv/bin/python" -c "$version" 2>/dev/null || true) == "$wanted" ]] && return
    echo "setup: installing $1"
    mkdir -p "$root/target"
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q "$1" || fail "pip install $1 failed"
}

clock_client() {
    local tools=$root/target/tools log=$root/target/moq-clock.log
    grep -qs "moq-clock $CLOCK_VERSION " "$tools/.crates.toml" && return
    echo "setup: building moq-clock $CLOCK_VERSION (some minutes)"
    mkdir -p "$root/target"
    # As a debug build, and without what a debugger wants: it says one line a second.
    CARGO_PROFILE_DEV_DEBUG=0 cargo install moq-clock --version "$CLOCK_VERSION" --locked --debug --root "$tools" \
        >"$log" 2>&1 || fail "moq-clock does not build; see $log"
}

if [[ -z $minimal ]]; then
    browser_clients browser
    browser_clients player
    browser_clients restart
    browser_clients token
    python_package "$PYTHON_CLIENT"
    python_package "$PROMETHEUS_CLIENT"
    clock_client
fi

echo "setup: ready (rustc $version)"
