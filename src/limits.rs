//! Every bound of the relay by name, with its unit and its reason.
//!
//! A bound that only one wire message has stands beside that message in `wire`. What only says how one module does
//! its work (sizes of a buffer, a pause before it tries again) stands in that module.

use std::time::Duration;

/// One byte of the ID names the shard.
pub const SHARDS_MAX: usize = 256;

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

/// The longest retention that a publisher may state as far as we act on it, in milliseconds: a day. No
/// cache holds more of a live track, and a group that is never finished is not kept for ever.
pub const TRACK_MAX_AGE_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Groups of one track on one shard, beside those that were fetched one by one; past them the oldest
/// leave the cache. Ten minutes of audio with a group for each frame of 20 ms.
pub const GROUPS_PER_TRACK_MAX: usize = 32_768;

/// Groups that are looked at for one viewer in one go, to find one for it. Who finds none among so
/// many goes on in the next turn: nobody holds up a shard by what is not for him.
pub const GROUPS_LOOKED_AT_MAX: usize = 64;

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

/// The same where the publisher cannot say how much it owes (lite-04 and older), once no group is under way.
pub const TAIL_GRACE: Duration = Duration::from_millis(500);

/// A track that its publisher has ended is asked for anew when somebody subscribes. How long the publisher may take to
/// say what the track is like, and then to bring some of it, before what the relay holds of the old one is served as
/// all there is. A camera that is switched on again takes up to three and a half seconds.
pub const REVIVAL_ANSWER_GRACE: Duration = Duration::from_secs(2);
pub const REVIVAL_GRACE: Duration = Duration::from_secs(5);

/// How long an upstream subscription that nobody needs is kept, unless the operator says otherwise
/// (spec §5.1): a viewer that comes back within it finds everything in place.
pub const LINGER_DEFAULT: Duration = Duration::from_secs(5);

/// How long the cache keeps a group that nobody asks for, unless the operator says otherwise (spec §5.6).
pub const CACHE_DURATION_DEFAULT: Duration = Duration::from_secs(30);

/// How much of the memory that the process may use is for cached groups, unless the operator says
/// otherwise. The rest is for peers, routes, HTTP and what is always there.
pub const CACHE_MEMORY_PERCENT_DEFAULT: f64 = 25.0;

/// The smallest cache of one shard: two seconds of 4 Mb/s video, one group. In less nothing but
/// the newest group of each track would ever be found, which is kept without a cache too.
pub const CACHE_BYTES_PER_SHARD_MIN: u64 = 1 << 20;

/// The longest duration that a setting may have. The parser takes M for months, so whoever means
/// five minutes by 5M is told, and timers never leave the range of the clock.
pub const SETTING_DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Certificates that clients are shown, and bytes of them: TLS libraries take no more, and a bundle of all
/// authorities that is named by mistake is more.
pub const CHAIN_CERTIFICATES_MAX: usize = 16;
pub const CHAIN_BYTES_MAX: usize = 60 << 10;

/// Bytes of a configuration file. One with every setting has four thousand; whoever names a disk or a
/// log by mistake is told so at once.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;

/// How long a start waits for more of it where it is a pipe: whoever writes decrypts it, or asks for it.
pub const CONFIG_FILE_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long a session remembers a track that nobody uses and that was not subscribed to, so that
/// TRACK followed by SUBSCRIBE or FETCH asks the publisher once.
pub const TRACK_LINGER: Duration = Duration::from_secs(5);

/// How long a group may be missing when a later one has come, before a fetch that only the live feed can answer, or
/// another publisher's copy of the group, is given up: the track's max age within these bounds (spec §5.4).
pub const MISSING_GRACE_MIN: Duration = Duration::from_secs(1);
pub const MISSING_GRACE_MAX: Duration = Duration::from_secs(10);

/// How long a publisher that takes over may bring nothing of what it is asked for before it is asked where it is
/// instead: a process that has begun anew counts from below, and viewers see nothing meanwhile. Longer than a round
/// trip and what is lost in it. As long may a relay go on with a group below the START that it has said first.
pub const RESUME_GRACE: Duration = Duration::from_secs(1);

/// How old its groups may be when it is asked where it is. Shorter, and one that was only late would drop what it is
/// just about to send; longer, and it sends again what viewers have had.
pub const LIFTED_MAX_AGE: Duration = Duration::from_secs(3);

/// How long what such a publisher brings is kept back where no group of it is held: a relay whose own copy has just
/// begun shows first what readers have had, and has caught up by then. And bytes of it for one track.
pub const UNTOLD_GRACE: Duration = Duration::from_millis(300);
pub const UNTOLD_BYTES_MAX: usize = 4 << 20;

/// Groups that one subscription has on their way. A viewer that lags does so by at most these and
/// what expires or is evicted meanwhile; each costs a stream's state.
pub const OPEN_GROUPS_MAX: usize = 256;

/// Of those that the peer takes no more of, so many are looked at whether they are too old by now, each time
/// that something of their track is served: who does not read has [`OPEN_GROUPS_MAX`] of them.
pub const STUCK_GROUPS_PER_GO: usize = 16;

/// The same for all subscriptions of one peer together; each may have one in any case.
pub const OPEN_GROUPS_PER_PEER_MAX: usize = 4096;

/// How much the groups before it may delay the newest one of a subscription where all leave in sequence
/// order, and not newest first: two frames of a video.
pub const IN_SEQUENCE_DELAY: Duration = Duration::from_millis(50);

/// Single groups that a publisher is asked for at once, and how much they may come to beside a live
/// feed, or be one: released publishers send what is fetched first. After what they have brought the
/// live feed has the uplink to itself for so many times as long, within this.
pub const FETCHES_AT_ONCE: usize = 16;
pub const FETCH_BYTES_BESIDE_LIVE: u64 = 512 << 10;
pub const FETCH_REST_TIMES: u32 = 3;
pub const FETCH_REST_MAX: Duration = Duration::from_secs(5);

/// One of which nothing has come for so long counts no more: it may be a group that grows by a line of
/// chat an hour.
pub const FETCH_QUIET: Duration = Duration::from_secs(1);

/// What a group of a track is taken to come to of which none has been seen.
pub const GROUP_BYTES_GUESS: u64 = FETCH_BYTES_BESIDE_LIVE / FETCHES_AT_ONCE as u64;

/// Fetches of one viewer that are under way: who does not read what has come is given no more. The
/// rest waits in the order of asking.
pub const FETCHES_PER_VIEWER: usize = 16;

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

/// The same while memory is short: what a session is counted with. 64 KiB carry 5 Mb/s at 100 ms.
pub const SEND_WINDOW_SHORT_BYTES: u64 = RECEIVE_WINDOW_START as u64;

