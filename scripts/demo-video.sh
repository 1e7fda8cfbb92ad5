#!/usr/bin/env bash
# A real video through the relay: ffmpeg's test source is published and watched by the released
# Python client, and both sides are counted and compared picture by picture.
set -euo pipefail

usage() {
    cat <<'USAGE'
Usage: scripts/demo-video.sh [options]

Publishes a generated H.264 video through the relay with the released Python client (moq-rs),
watches it with a second one, and compares what was sent with what arrived.

  --seconds N   length of the video                      (default 10)
  --shards N    shards of the relay                      (default 2)
  --url URL     use a running relay, e.g. moqt://127.0.0.1:4443, instead of starting one
  --keep        keep the files and logs, and say where they are
  --help        this text

Example: scripts/demo-video.sh --seconds 30 --keep

Missing tools are installed: by scripts/setup.sh, and the client into target/demo-venv.
Exit status: 0 when every frame arrived unchanged, 1 otherwise.
USAGE
}

readonly CLIENT='moq-rs==0.5.1'
readonly FPS=30 WIDTH=640 HEIGHT=360
# What everything but the video itself may take: start-up, announcement, the last groups.
readonly PATIENCE_SECONDS=20

seconds=10 shards=2 url='' keep=''
while (($#)); do
    case "$1" in
        --seconds) seconds=${2:?--seconds needs a number} && shift 2 ;;
        --shards) shards=${2:?--shards needs a number} && shift 2 ;;
        --url) url=${2:?--url needs a URL} && shift 2 ;;
        --keep) keep=yes && shift ;;
        --help | -h) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
done
[[ $seconds =~ ^[1-9][0-9]*$ && $shards =~ ^[1-9][0-9]*$ ]] || { usage >&2 && exit 2; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root venv="$root/target/demo-venv"
work=$(mktemp -d)
relay='' publisher=''

say() { printf '%s\n' "$*" >&2; }

leave() {
    local status=$?
    [[ -z $publisher ]] || kill "$publisher" 2>/dev/null || true
    [[ -z $relay ]] || kill "$relay" 2>/dev/null || true
    if [[ $status != 0 ]]; then
        for log in "$work"/*.log; do
            [[ -s $log ]] || continue
            say "--- $(basename "$log")"
            tail -n 20 "$log" >&2
        done
    fi
    if [[ -n $keep ]]; then say "kept in $work"; else rm -rf "$work"; fi
}
trap leave EXIT

install_client() {
    "$venv/bin/python" -c 'import moq' 2>/dev/null && return
    say "installing $CLIENT"
    mkdir -p "$root/target"
    python3 -m venv "$venv"
    timeout 300 "$venv/bin/pip" install -q "$CLIENT" >"$work/pip.log" 2>&1
}

encode() {
    # Access unit delimiters let the publisher cut the stream into pictures.
    ffmpeg -hide_banner -loglevel error -y \
        -f lavfi -i "testsrc2=size=${WIDTH}x${HEIGHT}:rate=$FPS:duration=$seconds" \
        -c:v libx264 -preset veryfast -g "$FPS" -bf 0 -pix_fmt yuv420p \
        -bsf:v h264_metadata=aud=insert "$1"
}

start_relay() {
    local binary="$root/target/release/shardcast" deadline
    say 'building the relay (minutes the first time)'
    cargo build --release --workspace --bins --manifest-path "$root/Cargo.toml" >&2
    deadline=$((SECONDS + PATIENCE_SECONDS))
    "$binary" --listen 127.0.0.1:0 --shards "$shards" --listen-tls-generate localhost \
        --auth-public '**' --drain-timeout 0s --log-level info >"$work/relay.log" 2>&1 &
    relay=$!
    local address=''
    until [[ -n $address ]]; do
        kill -0 "$relay" 2>/dev/null || { say 'the relay did not start' && exit 1; }
        ((SECONDS < deadline)) || { say 'the relay does not listen' && exit 1; }
        sleep 0.1
        address=$(grep -m1 'listening.*kind=quic' "$work/relay.log" \
            | grep -oE 'addr=[^ ]+' | cut -d= -f2 || true)
    done
    url="moqt://$address"
}

# Frames, packets and a digest of every decoded picture.
measure() {
    local counts digest
    counts=$(ffprobe -v error -count_frames -count_packets -select_streams v:0 \
        -show_entries stream=nb_read_frames,nb_read_packets -of csv=p=0 "$1" | tr ',' ' ')
    digest=$(ffmpeg -v error -i "$1" -map v:0 -f hash -hash md5 - | cut -d= -f2)
    echo "$counts $digest"
}

"$root/scripts/setup.sh" --minimal >&2
# A fresh shell may not have been told where rustup puts things.
[[ -d $HOME/.cargo/bin ]] && PATH=$HOME/.cargo/bin:$PATH
install_client
say "encoding $seconds s of ${WIDTH}x${HEIGHT} at $FPS frames per second"
encode "$work/sent.h264"
[[ -n $url ]] || start_relay
say "publishing and watching through $url"

limit=$((seconds + 2 * PATIENCE_SECONDS))
client=("$venv/bin/python" "$root/scripts/demo_video.py")
common=(--url "$url" --fps "$FPS" --width "$WIDTH" --height "$HEIGHT"
    --duration "$seconds" --patience "$PATIENCE_SECONDS")
# The publisher waits for the viewer before its first frame, so nothing is missed at the start.
# `exec` in the background job makes $! the client itself and not a shell around it.
(exec timeout "$limit" "${client[@]}" publish --file "$work/sent.h264" "${common[@]}") \
    >"$work/publisher.log" 2>&1 &
publisher=$!
timeout "$limit" "${client[@]}" watch --file "$work/received.h264" "${common[@]}" \
    >"$work/viewer.log" 2>&1 || { say 'the viewer failed' && exit 1; }
kill "$publisher" 2>/dev/null || true
wait "$publisher" || true
publisher=''

read -r sent_frames sent_packets sent_digest <<<"$(measure "$work/sent.h264")"
read -r got_frames got_packets got_digest <<<"$(measure "$work/received.h264")"
printf '\n%-10s %8s %8s  %s\n' '' frames packets 'pictures (md5)'
printf '%-10s %8s %8s  %s\n' sent "$sent_frames" "$sent_packets" "$sent_digest"
printf '%-10s %8s %8s  %s\n\n' received "$got_frames" "$got_packets" "$got_digest"

if [[ $sent_frames == $((seconds * FPS)) && "$sent_frames $sent_packets $sent_digest" \
    == "$got_frames $got_packets $got_digest" ]]; then
    echo "PASS: $got_frames frames arrived unchanged"
else
    echo "FAIL: $got_frames of $sent_frames frames, or other pictures"
    exit 1
fi
