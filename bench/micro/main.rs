//! What the steps of a relay cost, each by itself: no network and a made-up clock.
//!
//!     cargo bench --bench micro                   all, in a minute
//!     cargo bench --bench micro -- home_fetch     those whose name contains that
//!
//! Every figure is wall time of one operation, in the unit that is printed beside it; `--verbose`
//! adds the median, which is the one to read on a machine that does other things. A number at the
//! end of a name is how many there were of what the name says: cursors, groups that are held,
//! frames of a group, fetches that are open, viewers.
//!
//! | Name | One operation |
//! |---|---|
//! | `wire/…` | one message encoded, or decoded |
//! | `mailbox/hop_…` | that much mail sent, flushed and taken at the other end, on one thread |
//! | `mailbox/round_trip_…` | one piece of mail to another thread and back |
//! | `cursor/fan_out_…` | a group of one frame appended to a track and picked by every cursor |
//! | `group/append_…` | a frame appended to a group that is open, its share of opening included |
//! | `group/held_…` | a group of one frame appended to a track that holds many, and picked by one cursor |
//! | `session_fetch/…` | a cached group, from the bytes of FETCH to the FIN behind its answer |
//! | `home/idle_turn` | a turn of the home in which nothing happens |
//! | `home_fetch/…` | a group for a mirror, from its mail to the answer's, turns of the home included |
//! | `home_live/…` | a live piece of 4 KiB, from the publisher's mail to the mirror's; one turn |
//! | `turn/frame_…` | a shard's turns from a publisher's datagrams to those for all viewers |
//! | `turn/acks_…` | its turns when all viewers acknowledge that |
//! | `access/admit_…` | a token of that algorithm verified, and what it grants found at a path |
//! | `access/refuse_…` | the same with a signature that is wrong |
//! | `access/may_…` | whether a grant permits a path: a subtree, or a pattern with a `*` in it |
//!
//! Both ends of the mail run on one core but where it says otherwise, so that cache misses between
//! cores are not in here, and payload is shared rather than copied, as it is in the relay: its size
//! should hardly show. The turns are whole ones, QUIC and its cryptography included, without the
//! kernel.
//!
//! `cargo bench --bench hot_path` counts the instructions of the most important of them.

mod access;
mod content;
mod cursor;
mod home;
mod mailbox;
mod session;
mod turn;
mod wire;

#[allow(dead_code, reason = "each program needs a part of it")]
#[path = "../rig.rs"]
mod rig;
#[path = "../stage.rs"]
mod stage;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700))
        // Samples shorter than a time slice: a busy machine spoils some of them, not all.
        .sample_size(200)
        .nresamples(2000)
        .configure_from_args();
    wire::all(&mut criterion);
    mailbox::hop(&mut criterion);
    mailbox::round_trip(&mut criterion);
    cursor::fan_out(&mut criterion);
    cursor::append(&mut criterion);
    cursor::held_groups(&mut criterion);
    session::fetch(&mut criterion);
    home::idle(&mut criterion);
    home::fetch_cached(&mut criterion);
    home::fetch_missed(&mut criterion);
    home::live(&mut criterion);
    turn::all(&mut criterion);
    access::all(&mut criterion);
    criterion.final_summary();
}