/// What a link to another relay may have so, which is sent many tracks at once: as much as it takes of us below.
pub const LINK_SEND_WINDOW_BYTES: u64 = RECEIVE_WINDOW_BYTES as u64;

/// From the first datagram to another relay to the end of the handshake. One that is there answers within
/// three round trips, and a few that are lost; its next address is tried then.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Relays that one relay is told to dial, by whatever lists and names. A mesh of more costs more in
/// announcements than it saves in hops; the next step is a tree.
pub const PEERS_MAX: usize = 256;

/// The pause before another relay is dialled again is any time up to this, twice as long with every failure, and
/// with every redirect from a link that has not lived, up to ten times as long: two relays that have lost each other are together again within seconds, and a
/// hundred that have lost one do not come at once.
pub const REDIAL_AFTER: Duration = Duration::from_secs(1);
pub const REDIAL_AFTER_MAX: Duration = Duration::from_secs(10);

/// So often in a row a relay could not be reached that a name does not show while a part of it is unknown: some ten
/// minutes.
pub const LOST_AFTER_FAILURES: u32 = 60;

/// A link that has lived so long works: the next failure is the first one.
pub const LINK_PROVEN_AFTER: Duration = Duration::from_secs(10);

/// How long a link lives on that its peer leaves for another place: what it carries moves over meanwhile.
pub const LINK_HANDOVER_MAX: Duration = Duration::from_secs(10);

/// How long it lives on once there is another one in its place: announcements come there, and tracks go over.
pub const LINK_MOVES_WITHIN: Duration = Duration::from_secs(3);

/// A place that was this relay itself is dialled again after this: a name may lead elsewhere by then.
pub const SELF_LOOKED_AT_AFTER: Duration = Duration::from_secs(300);

/// How long what DNS says of a name counts, whatever it says: a relay that is new is found within a minute,
/// and a server of names is asked twelve times a minute at most.
pub const NAME_TTL_MIN: Duration = Duration::from_secs(5);
pub const NAME_TTL_MAX: Duration = Duration::from_secs(60);

/// How often a file with a list of relays is looked at, and a server asked for one where it does not want to be
/// asked later; how long that may take to answer, and bytes of a list: four kilobytes of URL and token for each
/// relay.
pub const LIST_FILE_LOOK: Duration = Duration::from_secs(2);
pub const LIST_ASKED_AFTER: Duration = Duration::from_secs(30);
pub const LIST_ASKED_AFTER_MAX: Duration = Duration::from_secs(3600);
pub const LIST_ANSWER_MAX: Duration = Duration::from_secs(10);
pub const LIST_BYTES_MAX: usize = PEERS_MAX * (4 << 10);

/// Bytes of a token: one with the longest RSA signature and a page of patterns.
pub const TOKEN_BYTES_MAX: usize = 8192;

/// Bytes of one file of keys for tokens: a set of a thousand RSA keys.
pub const KEY_FILE_BYTES_MAX: u64 = 1 << 20;

/// Keys for tokens in all: a directory with one for each of many customers.
pub const KEYS_MAX: usize = 65_536;

/// Bytes of all such files together: a set is in memory twice while it is read.
pub const KEYS_BYTES_MAX: u64 = 64 << 20;

/// Keys that are tried with a token which does not name one: a stranger's token costs so many verifications.
pub const KEYS_TRIED_MAX: usize = 8;

/// Patterns of one direction in one token. Each is compared with the path of each broadcast.
pub const PATTERNS_MAX: usize = 128;

/// Bytes of a file with a token, and how long what relays are dialled with is good before files are read again.
pub const TOKEN_FILE_BYTES_MAX: u64 = TOKEN_BYTES_MAX as u64 + 2;
pub const DIAL_TLS_LOOK: Duration = Duration::from_secs(10);

/// How long a name is looked for.
pub const FIND_MAX: Duration = Duration::from_secs(10);

/// Bytes in flight towards us, per stream and per connection. Streams are drained every turn, so
/// this bounds reordering, not content: 16 MiB carries 1.3 Gb/s at 100 ms.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
pub const RECEIVE_WINDOW_BYTES: u32 = 16 << 20;

/// The same for a connection that begins, which may leave as much behind a hole that it never fills: one
/// control message of the largest size. For one that is asked for groups: what fetches may bring beside a
/// live feed, twice, so that the feed does not wait for them. It doubles ahead of senders, which begin with
/// some 14 to 46 kB in a round trip and double that in the next.
pub const RECEIVE_WINDOW_START: u32 = 64 << 10;
pub const RECEIVE_WINDOW_PUBLISHER: u32 = 2 * FETCH_BYTES_BESIDE_LIVE as u32;

/// A group of a live track that stopped in the middle of a frame this long ago, and as long as anybody wants
/// it, is no more waited for where so many are open that began after it: its publisher's link does not
/// carry the track. So many of them are looked at when another begins.
pub const LEFT_BEHIND_AFTER: Duration = Duration::from_secs(1);
pub const GROUPS_BEHIND: usize = 3;
pub const LEFT_BEHIND_LOOKS: usize = 4;

/// What counts as a round trip where that is to be seen in what a publisher brings: a busy shard is away
/// for as long, and a longer one may be of the publisher's making.
pub const WINDOW_SPAN_MIN: Duration = Duration::from_millis(10);
pub const WINDOW_SPAN_MAX: Duration = Duration::from_secs(1);

/// What a session is counted with from its first packet on: its state of some 26 KiB, the window that it
/// begins with, and as much for what it is sent: slices of groups, which others are sent too and the cache
/// counts, and of which few have much under way.
pub const SESSION_BYTES: u64 = (32 << 10) + 2 * RECEIVE_WINDOW_START as u64;

/// The same for each stream that a peer may open beyond the first ones: 2 KiB are measured of one with
/// half a request, and quinn-proto may keep a datagram beside.
pub const STREAM_BYTES: u64 = 4 << 10;

/// What a session may be granted beyond that in the way that sessions are, and not in that of windows: some eight
/// hundred paths that it is told of, or three hundred that it announces. Who is let in behind one address with
/// somebody who holds much does not wait for what few need more of.
pub const SESSION_FIRST_BYTES: u64 = 128 << 10;

/// How much of what it is counted with a session may hold of what its peer has said and of what it was told, before
/// more is granted: some fifty announcements, a hundred paths that it was told of, half a message. And from one
/// time that it asks for more to the next.
pub const SESSION_HOLDS_BYTES: u64 = 16 << 10;
pub const SESSION_HOLDS_RETRY: Duration = Duration::from_millis(20);

/// What an announcement takes there beside its path, which is held twice, and a path that the peer was told of.
pub const ANNOUNCED_BYTES: u64 = 300;
pub const TOLD_BYTES: u64 = 120;

