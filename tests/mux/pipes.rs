//! Two ends that do what they like, over pipes that cut what they carry anywhere.
//!
//! Both are servers. Between them stands a mirror that gives each the other's streams as a client's: it
//! turns who has opened them around, masks, puts frames into other messages, breaks messages into parts and
//! puts Pings between.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use shardcast::limits::{MUX_RECORD_BYTES_MAX, SEND_WINDOW_BYTES};
use shardcast::mux::ws::Opcode;
use shardcast::mux::{Frame, Mux, Wire};
use shardcast::session::streams::{Event, ReadEnd, StreamId, Streams, WriteEnd};
use shardcast::wire::{SessionCode, StreamCode};

use crate::support::{Random, masked, mix, take_sent};

/// One direction of one stream, as its writer knows it.
#[derive(Default)]
struct Written {
    bytes: u64,
    is_finished: bool,
    reset: Option<StreamCode>,
    is_blocked: bool,
    is_over: bool,
}

struct End {
    mux: Mux,
    writes: BTreeMap<StreamId, Written>,
    /// Streams that are read, and how much was.
    reads: BTreeMap<StreamId, u64>,
    /// Those that were found to have something.
    readable: Vec<StreamId>,
    /// Bytes that the mirror has not passed on, and those on their way from here.
    unread: Vec<u8>,
    pipe: VecDeque<u8>,
    lost: Option<String>,
    datagrams: u64,
}

impl End {
    fn new(wire: Wire, now: Instant) -> End {
        End {
            mux: Mux::new(wire, now),
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            readable: Vec::new(),
            unread: Vec::new(),
            pipe: VecDeque::new(),
            lost: None,
            datagrams: 0,
        }
    }
}

/// The stream as the other end knows it.
fn turned(id: StreamId) -> StreamId {
    StreamId(id.0 ^ 1)
}

/// What is written at a place of a stream.
fn byte_at(end: usize, id: StreamId, offset: u64) -> u8 {
    mix(mix(id.0 << 1 | end as u64) ^ offset) as u8
}

struct Talk {
    wire: Wire,
    random: Random,
    now: Instant,
    ends: [End; 2],
}

impl Talk {
    fn new(seed: u64) -> Talk {
        let mut random = Random(seed);
        let wire = [Wire::Qmux00, Wire::Qmux01, Wire::Qmux02][random.below(3)];
        let now = Instant::now();
        Talk { wire, random, now, ends: [0; 2].map(|_| End::new(wire, now)) }
    }

    /// Something that an end does.
    fn act(&mut self, end: usize) {
        let random = &mut self.random;
        let here = &mut self.ends[end];
        let open: Vec<StreamId> =
            here.writes.iter().filter(|(_, written)| !written.is_over).map(|(id, _)| *id).collect();
        let any = (!open.is_empty()).then(|| open[random.below(open.len().max(1))]);
        match random.below(20) {
            0 | 1 => {
                if let Some(id) = here.mux.open_uni() {
                    here.writes.insert(id, Written::default());
                }
            }
            2 => {
                if let Some(id) = here.mux.open_bidi() {
                    here.writes.insert(id, Written::default());
                    here.reads.insert(id, 0);
                }
            }
            3 | 4 => {
                let Some(id) = any else { return };
                let written = here.writes.get_mut(&id).unwrap();
                (written.is_finished, written.is_over) = (true, true);
                here.mux.finish(id);
            }
            5 if random.chance(40) => {
                let Some(id) = any else { return };
                let code = StreamCode(random.next() % 100);
                let written = here.writes.get_mut(&id).unwrap();
                (written.reset, written.is_over) = (Some(code), true);
                here.mux.reset(id, code);
            }
            6 if random.chance(30) => {
                let reads: Vec<StreamId> = here.reads.keys().copied().collect();
                if !reads.is_empty() {
                    let id = reads[random.below(reads.len())];
                    here.reads.remove(&id);
                    here.mux.stop(id, StreamCode(7));
                }
            }
            7 => {
                if let Some(id) = any {
                    here.mux.set_priority(id, random.below(4) as i32);
                }
            }
            8 => here.mux.send_datagram(b"data", &vec![b'g'; random.below(2000)]),
            9 if random.chance(20) => here.mux.expect_groups(),
            10 => here.mux.ping(),
            _ => {
                let Some(id) = any else { return };
                let written = here.writes.get_mut(&id).unwrap();
                let length = [1, 40, 3000, 40_000, 200_000][random.below(5)];
                let from = written.bytes;
                let bytes: Vec<u8> =
                    (from..from + length).map(|offset| byte_at(end, id, offset)).collect();
                let (first, second) = bytes.split_at(random.below(bytes.len()));
                let mut chunks = [first, second].map(Bytes::copy_from_slice);
                match here.mux.write(id, &mut chunks) {
                    WriteEnd::All => {
                        written.bytes += length;
                        written.is_blocked = false;
                    }
                    WriteEnd::Blocked(taken) => {
                        written.bytes += taken as u64;
                        written.is_blocked = true;
                    }
                    WriteEnd::Stopped => {}
                }
            }
        }
    }

