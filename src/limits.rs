//! Every bound of the relay by name, with its unit and its reason.
//!
//! A bound that only one wire message has stands beside that message in `wire`.

use std::time::Duration;

/// Payload bytes of one frame. The reference aborts a group above this (spec §2.3).
pub const FRAME_BYTES_MAX: u64 = 32 << 20;

/// Payload bytes of one group (spec §2.3).
pub const GROUP_BYTES_MAX: u64 = 32 << 20;

/// Frames of one group (spec §2.3).
pub const GROUP_FRAMES_MAX: u32 = 8192;

/// Age at which a group that was never finished is given up, in milliseconds of presentation time,
/// unless the track keeps groups for longer.
pub const UNFINISHED_MAX_AGE_MS: u64 = 10_000;

/// Retention of a track whose publisher cannot state one (lite-01 to 04), in milliseconds.
pub const TRACK_MAX_AGE_MS_DEFAULT: u64 = 5000;

/// Ticks per second given to frames of a publisher whose wire has no timestamps.
pub const TIMESCALE_DEFAULT: u64 = 1000;

/// Publisher priority of a track whose publisher cannot state one.
pub const PRIORITY_DEFAULT: u8 = 127;

/// From the end of the QUIC handshake to the peer's SETUP. One message that the client sends
/// with its first flight: a peer that needs longer holds memory for nothing.
pub const SETUP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a finished upstream subscription waits for groups that were promised but have not
/// arrived; longer where the track's own max age is longer (spec §4.8).
pub const TAIL_WAIT_MIN: Duration = Duration::from_secs(1);

/// The longest a publisher's stated max age may make us wait for a promised group.
pub const TAIL_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long an upstream subscription that nobody needs is kept, unless the operator says otherwise
/// (spec §5.1): a viewer that comes back within it finds everything in place.
pub const LINGER_DEFAULT: Duration = Duration::from_secs(5);

/// How long the cache keeps a group that nobody asks for, unless the operator says otherwise
/// (spec §5.6).
pub const CACHE_DURATION_DEFAULT: Duration = Duration::from_secs(30);

/// How much of the memory that the process may use is for cached groups, unless the operator says
/// otherwise. Connections and the kernel's socket buffers need room too, and so do neighbours.
pub const CACHE_MEMORY_PERCENT_DEFAULT: f64 = 25.0;

/// The smallest cache of one shard: two seconds of 4 Mb/s video, one group. In less nothing but
/// the newest group of each track would ever be found, which is kept without a cache too.
pub const CACHE_BYTES_PER_SHARD_MIN: u64 = 1 << 20;

/// The longest duration that a setting may have. The parser takes M for months, so whoever means
/// five minutes by 5M is told, and timers never leave the range of the clock.
pub const SETTING_DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long a session remembers a track that nobody uses and that was not subscribed to, so that
/// TRACK followed by SUBSCRIBE or FETCH asks the publisher once.
pub const TRACK_LINGER: Duration = Duration::from_secs(5);

/// How long a group may be missing when a later one has come, before a fetch that only the live feed
/// can answer, or another publisher's copy of the group, is given up: the track's max age within
/// these bounds (spec §5.4).
pub const MISSING_GRACE_MIN: Duration = Duration::from_secs(1);
pub const MISSING_GRACE_MAX: Duration = Duration::from_secs(10);

/// Groups that one subscription has on their way. A viewer that lags does so by at most these and
/// what expires or is evicted meanwhile; each costs a stream's state.
pub const OPEN_GROUPS_MAX: usize = 256;

/// The same for all subscriptions of one peer together; each may have one in any case.
pub const OPEN_GROUPS_PER_PEER_MAX: usize = 4096;

/// Streams of each kind that a new peer may have open. quinn-proto allocates a slot for each.
pub const STREAMS_BIDI_START: u64 = 16;
pub const STREAMS_UNI_START: u64 = 8;

/// Group streams a peer may have open once it publishes.
pub const STREAMS_UNI_PUBLISHER: u64 = 64;

/// The credit doubles whenever half of it is in use, up to this.
pub const STREAMS_MAX: u64 = 4096;