/// How much of the memory that the cache leaves peers may make us hold, by what they are granted; few use
/// all of theirs. The rest is for routes, HTTP, what is always there and the allocator.
pub const PEERS_MEMORY_SHARE: f64 = 2.0 / 3.0;

/// The least for one shard, however little the cache leaves: a hundred sessions.
pub const PEERS_BYTES_PER_SHARD_MIN: u64 = 16 << 20;

/// The least that --memory-max may give a shard: those sessions, and as much for all else.
pub const MEMORY_BYTES_PER_SHARD_MIN: u64 = 2 * PEERS_BYTES_PER_SHARD_MIN;

/// Parts of it. Windows grow for all until the first part is granted, until the second one for sources that hold less
/// than others; of links until the second and the third. Sessions begin for all until the third, and until nothing is
/// left for sources that hold less than others: one address does not lock the others out.
pub const WINDOWS_SHARE_OPEN: f64 = 0.5;
pub const WINDOWS_SHARE_MAX: f64 = 0.75;
pub const SESSIONS_SHARE_OPEN: f64 = 0.875;

/// Sessions from one address (of IPv6 the /64), and sessions that show one token, unless the operator says
/// otherwise; both on the whole relay. An office or a carrier's NAT is one address, and what sessions hold is
/// bounded by the budget above; a token may be in a page that a whole audience opens.
pub const SESSIONS_PER_SOURCE_DEFAULT: u32 = 4096;
pub const SESSIONS_PER_TOKEN_DEFAULT: u32 = 65_536;

/// Control bytes that wait for one peer's flow control. A peer that asks and never reads loses
/// its session.
pub const CONTROL_BACKLOG_BYTES_MAX: usize = 1 << 20;

/// Announcement bytes encoded ahead of one peer's flow control; beyond it the peer is told later how
/// things are then.
pub const ANNOUNCE_BACKLOG_BYTES: usize = 16 << 10;

/// Announcement bytes that a peer who also watches is sent in a second: a part of what its link carries,
/// for groups come first, but something, for who is told nothing sees nothing new. Saved up at most so
/// much, 13 ms of 10 Mb/s.
pub const ANNOUNCE_LINK_SHARE: f64 = 0.125;
pub const ANNOUNCE_BYTES_PER_S_MIN: f64 = 8192.0;
pub const ANNOUNCE_BURST_BYTES: usize = ANNOUNCE_BACKLOG_BYTES;

/// Bytes of an announced path, the session's own path included. What is longer leads nowhere: every
/// listener would be sent it, over and over, for a few bytes of its announcer.
pub const ANNOUNCED_PATH_BYTES_MAX: usize = 1024;

/// Announcements that one peer may have live, and the bytes of their whole paths.
pub const ANNOUNCEMENTS_PER_PEER_MAX: usize = 10_000;
pub const ANNOUNCED_BYTES_PER_PEER_MAX: usize = 4 << 20;

/// The same of a relay of the cluster, which passes on what all others publish.
pub const ANNOUNCEMENTS_PER_RELAY_MAX: usize = ROUTES_MAX / 4;
pub const ANNOUNCED_BYTES_PER_RELAY_MAX: usize = 128 * ANNOUNCEMENTS_PER_RELAY_MAX;

/// Routes that there are of all peers, on every shard, which take some 400 bytes each there; and of all peers
/// that are at one address and are not relays of the cluster. What is announced beyond that leads nowhere.
pub const ROUTES_MAX: usize = 1 << 19;
pub const ROUTES_ADDRESS_PART: u64 = 8;
pub const ROUTES_PER_ADDRESS_MAX: usize = ROUTES_MAX / ROUTES_ADDRESS_PART as usize;

/// Routes at one path of peers at one address that are not relays of the cluster: a publisher has some sessions at once,
/// dead ones among them. A change looks at all routes of its path, and for each so many it counts once more.
pub const ROUTES_PER_PATH_MAX: usize = 256;
pub const ROUTES_PER_CHANGE: usize = 16;

/// How much of the memory that the process may use routes may take, on all shards together, and what one takes
/// on each of them beside its path. Of that, too, one address has an eighth; and what relays of the cluster
/// pass on leaves as much for who publishes here.
pub const ROUTES_MEMORY_SHARE: f64 = 1.0 / 16.0;
pub const ROUTE_BYTES: usize = 400;

/// From when an announcement has found no room until it is looked whether there is some, and its peer is asked for all
/// that it announces anew; at most, where that is so again and again. Sessions that are looked at in one turn.
pub const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(5);
pub const ASKED_AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);
pub const ASKED_AGAIN_PER_TURN: usize = 16;

/// Changes of routes that are taken from one peer: what it may have live, twice, at any time, and so
/// many in a second. Beyond that its announcements are not read. A long path counts as one more change
/// for each so many bytes. A relay whose link fails has as many at once, a publisher of 2,000 broadcasts
/// that replaces a hundred in a second a fifth of the rate. A relay of the cluster may bring ten times as many.
pub const ROUTE_CHANGES_BURST: usize = 2 * ANNOUNCEMENTS_PER_PEER_MAX;
pub const ROUTE_CHANGES_PER_S: f64 = 1000.0;
pub const ROUTE_CHANGES_PER_S_OF_RELAY: f64 = 10_000.0;
pub const ROUTE_CHANGE_PATH_BYTES: usize = 64;

/// Bytes of announcements read at once: with what they bring the bound above may be passed.
pub const ANNOUNCE_READ_BYTES: usize = 4096;

/// Changes of routes that all peers together may bring in one turn, but for relays of the cluster, before what else a
/// shard does has its turn: a millisecond or two. What was read by then is taken in, so that it may be more by what is
/// read at once.
pub const ROUTE_CHANGES_PER_TURN: usize = 1024;

/// How long another way to what is announced already waits before listeners are told of it: what comes
/// meanwhile is told together (spec §4.5).
pub const ROUTE_CHANGE_HOLD: Duration = Duration::from_millis(300);

/// Changed paths that a shard remembers for listeners that lag. Who lags more looks through all that is
/// announced.
pub const ROUTE_CHANGES_KEPT: usize = 1 << 14;

/// Announce streams that one peer may have open.
pub const ANNOUNCE_STREAMS_PER_PEER_MAX: usize = 64;

/// Announced paths that the streams of one peer hold together, but for its first, which holds whatever
/// there is: some 2 MiB. What is beyond is told when others of them have ended.
pub const ANNOUNCED_TO_PEER_MAX: usize = 1 << 15;

/// From word of the end of a broadcast to word of the next one of its name, however soon that is there: a
/// released client that reads both at once may go on with the old one.
pub const ANNOUNCE_ENDED_GAP: Duration = Duration::from_millis(50);

