#!/usr/bin/env bash
# Builds the Debian package of the relay.
set -euo pipefail

CARGO_DEB_VERSION=3.8.0

usage() {
    cat <<'TEXT'
usage: scripts/package.sh [--plain | --binary FILE] [--revision N] [--to FOLDER]

Builds target/package/shardcast_VERSION-N_ARCHITECTURE.deb: the relay, its unit, /etc/shardcast/shardcast.toml,
what is to be read and the licences of all that the relay is linked with. It fits this Debian or Ubuntu and newer ones.

  --plain        the relay as `cargo build --release` makes it (minutes); by default as scripts/pgo.sh does,
                 for 10 to 20 % less CPU (a quarter of an hour, and llvm-profdata)
  --binary FILE  a relay that is there already
  --revision N   of the package (default: 1)
  --to FOLDER    where it is left (default: target/package)

Example: scripts/package.sh --plain

scripts/test-package.sh installs, uses, upgrades and removes it in a root of its own.
TEXT
}

fail() {
    echo "package: $*" >&2
    exit 1
}

kind=pgo
binary=
revision=1
to=target/package
while (($# > 0)); do
    case $1 in
    --help | -h) usage && exit ;;
    --plain) kind=plain ;;
    --binary) kind=binary binary=$(realpath -e "${2:?}") && shift ;;
    --revision) revision=${2:?} && shift ;;
    --to) to=$(realpath -m "${2:?}") && shift ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ -d $HOME/.cargo/bin ]] && PATH=$HOME/.cargo/bin:$PATH
scripts/setup.sh --minimal >&2
command -v dpkg-shlibdeps >/dev/null || fail "dpkg-shlibdeps is missing; run: apt-get install dpkg-dev"

tools=$PWD/target/tools
if ! grep -qs "cargo-deb $CARGO_DEB_VERSION " "$tools/.crates.toml"; then
    echo "package: building cargo-deb $CARGO_DEB_VERSION (a minute or two)" >&2
    cargo install -q cargo-deb --version "$CARGO_DEB_VERSION" --locked --debug --root "$tools"
fi

case $kind in
pgo)
    scripts/pgo.sh >&2
    binary=target/pgo/shardcast
    ;;
plain)
    cargo build --release --locked --bin shardcast >&2
    binary=target/release/shardcast
    ;;
esac

mkdir -p target/package "$to"
# Names of functions stay, for profilers and backtraces.
strip --strip-debug -o target/package/shardcast "$binary"
scripts/third_party.py >target/package/THIRD-PARTY.txt
version=$(cargo pkgid | sed 's/.*[#@]//')

# The helps of the program as a manual page.
manual() {
    help() {
        env -i COLUMNS=76 target/package/shardcast "$@" --help | sed -e 's/[\\-]/\\&/g' -e "s/^[.']/\\\\\&&/"
    }
    cat <<TEXT
.TH SHARDCAST 1 "" "shardcast $version"
.SH NAME
shardcast \\- relay for Media over QUIC Lite
.SH DESCRIPTION
.nf
$(help)
TEXT
    local commands
    commands=$(COLUMNS=200 target/package/shardcast --help | sed -n '/^Commands, /,/^$/s/^  \([a-z]*\) .*/\1/p')
    for command in $commands; do
        echo ".SH SHARDCAST ${command^^}" && help "$command"
    done
    cat <<TEXT
.fi
.SH FILES
/etc/shardcast/shardcast.toml has every setting with its default.
.SH SEE ALSO
/usr/share/doc/shardcast/README.md and docs beside it; systemctl(1), journalctl(1)
TEXT
}
manual >target/package/shardcast.1
cat >target/package/changelog <<TEXT
shardcast ($version-$revision) unstable; urgency=medium

  * Built from the sources of $version; what has changed is in their history.

 -- $(sed -n 's/^maintainer = "\(.*\)"/\1/p' Cargo.toml)  $(date -Ru)
TEXT
"$tools/bin/cargo-deb" --no-build --no-strip --deb-revision "$revision" --output "$to/" -q >&2
echo "$to/shardcast_$version-${revision}_$(dpkg --print-architecture).deb"