/// Bytes that one connection may have written and not yet acknowledged: what a viewer that
/// stops reading can hold of our memory. 1 MiB carries 80 Mb/s at 100 ms.
pub const SEND_WINDOW_BYTES: u64 = 1 << 20;

/// Bytes in flight towards us, per stream and per connection. Streams are drained every turn, so
/// this bounds reordering, not content: 16 MiB carries 1.3 Gb/s at 100 ms.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
pub const RECEIVE_WINDOW_BYTES: u32 = 16 << 20;

/// Control bytes that wait for one peer's flow control. A peer that asks and never reads loses
/// its session.
pub const CONTROL_BACKLOG_BYTES_MAX: usize = 1 << 20;

/// Announcement bytes encoded ahead of one peer's flow control; beyond it changes are kept as a
/// set of paths, which the live broadcasts bound.
pub const ANNOUNCE_BACKLOG_BYTES: usize = 16 << 10;

/// Announcements that one peer may have live, and the bytes of their paths.
pub const ANNOUNCEMENTS_PER_PEER_MAX: usize = 10_000;
pub const ANNOUNCED_BYTES_PER_PEER_MAX: usize = 4 << 20;

/// Announce streams that one peer may have open, and changes that may wait for it to read.
pub const ANNOUNCE_STREAMS_PER_PEER_MAX: usize = 64;
pub const ANNOUNCE_CHANGES_MAX: usize = 1 << 16;

/// Probe streams that one peer may have open: one is of use, and the next may be there before the
/// end of the last was noticed.
pub const PROBE_STREAMS_PER_PEER_MAX: usize = 4;

/// Bytes of incomplete control messages of one peer, over all its streams.
pub const CONTROL_INPUT_BYTES_MAX: usize = 1 << 20;

/// Bytes of the broadcast path and the track name of one request: every pending one holds them.
pub const REQUEST_NAME_BYTES_MAX: usize = 4096;

/// How long a publisher may take to say what a track is like, or to accept a subscription where
/// its wire has it accept. Viewers give up after ten seconds (spec §4.6).
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// Idle connections end after this (spec §1.9).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// We ping a peer that has been silent for this long. Released clients ping every three seconds,
/// which spares us the pings to them: at equal intervals both sides would send their own.
pub const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// Handshakes in progress on one shard before new clients must prove their address (Retry), and
/// before they are refused.
pub const HANDSHAKES_BEFORE_RETRY: usize = 256;
pub const HANDSHAKES_MAX: usize = 4096;

/// Pause between two stateless resets of one shard. quinn's 20 ms would need 20 s to tell 1,000
/// viewers of a restarted relay.
pub const STATELESS_RESET_INTERVAL: Duration = Duration::from_micros(200);

/// Messages that fit a lane between two shards, and mail taken in one turn.
pub const LANE_MESSAGES: usize = 1024;
pub const MAIL_PER_TURN: usize = 512;

/// Messages that wait behind a full lane before live content is dropped, whole groups at a time.
pub const OUTBOX_LIVE_MAX: usize = 1024;

/// The same before fetched content is: live content goes first.
pub const OUTBOX_FETCH_MAX: usize = OUTBOX_LIVE_MAX / 2;

/// Bytes read from one stream in one turn, so that a fast publisher cannot hold up its shard.
pub const READ_BYTES_PER_TURN: usize = 256 << 10;

/// UDP segments in one train: what fits 64 KiB at an Ethernet's size, and what kernels take.
pub const TRAIN_SEGMENTS_MAX: usize = 44;

/// Trains one connection may send in one turn before the next one has its chance.
pub const TRAINS_PER_TURN: usize = 8;

const _: () = assert!(FRAME_BYTES_MAX <= GROUP_BYTES_MAX);
const _: () = assert!(0.0 < CACHE_MEMORY_PERCENT_DEFAULT && CACHE_MEMORY_PERCENT_DEFAULT <= 100.0);
const _: () = assert!(STREAMS_BIDI_START <= STREAMS_MAX && STREAMS_UNI_PUBLISHER <= STREAMS_MAX);
// One ping may be lost.
const _: () = assert!(KEEP_ALIVE.as_millis() * 2 < IDLE_TIMEOUT.as_millis());
const _: () = assert!(STREAM_WINDOW_BYTES <= RECEIVE_WINDOW_BYTES);