/// From word of the end of a broadcast to word of a worse way to it: what a relay further away says meanwhile may
/// be from before it has heard of the end itself (spec §4.5).
pub const WORSE_WAY_HOLD: Duration = Duration::from_secs(2);

/// From one begin of telling all listeners what has changed to the next: what changes meanwhile is told
/// together, and does not cost each of them a packet of its own.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(10);

/// Sessions of which it is looked in one turn whether they may go on, when keys have changed. Those whose key
/// is gone end then, each for as much as a session that is lost.
pub const SESSIONS_CHECKED_PER_TURN: usize = 256;

/// Sessions that are listed for the operator in one turn: some 30 microseconds.
pub const SESSIONS_PER_PAGE: usize = 64;

/// Tracks that are listed in one turn: some 10 microseconds. And from the begin of one list of all tracks to
/// the next: whoever asks meanwhile is told the same.
pub const TRACKS_PER_PAGE: usize = 64;
pub const TRACKS_PAUSE: Duration = Duration::from_millis(500);

/// Broadcasts of which the page of a relay for development is told what is watched: ten times what it shows.
pub const LIVE_BROADCASTS_MAX: usize = 1000;

/// Tracks that an operator is told of at once, if he says no number, and at most.
pub const TRACKS_LISTED_DEFAULT: usize = 100;
pub const TRACKS_LISTED_MAX: usize = 1000;

/// Connections of which a report counts the round trip and the losses, the next ones each time: all of a
/// thousand within four minutes where somebody asks every fifteen seconds, for some 10 microseconds.
pub const PATHS_PER_REPORT: usize = 64;

/// Tracks of which there may be figures one by one: a row for each of them is kept wherever the figures are.
pub const TRACK_METRICS_MAX: usize = 1000;

/// From one stamped piece of mail to a neighbour to the next, so that it is known how long mail takes.
pub const MAIL_STAMP_INTERVAL: Duration = Duration::from_millis(10);

/// Paths that are looked at in one turn to tell listeners, of each of them so many at most: what else
/// there is to do waits for half a millisecond of that.
pub const ANNOUNCE_VISITS_PER_TURN: usize = 512;
pub const ANNOUNCE_VISITS_PER_LISTENER: usize = 128;

/// Tracks that are looked at in one turn to have them go over to another publisher, and changed paths without any.
pub const MOVE_VISITS_PER_TURN: usize = 512;
pub const MOVE_PATHS_PER_TURN: usize = 4 * ROUTE_CHANGES_PER_TURN;

/// Routes of peers that are lost, that leave or that end their announcements, of which others hear in one
/// turn: all that an ordinary publisher has. A request that takes one of the others meanwhile is refused,
/// and goes on to the next.
pub const FADING_ROUTES_PER_TURN: usize = 256;

/// Copies of one track on one shard for peers that the content may pass through, each of which is pulled and
/// cached once more: a relay with links to so many others that all lead to one publisher is at the heart of
/// a large mesh. More such peers are told that there is no way.
pub const COPIES_PER_TRACK_MAX: usize = 8;

/// How long a track may bring nothing after the relay that it comes through has ended its broadcast: as with
/// viewers of the publisher's own relay, what was under way comes to its end.
pub const STRAY_TRACK_GRACE: Duration = Duration::from_secs(2);

/// How long an address that has had a path keeps it before others while it does not announce it, and of how
/// many paths that is known: a publisher that is started again, on a machine that is.
pub const OWNER_REMEMBERED: Duration = Duration::from_secs(120);
pub const OWNERS_REMEMBERED_MAX: usize = 1 << 16;

/// How long a session may say nothing, once it has been asked for a sign of life because another one claims
/// its path that may be the same publisher: three round trips within these bounds. And from one look at
/// whether it has said something to the next.
pub const CLAIM_GRACE_MIN: Duration = Duration::from_millis(300);
pub const CLAIM_GRACE_MAX: Duration = Duration::from_secs(2);
pub const CLAIM_LOOK: Duration = Duration::from_millis(20);

/// How long two routes of one origin must have stood beside each other before the end of one of them
/// is nothing to tell listeners of: by then every shard knows both. Where one shard has heard of the
/// end before the other route, the tracks that are at home there have ended.
pub const ROUTES_BESIDE_MIN: Duration = Duration::from_millis(100);

/// Probe streams that one peer may have open: one is of use, and the next may be there before the
/// end of the last was noticed.
pub const PROBE_STREAMS_PER_PEER_MAX: usize = 4;

/// Bytes of incomplete control messages of one peer, over all its streams.
pub const CONTROL_INPUT_BYTES_MAX: usize = 1 << 20;

/// Bytes of the path at which a session is rooted: every path of the session holds them once more.
pub const ROOT_BYTES_MAX: usize = 1024;

/// The same with its query: an auth server is told all of it, and it is kept for as long as that is asked. A token that
/// is too long by less than another one is told so.
pub const TARGET_BYTES_MAX: usize = ROOT_BYTES_MAX + 2 * TOKEN_BYTES_MAX;

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

/// Bytes of the field section of one HTTP/3 request, which we advertise, and of any other frame that
/// is not content (spec §7.1).
pub const HTTP3_FIELD_SECTION_BYTES_MAX: usize = 16 << 10;
pub const HTTP3_FRAME_BYTES_MAX: usize = 64 << 10;

/// Bytes of a stream of HTTP/3 itself that are looked at in one go: a frame of the largest size and
/// its neighbours. Nobody has reason to send more at once where no media is.
pub const HTTP3_READ_BYTES_MAX: usize = HTTP3_FRAME_BYTES_MAX + (16 << 10);

/// Bytes of the reason for which a WebTransport session ends (spec §2.3).
pub const CLOSE_REASON_BYTES_MAX: usize = 1024;

/// How long a WebTransport session that we have ended may take to reach the client before the
/// connection goes too: three round trips within these bounds (spec §7.2).
pub const CLOSE_GRACE_MIN: Duration = Duration::from_millis(100);
pub const CLOSE_GRACE_MAX: Duration = Duration::from_secs(2);

/// Bytes of one message of qmux: what the drafts 01 and 02 have as the least that everybody takes, and we
/// state nothing else; and of a frame of draft 00, which is a message.
pub const MUX_RECORD_BYTES_MAX: usize = 16_382;
pub const MUX_FRAME_BYTES_MAX: usize = 16_384;

/// Bytes of a stream that one frame carries: released peers take no more. And so few that a message which has
/// no room for as many is left as it is: each frame costs its receiver more than a byte does.
pub const MUX_PAYLOAD_BYTES_MAX: usize = MUX_FRAME_BYTES_MAX - 32;
pub const MUX_PAYLOAD_BYTES_LEAST: usize = 512;

