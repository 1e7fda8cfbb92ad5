#!/usr/bin/env bash
# Installs what building and testing need on Debian or Ubuntu. Safe to run again; quick when
# everything is there.
set -euo pipefail

RUST_MIN=1.95

fail() {
    echo "setup: $*" >&2
    exit 1
}

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

echo "setup: ready (rustc $version)"
