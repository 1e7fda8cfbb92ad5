#!/usr/bin/env bash
# The Debian package in a clean root of its own, under a systemd that runs there.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/test-package.sh [--binary FILE]

Makes two revisions of the package (scripts/package.sh --plain, or of a relay that is there), and a root by
debootstrap, in which systemd runs in namespaces of its own. The package is installed there, started, used,
reconfigured, upgraded, removed and purged. Wants root and apt; prints a line for each thing that it saw.

Example: scripts/test-package.sh --binary target/release/shardcast
TEXT
}

how=(--plain)
while (($# > 0)); do
    case $1 in
    --help | -h) usage && exit ;;
    --binary) how=(--binary "$(realpath -e "${2:?}")") && shift ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."

exec 3>&1
fail() {
    echo "FAILED  $*" >&2
    [[ ! -s ${work-}/clock ]] || cat "$work/clock" >&2
    [[ -z ${init-} ]] || inside journalctl --no-pager -u shardcast -n 30 >&2 || true
    exit 1
}
see() {
    local what=$1
    shift
    "$@" || fail "$what: $*"
    # The caller may have what it says go elsewhere.
    echo "ok      $what" >&3
}

((EUID == 0)) || fail "only root may do this: it mounts, and runs a systemd"

# Command that must exist, and the package that brings it.
for need in "debootstrap debootstrap" "unshare util-linux" "findmnt mount" "curl curl" "lintian lintian"; do
    read -r command package <<<"$need"
    command -v "$command" >/dev/null || apt-get install -y -qq --no-install-recommends "$package" >&2
done
# Publishes its clock, and is asked for it over HTTP.
clock=target/tools/bin/moq-clock
[[ -x $clock ]] || scripts/setup.sh >&2

suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
place=$PWD/target/package-test
base=$place/root-$suite
mkdir -p "$place"
# Not where an operator's own package may be.
first=$(scripts/package.sh "${how[@]}" --revision 1 --to "$place")
second=$(scripts/package.sh "${how[@]}" --revision 2 --to "$place")
see "is as Debian has packages" lintian --allow-root --fail-on error,warning "$first"
if [[ ! -e $base/.complete ]]; then
    echo "test-package: making a root of $suite (a minute)" >&2
    rm -rf "$base"
    mkdir -p "$base"
    debootstrap --variant=minbase --include=systemd,dbus,curl,procps "$suite" "$base" \
        >"$place/debootstrap.log" || fail "debootstrap; see $place/debootstrap.log"
    touch "$base/.complete"
fi

work=$(mktemp -d "$place/run.XXXXXX")
cgroups=$(findmnt -n -t cgroup2 -o TARGET | head -1)
[[ -n $cgroups ]] || fail "there is no cgroup2 file system, which systemd needs"
cgroup=$cgroups/shardcast-$(basename "$work")
init=

# Only what was started here.
tidy() {
    [[ -z $init ]] || kill -KILL "$init" 2>/dev/null || true
    wait 2>/dev/null || true
    local left
    left=$(find "$cgroup" -depth -type d 2>/dev/null) || true
    for group in $left; do rmdir "$group" 2>/dev/null || true; done
    rm -rf "$work"
}
trap tidy EXIT

mkdir "$work/root" "$cgroup"
cp -a "$base/." "$work/root"
cp "$first" "$work/root/root/1.deb"
cp "$second" "$work/root/root/2.deb"
cp "$clock" "$work/root/usr/local/bin/"

# Runs in namespaces, and becomes the systemd of the root.
boot() {
    echo "$BASHPID" >"$cgroup/cgroup.procs"
    # shellcheck disable=SC2016
    exec unshare --mount --pid --fork --cgroup --uts --ipc --net bash -euc '
        cd "$1"
        mount --make-rprivate /
        mount --bind . .
        cd "$1"
        exec bash "$2" "$1"
    ' - "$work/root" "$PWD/tests/support/enter-root.sh" >"$work/console" 2>&1 </dev/null
}

inside() {
    nsenter -t "$init" -a env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"
}

# A condition that comes true in so many seconds.
until_true() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < until)) || return 1
        sleep 0.1
    done
}

boot &
outer=$!
until_true 10 pgrep -P "$outer" || fail "no namespaces: $(cat "$work/console")"
init=$(pgrep -P "$outer")
is_booted() { [[ $(inside systemctl is-system-running) =~ ^(running|degraded)$ ]]; }
until_true 60 is_booted || fail "systemd does not run: $(cat "$work/console")"
version=$(inside systemctl --version | head -1)
echo "ok      $version in a root of $suite"

property() { inside systemctl show shardcast -P "$1"; }
answers() { [[ $(inside curl -sS --max-time 5 "http://127.0.0.1:${2-4443}$1") == "${3-ok}" ]]; }
is_active() { [[ $(property ActiveState) == active ]]; }