/// Bytes of one stream that wait to be sent, beside those of all, which have [`SEND_WINDOW_BYTES`]: enough
/// for what a turn writes, twice, so that who goes first always has something. However many others wait, it
/// may have this little: what is newest begins without them.
pub const MUX_STREAM_QUEUE_BYTES: usize = 64 << 10;
pub const MUX_STREAM_QUEUE_BYTES_MIN: usize = 16 << 10;

/// How long a peer on TCP may be silent, and what silence, in either direction, makes us say something: two
/// pings may be lost in a link that stands still. A page pings after a third of the first.
pub const MUX_IDLE_TIMEOUT: Duration = Duration::from_secs(15);
pub const MUX_KEEP_ALIVE: Duration = Duration::from_secs(6);

/// Bytes that the kernel may hold of a TCP connection beside what is on its way: a connection that it takes
/// no more of for now says so when it has half of that. What it has cannot be dropped: 80 ms of a link of
/// 1.6 Mb/s. And bytes that one connection gives it in one turn.
pub const TCP_UNSENT_BYTES: usize = 16 << 10;
pub const TCP_WRITE_BYTES_PER_TURN: usize = TCP_UNSENT_BYTES;

/// Bytes read from one TCP connection in one turn, and connections that are found to have become readable or
/// writable in one.
pub const TCP_READ_BYTES_PER_TURN: usize = 64 << 10;
pub const TCP_READY_PER_TURN: usize = 64;

/// From one look at what the kernel knows of a TCP connection's path to the next, while something happens.
pub const TCP_LINK_LOOK: Duration = Duration::from_millis(100);

/// How long a relay that ends tries to tell its clients while the kernel takes no datagrams, from the
/// last one that it took, for a full socket drains in less; and from the begin, for nobody waits longer
/// for a relay to go.
pub const LAST_WORDS_GRACE: Duration = Duration::from_millis(100);
pub const LAST_WORDS_MAX: Duration = Duration::from_secs(2);

/// Handshakes in progress on one shard before new clients must prove their address (Retry), and
/// before the source that has the most of them loses its oldest.
pub const HANDSHAKES_BEFORE_RETRY: usize = 256;
pub const HANDSHAKES_MAX: usize = 4096;

/// First packets of clients that a shard reads in a second, and at once after a pause; more are dropped as if
/// the network had lost them. Each takes some 20 microseconds, also where all that it gets is a Retry: a flood
/// has a quarter of a core, and a client that comes meanwhile sends again.
pub const INITIALS_PER_S: f64 = 10_000.0;
pub const INITIALS_BURST: f64 = 2.0 * HANDSHAKES_MAX as f64;

/// How long a QUIC handshake may take, whatever comes meanwhile: two flights may be lost, which are
/// sent again after one second and two more.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages that fit a lane between two shards.
pub const LANE_MESSAGES: usize = 1024;

/// The same where there are many lanes, whose room exists from the start on: all that lead to one shard hold so
/// many together, and each so many at least. With 64 shards 1,024 for each were 570 MB, and most of the time of a
/// start.
pub const LANES_MESSAGES_MAX: usize = 8 << 10;
pub const LANE_MESSAGES_MIN: usize = 64;

/// Mail that a shard takes in one turn.
pub const MAIL_PER_TURN: usize = 512;

/// News of routes that one neighbour is told in one turn, before all else: one in four pieces of mail that
/// it takes. The rest waits as a set of routes, each as it was last.
pub const ROUTE_NEWS_PER_TURN: usize = MAIL_PER_TURN / 4;

/// Changes of how many sessions clients have that one neighbour is told in one turn. The rest waits as a sum
/// per client.
pub const CLIENT_NEWS_PER_TURN: usize = MAIL_PER_TURN / 8;

/// Messages that wait behind full lanes before peers' requests are not read any more: what they cause are
/// messages that cannot be dropped. Above what can be.
pub const OUTBOX_REQUESTS_MAX: usize = 4 * OUTBOX_LIVE_MAX;

/// Messages that wait behind a full lane before live content is dropped, whole groups at a time.
pub const OUTBOX_LIVE_MAX: usize = 1024;

/// The same before live content of those is dropped who have sent that neighbour less than others: they are in
/// nobody's way.
pub const OUTBOX_LIVE_OF_FEW_MAX: usize = 2 * OUTBOX_LIVE_MAX;

/// The same before fetched content is: live content goes first.
pub const OUTBOX_FETCH_MAX: usize = OUTBOX_LIVE_MAX / 2;

/// The same before datagrams are: they are many, small and the first to be lost anyway.
pub const OUTBOX_DATAGRAM_MAX: usize = OUTBOX_LIVE_MAX / 4;

/// From the last turn to the next one that something new asks for. What comes meanwhile is taken
/// together: acknowledgements of many viewers, frames of many publishers.
pub const TURN_INTERVAL_MIN: Duration = Duration::from_micros(250);

/// The same for each connection, up to so much, while for [`QUIET_AFTER`] no session has heard
/// anything: what comes are pings and their acknowledgements, the more the more clients there are.
pub const TURN_INTERVAL_QUIET: Duration = Duration::from_micros(20);
pub const TURN_INTERVAL_QUIET_MAX: Duration = Duration::from_millis(20);
pub const QUIET_AFTER: Duration = Duration::from_secs(1);

/// Timers of connections are this coarse, and never early: QUIC's own granularity.
pub const TIMER_TICK: Duration = Duration::from_millis(1);

/// How much later than due a timer of a connection may fire, where nothing else wakes its shard: it
/// is then taken along with what comes meanwhile.
pub const TIMER_SLACK: Duration = Duration::from_millis(2);

/// How long an acknowledgement may wait for more to acknowledge: what RFC 9000 §18.2 has for those who
/// say nothing else, as quinn-proto does on our side.
pub const ACK_DELAY: Duration = Duration::from_millis(25);

/// Packets that a client may leave unacknowledged, for its acknowledgement delay at most. Its own
/// default is one, and an acknowledgement costs us as much as a packet. With more than three, what
/// is lost on a narrow link is missed too late (`docs/PERFORMANCE.md`).
pub const ACK_ELICITING_THRESHOLD: u64 = 3;

/// Bytes read from one stream in one turn, so that a fast publisher cannot hold up its shard.
pub const READ_BYTES_PER_TURN: usize = 256 << 10;

/// UDP segments in one train: what fits 64 KiB at an Ethernet's size, and what kernels take.
pub const TRAIN_SEGMENTS_MAX: usize = 44;

/// Connections that send in one turn: what comes meanwhile, from clients or from other shards, waits
/// for about half a millisecond and not for a whole audience.
pub const SENDERS_PER_TURN: usize = 32;