    fn hear(&mut self, end: usize) {
        while let Some(event) = self.ends[end].mux.poll() {
            let here = &mut self.ends[end];
            match event {
                Event::Opened(id) => {
                    here.reads.insert(id, 0);
                    if !id.is_uni() {
                        here.writes.insert(id, Written::default());
                    }
                    here.readable.push(id);
                }
                Event::Readable(id) => here.readable.push(id),
                Event::Writable(id) => {
                    here.writes.get_mut(&id).unwrap().is_blocked = false;
                }
                Event::Finished(id) => assert!(here.writes[&id].is_finished),
                Event::Stopped(id) => {
                    let written = here.writes.get_mut(&id).unwrap();
                    written.is_over = true;
                    written.reset.get_or_insert(StreamCode::CANCEL);
                    here.mux.reset(id, StreamCode::CANCEL);
                }
                Event::Available { .. } => {}
                Event::Datagram(datagram) => {
                    assert!(datagram.starts_with(b"data"));
                    here.datagrams += 1;
                }
                Event::Lost { reason } => here.lost = Some(reason),
            }
        }
        // Not always at once, nor in order.
        let mut left = Vec::new();
        for id in std::mem::take(&mut self.ends[end].readable) {
            if self.random.chance(20) {
                left.push(id);
                continue;
            }
            self.read(end, id);
        }
        self.ends[end].readable.extend(left);
    }

    fn read(&mut self, end: usize, id: StreamId) {
        let [first, second] = &mut self.ends;
        let (here, there) = if end == 0 { (first, second) } else { (second, first) };
        let Some(got) = here.reads.get_mut(&id) else { return };
        let writer = turned(id);
        let most = 1 + self.random.below(100_000);
        let result = here.mux.read(id, most, &mut |part| {
            for byte in part {
                assert_eq!(*byte, byte_at(1 - end, writer, *got), "{id:?} at {got}");
                *got += 1;
            }
        });
        let written = there.writes.get(&writer).expect("somebody writes it");
        assert!(*got <= written.bytes, "{id:?}");
        match result {
            ReadEnd::Pending => return,
            ReadEnd::More => return here.readable.push(id),
            ReadEnd::Finished => {
                assert!(written.is_finished && *got == written.bytes, "{id:?} at {got}");
            }
            ReadEnd::Reset(code) => assert_eq!(Some(code), written.reset, "{id:?}"),
        }
        here.reads.remove(&id);
    }

    /// An end sends something.
    fn send(&mut self, end: usize, budget: usize) {
        let here = &mut self.ends[end];
        here.mux.grow(self.now, &mut |_| true);
        if here.mux.has_output() {
            here.mux.transmit(self.now, budget, &mut here.unread);
        }
        self.mirror(end);
    }

    /// Passes on what an end has sent, as a client would have said it.
    fn mirror(&mut self, end: usize) {
        let here = &mut self.ends[end];
        let mut used = 0;
        while let Some((opcode, payload, length)) = take_sent(&here.unread[used..]) {
            used += length;
            let random = &mut self.random;
            if opcode != Opcode::Binary as u8 {
                here.pipe.extend(masked(opcode, true, payload, mask(random)));
                continue;
            }
            let (mut rest, mut out) = (payload, Vec::new());
            while !rest.is_empty() {
                let frame = Frame::take(self.wire, &mut rest).expect("frames of ours");
                let mut one = Vec::new();
                turn(frame).encode(&mut one);
                let is_full = out.len() + one.len() > MUX_RECORD_BYTES_MAX;
                if !out.is_empty() && (is_full || random.chance(30)) {
                    here.pipe.extend(in_parts(&std::mem::take(&mut out), random));
                }
                out.extend(one);
            }
            here.pipe.extend(in_parts(&out, random));
        }
        here.unread.drain(..used);
    }

    /// The other end gets some of what is on its way.
    fn deliver(&mut self, from: usize, most: usize) {
        let here = &mut self.ends[from];
        let count = most.min(here.pipe.len());
        let mut bytes: Vec<u8> = here.pipe.drain(..count).collect();
        self.ends[1 - from].mux.receive(self.now, &mut bytes);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for end in &mut self.ends {
            if end.mux.deadline().is_some_and(|deadline| deadline <= self.now) {
                end.mux.timeout(self.now);
            }
        }
    }

    /// Until nobody has anything to say.
    fn come_to_rest(&mut self) {
        for _ in 0..100_000 {
            for end in [0, 1] {
                self.hear(end);
                self.send(end, 32 << 10);
                self.deliver(end, usize::MAX);
            }
            let is_busy = |end: &End| {
                end.mux.has_events()
                    || end.mux.has_output()
                    || !end.pipe.is_empty()
                    || !end.readable.is_empty()
            };
            if !self.ends.iter().any(is_busy) {
                return;
            }
        }
        panic!("they never come to rest");
    }
}