see "installed" inside dpkg -i /root/1.deb >"$work/dpkg"
see "the licences of others are there" inside grep -q '^rustls ' /usr/share/doc/shardcast/THIRD-PARTY.txt
see "starts by itself" until_true 10 is_active
see "says how it is" grep -q "shards\? at 127.0.0.1:4443" <<<"$(property StatusText)"
see "answers /health" answers /health
see "starts with the machine" inside systemctl is-enabled --quiet shardcast
tasks() { inside sh -c "cat /proc/$(property MainPID)/task/*/comm"; }
see "has shards" grep -q '^shard-0$' <<<"$(tasks)"
pins() {
    inside sh -c "for task in /proc/$(property MainPID)/task/*; do
        grep -q ^shard- \$task/comm || continue
        grep -qE '^Cpus_allowed_list:.[0-9]+\$' \$task/status || exit 1
    done"
}
see "pins them" pins
see "is not root" [ "$(inside ps -o user= -p "$(property MainPID)")" = shardcast ]
see "keeps its secrets" inside sh -c 'ls -A /var/lib/shardcast/ | grep -q .'
key=(--listen-tls-cert /etc/shardcast/shardcast.toml --listen-tls-key /root/key.pem)
inside sh -c 'umask 077 && touch /root/key.pem'
inside shardcast doctor "${key[@]}" >"$work/doctor" || true
see "the doctor knows what the unit's user may not read" grep -q 'user shardcast.* may not read /root/key.pem' "$work/doctor"
inside rm /root/key.pem
wide=(--listen '[::]:4443' --listen-tls-generate localhost --auth-public 'a/**')
see "and of a relay that is to be restarted for other settings" inside shardcast doctor "${wide[@]}" >"$work/doctor"
see "the doctor is content" inside shardcast doctor /etc/shardcast/shardcast.toml >"$work/doctor"
# As its help says.
unit=(-p DynamicUser=yes -p User=shardcast -p AmbientCapabilities=CAP_NET_BIND_SERVICE -p LimitMEMLOCK=infinity)
see "and so with the rights of the unit" inside systemd-run --pipe --quiet "${unit[@]}" \
    shardcast doctor /etc/shardcast/shardcast.toml >"$work/doctor"

inside moq-clock --url https://127.0.0.1:4443 --client-bind 127.0.0.1:0 --tls-disable-verify --broadcast clock \
    publish >"$work/clock" 2>&1 &
is_announced() { answers /announced 4443 clock; }
see "a publisher is announced" until_true 10 is_announced
# The group lasts for a minute, and its first frames are enough.
fetched() {
    local group
    group=$(inside curl -sS --max-time 2 'http://127.0.0.1:4443/fetch/clock/seconds?group=latest' || true)
    [[ $group == 20??-??-??\ * ]]
}
see "what it publishes is fetched" until_true 5 fetched

before=$(property MainPID)
see "reloads" inside systemctl reload shardcast
see "and is another process then" [ "$(property MainPID)" != "$before" ]
see "which still has what is published" fetched
inside mkdir -p /etc/systemd/system/shardcast.service.d
inside sh -c 'printf "[Service]\nWatchdogSec=5s\nTimeoutAbortSec=1s\nEnvironment=MOQ_LISTEN=127.0.0.1:443\n" \
    >/etc/systemd/system/shardcast.service.d/test.conf'
inside systemctl daemon-reload
see "restarts" inside systemctl restart shardcast
see "has a port below 1024" answers /health 443
inside kill -STOP "$(property MainPID)"
is_restarted() { [[ $(property NRestarts) == 1 ]] && is_active; }
see "hangs, and is started again by the watchdog" until_true 20 is_restarted
see "answers then" answers /health 443
inside rm -r /etc/systemd/system/shardcast.service.d
inside systemctl daemon-reload

inside sh -c 'echo "pubic = 1" >>/etc/shardcast/shardcast.toml'
inside systemctl restart shardcast 2>"$work/refused" && fail "a wrong setting is taken"
stays_down() { [[ $(property ActiveState) == failed && $(property NRestarts) == 0 ]]; }
see "a wrong setting is refused for good" stays_down
journal() { inside journalctl --no-pager -o cat -u shardcast _COMM=shardcast "$@"; }
is_told() { journal -p err | grep -q '^shardcast: .*pubic'; }
see "the journal knows that for an error" until_true 10 is_told
see "and what is none for less" [ -z "$(journal -p warning | grep listening || true)" ]
inside sed -i '$d' /etc/shardcast/shardcast.toml
inside sed -i 's/^#linger = .*/linger = "7s"/' /etc/shardcast/shardcast.toml
see "starts with another setting" inside systemctl start shardcast
before=$(property MainPID)

see "upgraded" inside dpkg -i --force-confold /root/2.deb >"$work/dpkg"
see "is the second revision" grep -q -- '-2$' <<<"$(inside dpkg-query -W -f '${Version}' shardcast)"
see "runs anew" [ "$(property MainPID)" != "$before" ]
see "is active" is_active
see "answers" answers /health
see "keeps its settings" inside grep -q '^linger = "7s"' /etc/shardcast/shardcast.toml

see "removed" inside dpkg -r shardcast >"$work/dpkg"
see "does not run" [ -z "$(inside pgrep -x shardcast || true)" ]
see "leaves its settings" inside test -e /etc/shardcast/shardcast.toml
see "leaves no binary" inside test ! -e /usr/bin/shardcast
see "purged" inside dpkg -P shardcast >"$work/dpkg"
see "leaves nothing" inside sh -c '! ls -d /etc/shardcast /var/lib/shardcast /var/lib/private/shardcast 2>/dev/null'
echo "PASS: the package was installed, used, upgraded and removed"