/// Subscriptions and fetches that are served in one turn what is new of their tracks: as many as then
/// send it, while what was touched is still in the processor's caches.
pub const READERS_PER_TURN: usize = SENDERS_PER_TURN;

/// Groups on their way to viewers that are looked at in one turn before the readers of a track, or those
/// whose transport takes more than before, go on in the next: a viewer has few of them, and who means harm
/// has [`OPEN_GROUPS_MAX`] in each of its subscriptions.
pub const SERVE_VISITS_PER_TURN: u32 = 1024;

/// Trains one connection may send in one turn before the next one has its chance.
pub const TRAINS_PER_TURN: usize = 8;

/// Bytes of datagrams that may wait in one connection, in and out. What comes in is taken every
/// turn; what goes out is worth less than what comes after it, and that soon.
pub const DATAGRAM_BUFFER_BYTES: usize = 64 << 10;

/// Bytes of datagrams that one viewer is sent at once beside groups that are under way; a video
/// frame's worth.
pub const DATAGRAM_BURST_BYTES: usize = 32 << 10;

/// Datagrams of one track that viewers are sent in one turn; of more the newest (spec §2.3).
pub const DATAGRAMS_PER_TURN_MAX: usize = 64;

/// Tries to get one port number for UDP and TCP where the kernel is to choose it. One is enough
/// unless many programs hold many ports.
pub const SAME_PORT_TRIES_MAX: usize = 16;

/// How long a start waits for its UDP port, and how often it looks: the kernel may let go of it a little later
/// than of the process that had it.
pub const PORT_WAIT_MAX: Duration = Duration::from_secs(1);
pub const PORT_WAIT: Duration = Duration::from_millis(10);

/// HTTP connections at once; more cut off those whose request has not come, of the address that has most of
/// them the oldest, and where there are none wait in the kernel's backlog, of this length. Each costs a file
/// descriptor and some 20 KiB, and serves one request.
pub const WEB_CONNECTIONS_MAX: usize = 256;

/// The same of one address (of IPv6 the /64), where that is counted: a browser opens six.
pub const WEB_CONNECTIONS_PER_SOURCE_MAX: usize = 32;

pub const WEB_BACKLOG: u32 = 1024;

/// From an HTTP connection's begin to the end of its request's head: a client on a bad line needs
/// one second.
pub const WEB_HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Protocols that are looked at of those a client offers for its WebSocket: released ones offer up to 36.
pub const WEB_PROTOCOLS_MAX: usize = 64;

/// How old what is known of the shards' connections may be when a WebSocket is given to the one with the
/// fewest: those given since are counted.
pub const LOADS_AGE_MAX: Duration = Duration::from_millis(100);

/// Bytes of a request's head. The longest path and name fit, every byte of them percent-encoded, and the
/// longest token.
pub const WEB_HEAD_BYTES_MAX: usize = 24 << 10;

/// Before the next connection is taken where the process has no descriptors left.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// From the begin of an HTTPS connection to the end of its TLS handshake: two lost flights are sent again.
pub const WEB_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one group may take to the HTTP client that asked for it, as at the existing relay.
pub const WEB_FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// From begin to end of an HTTP connection, whatever it does.
pub const WEB_CONNECTION_TIME_MAX: Duration = Duration::from_secs(45);

/// HTTP requests that wait for the auth server at once, and those of one address among them: it may take
/// [`AUTHORITY_ANSWER_MAX`] over each, and others ask what needs no answer of its. More are told to try again.
pub const WEB_QUESTIONS_MAX: usize = 64;
pub const WEB_QUESTIONS_PER_SOURCE_MAX: usize = 16;

/// Lists of what is announced that HTTP clients read at once. Each may be one of its own, with a
/// pointer per path.
pub const WEB_LISTINGS_MAX: usize = 16;

/// Groups that are fetched over HTTP at once. They share the publisher's links with viewers.
pub const WEB_FETCHES_MAX: usize = 64;

/// Bytes of groups that wait for HTTP clients to read them, all together. A client that reads has
/// less than a turn's worth. When it is full, of those who have more than an equal share the one that
/// has read nothing for the longest is cut off.
pub const WEB_UNREAD_BYTES_MAX: usize = 64 << 20;

/// The same where little memory may be used: no more than this part of it.
pub const WEB_UNREAD_MEMORY_SHARE: f64 = 1.0 / 16.0;

/// How long a subscription is given to bring the newest group before one that is held is taken for
/// it: a publisher does not send again what it has sent, and a round trip around the world is less.
pub const NEWEST_GRACE: Duration = Duration::from_millis(300);

/// How long a shard may take to answer what HTTP asks it: a turn takes milliseconds, and one that takes
/// longer than this hangs.
pub const SHARD_ANSWER_MAX: Duration = Duration::from_secs(2);

/// From one time that all shards are asked whether they turn to the next.
pub const HEALTH_PAUSE: Duration = Duration::from_millis(100);

/// Announced paths that a shard lists for HTTP in one piece of mail: some 20 microseconds.
pub const LISTING_PAGE_PATHS: usize = 1024;

/// From the begin of one listing of all announced paths to the next. Requests that come meanwhile
/// share the next one.
pub const LISTING_PAUSE: Duration = Duration::from_millis(200);

/// Announced paths that are made text for one HTTP client at once.
pub const LISTING_CHUNK_PATHS: usize = 1024;

/// Lines of the log that wait for whoever reads it, and their bytes: what 5,000 sessions say when they
/// begin, and a reader may be away for as long as that takes. Lines beyond are lost and counted.
pub const LOG_LINES_MAX: usize = 8192;
pub const LOG_BYTES_MAX: usize = 1 << 20;

/// From one line that says how many were lost to the next, while the log never catches up.
pub const LOG_LOSS_INTERVAL: Duration = Duration::from_secs(1);

/// Lines on sessions that come and go: so many at once on each shard, and so many a second after that.
/// Strangers cause them, and whoever keeps the log has a disk.
pub const PEER_LINES_BURST: u64 = 4096;
pub const PEER_LINES_PER_SECOND: u64 = 100;

/// The same that one source may cause, an address or a /64 of IPv6 that has no exemption from `--limit-remote`;
/// and how many sources are told apart.
pub const SOURCE_LINES_BURST: u64 = 256;
pub const SOURCE_LINES_PER_SECOND: u64 = 10;
pub const SOURCES_HEARD: usize = 256;

/// Bytes of one thing that a peer wrote, as a path or a reason, that a line shows: peers send what fits a packet.
pub const LOGGED_TEXT_BYTES_MAX: usize = 200;

/// How long a process that ends waits for its last lines to be read.
pub const LOG_FLUSH_MAX: Duration = Duration::from_secs(1);