fn mask(random: &mut Random) -> [u8; 4] {
    (random.next() as u32).to_be_bytes()
}

/// A message in parts, with Pings between them.
fn in_parts(payload: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut rest, mut opcode) = (payload, Opcode::Binary as u8);
    while random.chance(20) {
        let (part, after) = rest.split_at(random.below(rest.len() + 1));
        out.extend(masked(opcode, false, part, mask(random)));
        (rest, opcode) = (after, Opcode::Continuation as u8);
        if random.chance(20) {
            out.extend(masked(Opcode::Ping as u8, true, b"there?", mask(random)));
        }
    }
    out.extend(masked(opcode, true, rest, mask(random)));
    out
}

/// A frame with its stream turned around.
fn turn(frame: Frame<'_>) -> Frame<'_> {
    match frame {
        Frame::Reset { id, code, final_size } => Frame::Reset { id: turned(id), code, final_size },
        Frame::Stop { id, code } => Frame::Stop { id: turned(id), code },
        Frame::Stream { id, data, is_last } => Frame::Stream { id: turned(id), data, is_last },
        Frame::MaxStreamData { id, max } => Frame::MaxStreamData { id: turned(id), max },
        other => other,
    }
}

fn play(seed: u64) {
    let mut talk = Talk::new(seed);
    let steps = 300 + talk.random.below(700);
    for _ in 0..steps {
        let end = talk.random.below(2);
        match talk.random.below(10) {
            0..4 => talk.act(end),
            4 | 5 => talk.hear(end),
            6 | 7 => {
                let budget = 1 + talk.random.below(40_000);
                talk.send(end, budget);
            }
            8 => {
                let most = [1, 10, 1000, 100_000][talk.random.below(4)];
                talk.deliver(end, most);
            }
            _ => {
                let millis = talk.random.below(40) as u64;
                talk.pass(Duration::from_millis(millis));
            }
        }
    }
    // All that was begun is ended, and arrives.
    talk.come_to_rest();
    for end in &mut talk.ends {
        assert_eq!(end.lost, None);
        let waits = |written: &Written| written.is_blocked && !written.is_over;
        assert!(!end.writes.values().any(waits), "somebody waits for ever");
        let open = end.writes.iter_mut().filter(|(_, written)| !written.is_over);
        for (id, written) in open {
            (written.is_finished, written.is_over) = (true, true);
            end.mux.finish(*id);
        }
    }
    talk.come_to_rest();
    for end in &mut talk.ends {
        // Those that the other end has opened since.
        let open = end.writes.iter_mut().filter(|(_, written)| !written.is_over);
        open.for_each(|(id, written)| {
            (written.is_finished, written.is_over) = (true, true);
            end.mux.finish(*id);
        });
    }
    talk.come_to_rest();
    for end in &talk.ends {
        assert_eq!((&end.lost, end.mux.streams()), (&None, 0));
        assert!(end.reads.is_empty(), "{:?}", end.reads);
    }
    // One closes, and the other hears how.
    let (closes, hears) = (seed as usize % 2, 1 - seed as usize % 2);
    talk.ends[closes].mux.close(SessionCode(64 + seed % 9), "the end".into());
    talk.come_to_rest();
    let code = seed % 9;
    let lost = talk.ends[hears].lost.clone().expect("it hears");
    assert_eq!(
        lost,
        format!("closed by the client: application {code} ({:#x}): the end", 64 + code)
    );
    assert!(talk.ends.iter().all(|end| end.mux.is_over()));
}

#[test]
fn two_ends_understand_each_other_whatever_they_do() {
    (0..60).for_each(play);
}

/// What one end can have wait in the other is bounded, whatever nobody reads.
#[test]
fn an_end_that_is_not_read_takes_in_a_window_and_no_more() {
    let mut talk = Talk::new(1);
    talk.come_to_rest();
    let mut given = 0;
    for _ in 0..100 {
        let here = &mut talk.ends[0].mux;
        let Some(id) = here.open_uni() else { break };
        loop {
            match here.write(id, &mut [vec![0; 50_000].into()]) {
                WriteEnd::Blocked(0) => break,
                WriteEnd::Blocked(taken) => given += taken,
                WriteEnd::All => given += 50_000,
                WriteEnd::Stopped => panic!("nobody has stopped it"),
            }
        }
        talk.send(0, 1 << 20);
        talk.deliver(0, usize::MAX);
        talk.send(1, 1 << 20);
        talk.deliver(1, usize::MAX);
    }
    assert!((64 << 10..2 * SEND_WINDOW_BYTES as usize).contains(&given), "{given}");
    assert!(talk.ends.iter_mut().all(|end| !end.mux.is_over()));
}