/// How long a relay may take to end once it was asked to, whatever hangs: less than the ten seconds
/// after which a container's runtime kills it.
pub const END_MAX: Duration = Duration::from_secs(8);

/// Signals to end that come as close as this are one: what runs the relay may tell it and its group.
pub const SIGNAL_TWICE_WITHIN: Duration = Duration::from_millis(50);

/// Files of keys of which the log says at once that they are hardly what is meant. A directory may have one
/// for each of many customers, all made in the same way.
pub const KEY_REMARKS_MAX: usize = 16;

/// From one look at the files of certificates and keys to the next: sessions of a key that is removed end
/// within a second. And how many times as long as a look takes: whoever has very many files waits instead of
/// the core.
pub const FILES_LOOK_INTERVAL: Duration = Duration::from_millis(500);
pub const FILES_LOOK_REST: u32 = 20;

/// From one line that says why what is in them cannot be used to the next, while it stays so: a certificate
/// is renewed weeks before its end, and whoever looks after it may have missed the first.
pub const FILES_TOLD_AGAIN: Duration = Duration::from_secs(60 * 60);

/// How long a TLS session may be resumed, and how long one key is for tickets, which are taken until the next
/// one ends too: as long as the library's own.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(6 * 60 * 60);
pub const TICKET_KEY_LIFETIME: Duration = TICKET_LIFETIME;

/// How long sessions of a process have to move to the one that has taken over from it. Browsers do so only when
/// they are closed or the time is over, and until then they lose nothing.
pub const UPGRADE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10 * 60);

/// How long a process that is to take over may take to be ready, and then to serve. It is ready in less than
/// one second; what hangs is given up, and nothing has happened.
pub const UPGRADE_STEP_MAX: Duration = Duration::from_secs(10);

/// How long it may take from the word that it is to take over until it serves: one system call, and mail to every
/// shard. New clients may be lost to one that hangs there.
pub const UPGRADE_COMMIT_MAX: Duration = Duration::from_secs(3);

/// How long the process before stays in any case, sessions or not: what is wrong with a new one often shows with its
/// first clients, and then the older one goes on.
pub const UPGRADE_PROVEN_AFTER: Duration = Duration::from_secs(5);

/// From one time that the older process says what it still has to the next.
pub const UPGRADE_TOLD_INTERVAL: Duration = Duration::from_secs(1);

/// How long the link between two processes may take to be up, which is a handshake on one machine; from one look
/// meanwhile whether the other one is there to the next; and from its loss to the next try.
pub const UPGRADE_LINK_WAIT_MAX: Duration = Duration::from_secs(5);
pub const UPGRADE_LINK_LOOK: Duration = Duration::from_millis(20);
pub const UPGRADE_LINK_PAUSE: Duration = Duration::from_millis(500);

/// How long a shard may keep the mail waiting that another process takes over, or is gone, and from one try to
/// the next.
pub const HEIR_MAIL_WAIT_MAX: Duration = Duration::from_millis(500);
pub const HEIR_MAIL_PAUSE: Duration = Duration::from_millis(1);

/// Descriptors that go with one message between two processes; the kernel takes 253.
pub const DESCRIPTORS_PER_MESSAGE: usize = 250;

/// Bytes of one message between two processes: the offer has a thousand, a refusal may name some files.
pub const UPGRADE_MESSAGE_BYTES_MAX: usize = 16 << 10;

/// How long who asks for an upgrade may take to say so: it is a program on this machine.
pub const UPGRADE_REQUEST_MAX: Duration = Duration::from_secs(1);

/// How long sessions have to move elsewhere when the relay is told to end, as with moq-relay; and from one
/// look whether they have to the next.
pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
pub const DRAIN_LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How long a session is here that begins meanwhile before it is asked to move: a released client whose new
/// session is asked within its first second takes that for a failure, and has lost its tracks by then.
pub const NEWCOMER_MOVES_AFTER: Duration = Duration::from_millis(1500);

/// How long an authority may take over one answer, and an order altogether; bytes of an answer, and characters
/// of what it says is wrong that are logged.
pub const ACME_ANSWER_MAX: Duration = Duration::from_secs(30);
pub const ACME_ORDER_MAX: Duration = Duration::from_secs(5 * 60);
pub const ACME_ANSWER_BYTES_MAX: usize = 256 << 10;
pub const ACME_REASON_MAX: usize = 1000;

/// Bytes of the file of a key that the authority gave: they give some hundred.
pub const ACME_KEY_FILE_BYTES_MAX: u64 = 4 << 10;

/// From one time that the authority is asked when a certificate is to be replaced to the next, where it states
/// another one (RFC 9773 §4.3.2); and where it does not answer.
pub const ACME_ASK_MIN: Duration = Duration::from_secs(60);
pub const ACME_ASK_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// From an order that failed to the next one: twice as long after each, within these bounds, and up to a
/// quarter more. Let's Encrypt takes five failures of a name in an hour.
pub const ACME_RETRY_MIN: Duration = Duration::from_secs(2 * 60);
pub const ACME_RETRY_MAX: Duration = Duration::from_secs(6 * 60 * 60);

/// How long it is waited for an order at once: then the time of day is looked at again.
pub const ACME_WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// How long the auth server may take over an answer, from the question on or, for who wants to come in, from
/// when he does (the contract of moq-relay): clients give up a handshake that takes longer.
pub const AUTHORITY_ANSWER_MAX: Duration = Duration::from_secs(10);

/// How long a session waits to be let in, if for whatever reason nobody answers at all.
pub const ENTRY_TIMEOUT: Duration = Duration::from_secs(12);

/// Questions to the auth server at once, each on a connection of its own: with ten milliseconds for an
/// answer, 6,400 sessions in a second.
pub const AUTHORITY_REQUESTS_MAX: usize = 64;

/// Sessions that wait to be asked about: what such a server answers in time if it takes 150 milliseconds.
/// More are told to try again. And ends that it has not been told of yet, half a kilobyte each where clients show what
/// is common, and their bytes; more are lost.
pub const AUTHORITY_WAITING_MAX: usize = 4096;
pub const AUTHORITY_ENDS_WAITING_MAX: usize = 1 << 14;
pub const AUTHORITY_ENDS_BYTES_MAX: usize = 16 << 20;

/// Bytes of an answer: the most patterns that a grant may have, of a common length.
pub const AUTHORITY_ANSWER_BYTES_MAX: usize = 64 << 10;

/// Bytes of what a refusal says, which is logged and told to the client.
pub const AUTHORITY_REASON_BYTES_MAX: usize = 200;

/// From a check that failed to the next one: twice as long after each, within these bounds.
pub const AUTHORITY_RETRY_MIN: Duration = Duration::from_secs(1);
pub const AUTHORITY_RETRY_MAX: Duration = Duration::from_secs(60);

/// How long a connection to the auth server is kept that nothing is asked on: servers close theirs after a
/// minute or more.
pub const AUTHORITY_CONNECTION_IDLE: Duration = Duration::from_secs(30);

/// How long a relay that ends tells the auth server of the end of its sessions.
pub const AUTHORITY_LAST_WORDS: Duration = Duration::from_secs(1);

/// How long `shardcast doctor` waits for a relay that runs, and for its own datagrams on this host.
pub const DOCTOR_ANSWER_MAX: Duration = Duration::from_secs(2);

/// What it sends to each shard: more than one, so that they may come joined, and far less than a socket holds.
pub const DOCTOR_PROBE_DATAGRAMS: usize = 8;

/// From one look whether every shard turns to the next.
pub const WATCH_INTERVAL: Duration = SHARD_ANSWER_MAX;

/// Such looks in a row that find a shard not turning before the process ends, so that it can be started
/// again: 16 seconds, in which the shard's clients have taken it for dead and left.
pub const HANGING_LOOKS_MAX: u32 = 8;

/// Shares of the memory that the process may use. From the first one on it is short: nobody new is let in and
/// the cache shrinks, until less than the second one is used. What is left above the first is for what was
/// granted before, and for what comes before the next look.
pub const MEMORY_SHORT_SHARE: f64 = 0.85;
pub const MEMORY_AMPLE_SHARE: f64 = 0.75;

/// From one look at how much is used to the next: in 5 ms a shard takes in some 5 MB at 10 Gb/s, and a look
/// takes some microseconds. And from one time that free memory is given back to the kernel to the next, while
/// memory is short.
pub const MEMORY_LOOK_INTERVAL: Duration = Duration::from_millis(5);
pub const MEMORY_PURGE_INTERVAL: Duration = Duration::from_millis(50);

/// While memory is short such a part of the cache leaves in each such time, as far as that is not live: a
/// half of it in a tenth of a second.
pub const CACHE_SHRINK_SHARE: f64 = 1.0 / 16.0;
pub const CACHE_SHRINK_INTERVAL: Duration = Duration::from_millis(10);

/// Groups that one turn leaves in the cache, and looks at, because they are of those who hold little. Beyond so
/// many they leave as others do.
pub const CACHE_SPARED_MAX: usize = 4096;

/// How long memory may be short before those who hold little lose groups too. What leaves the cache is free only
/// when all shards and all streams have let go of it and the kernel has it back: a tenth of a second, and more
/// where the host is busy.
pub const CACHE_SPARES_FOR: Duration = Duration::from_secs(2);

/// What was of use so lately is live beside what is newest: somebody may be in the middle of it.
pub const CACHE_LIVE: Duration = Duration::from_secs(2);

/// From one line about datagrams that could not be sent to the next, on each shard; likewise about HTTP
/// connections that could not be accepted.
pub const FAULT_LINE_INTERVAL: Duration = Duration::from_secs(10);

const _: () = assert!(FRAME_BYTES_MAX <= GROUP_BYTES_MAX);
const _: () = assert!(MEMORY_AMPLE_SHARE < MEMORY_SHORT_SHARE && MEMORY_SHORT_SHARE < 1.0);
const _: () = assert!(SEND_WINDOW_SHORT_BYTES < SEND_WINDOW_BYTES);
const _: () = assert!(0.0 < CACHE_MEMORY_PERCENT_DEFAULT && CACHE_MEMORY_PERCENT_DEFAULT <= 100.0);
const _: () = assert!(STREAMS_BIDI_START <= STREAMS_MAX && STREAMS_UNI_PUBLISHER <= STREAMS_MAX);
// One ping may be lost.
const _: () = assert!(KEEP_ALIVE.as_millis() * 2 < IDLE_TIMEOUT.as_millis());
const _: () = assert!(MUX_KEEP_ALIVE.as_millis() * 2 < MUX_IDLE_TIMEOUT.as_millis());
const _: () = assert!(MUX_STREAM_QUEUE_BYTES_MIN <= MUX_STREAM_QUEUE_BYTES);
const _: () = assert!(
    LAST_WORDS_MAX.as_millis() + AUTHORITY_LAST_WORDS.as_millis() + LOG_FLUSH_MAX.as_millis()
        < END_MAX.as_millis()
);
const _: () = assert!(
    IDLE_TIMEOUT.as_millis() + KEEP_ALIVE.as_millis()
        < WATCH_INTERVAL.as_millis() * HANGING_LOOKS_MAX as u128
);
const _: () = assert!(AUTHORITY_ANSWER_MAX.as_millis() < ENTRY_TIMEOUT.as_millis());
const _: () = assert!(HANDSHAKES_BEFORE_RETRY < HANDSHAKES_MAX);
const _: () = assert!(HANDSHAKE_TIMEOUT.as_millis() < IDLE_TIMEOUT.as_millis());
const _: () = assert!(STREAM_WINDOW_BYTES <= RECEIVE_WINDOW_BYTES);
const _: () = assert!(RECEIVE_WINDOW_START <= RECEIVE_WINDOW_PUBLISHER);
const _: () = assert!(RECEIVE_WINDOW_PUBLISHER <= RECEIVE_WINDOW_BYTES);
const _: () = assert!(WINDOWS_SHARE_OPEN <= WINDOWS_SHARE_MAX);
const _: () = assert!(SESSION_HOLDS_BYTES <= SESSION_FIRST_BYTES);
const _: () = assert!(WINDOWS_SHARE_MAX <= SESSIONS_SHARE_OPEN && SESSIONS_SHARE_OPEN < 1.0);
// However many are served, some are still to say what they want.
const _: () = assert!(WEB_FETCHES_MAX + WEB_LISTINGS_MAX + WEB_QUESTIONS_MAX < WEB_CONNECTIONS_MAX);
// A path and a name in percent-encoding, a token, and room for the rest of the head.
const _: () = assert!(3 * REQUEST_NAME_BYTES_MAX + TOKEN_BYTES_MAX < WEB_HEAD_BYTES_MAX);
// A path, a token, and room for other fields.
const _: () = assert!(ROOT_BYTES_MAX + TOKEN_BYTES_MAX < HTTP3_FIELD_SECTION_BYTES_MAX);
// The largest group waits as a whole for a client that is about to read it.
const _: () = assert!(GROUP_BYTES_MAX < WEB_UNREAD_BYTES_MAX as u64);
const _: () = assert!(
    WEB_HANDSHAKE_TIMEOUT.as_secs() + WEB_HEAD_TIMEOUT.as_secs() + WEB_FETCH_TIMEOUT.as_secs()
        < WEB_CONNECTION_TIME_MAX.as_secs()
);
