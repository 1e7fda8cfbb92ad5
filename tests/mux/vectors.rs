//! What bytes say, and that ours say it the same way.

use shardcast::mux::{Frame, Parameters, Violation, Wire};

use crate::support::{hex, unhex};

/// The frames of a message, in words.
fn said(wire: Wire, mut message: &[u8]) -> Result<Vec<String>, Violation> {
    let mut said = Vec::new();
    while !message.is_empty() {
        let frame = Frame::take(wire, &mut message)?;
        said.extend(in_words(&frame));
    }
    Ok(said)
}

fn in_words(frame: &Frame<'_>) -> Option<String> {
    Some(match *frame {
        Frame::Nothing => return None,
        Frame::Reset { id, code, final_size } => format!("reset {} {code} {final_size}", id.0),
        Frame::Stop { id, code } => format!("stop {} {code}", id.0),
        Frame::Stream { id, data, is_last } => {
            let fin = if is_last { " fin" } else { "" };
            let data = if data.is_empty() { String::new() } else { format!(" {}", hex(data)) };
            format!("stream {}:{data}{fin}", id.0)
        }
        Frame::MaxData(max) => format!("max-data {max}"),
        Frame::MaxStreamData { id, max } => format!("max-stream-data {} {max}", id.0),
        Frame::MaxStreams { is_uni, max } => {
            format!("max-streams {} {max}", if is_uni { "uni" } else { "bidi" })
        }
        Frame::Close { is_orderly, code, reason } => {
            let how = if is_orderly { "orderly" } else { "abnormal" };
            format!("close {how} {code} {}", hex(reason))
        }
        Frame::Datagram(payload) => format!("datagram {}", hex(payload)),
        Frame::Parameters(parameters) => format!("parameters {}", numbers(&parameters)),
        Frame::Ping(sequence) => format!("ping {sequence}"),
        Frame::Pong(sequence) => format!("pong {sequence}"),
    })
}

fn numbers(parameters: &Parameters) -> String {
    let Parameters {
        max_idle_timeout,
        max_data,
        max_stream_data_bidi_local,
        max_stream_data_bidi_remote,
        max_stream_data_uni,
        max_streams_bidi,
        max_streams_uni,
        max_datagram_frame_size,
        max_record_size,
    } = *parameters;
    let numbers = [
        max_idle_timeout,
        max_data,
        max_stream_data_bidi_local,
        max_stream_data_bidi_remote,
        max_stream_data_uni,
        max_streams_bidi,
        max_streams_uni,
        max_datagram_frame_size,
        max_record_size,
    ];
    numbers.map(|number| number.to_string()).join(" ")
}

fn vectors() -> Vec<(Wire, &'static str, Vec<u8>, &'static str)> {
    let lines = include_str!("vectors.txt").lines();
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            let [draft, name, bytes, said] = fields[..] else { panic!("not a vector: {line}") };
            let wire = match draft {
                "00" => Wire::Qmux00,
                "01" => Wire::Qmux01,
                "02" => Wire::Qmux02,
                _ => panic!("no such draft: {line}"),
            };
            (wire, name, unhex(bytes), said)
        })
        .collect()
}

#[test]
fn bytes_say_what_they_are_known_to_say() {
    let mut wrong = 0;
    for (wire, name, bytes, expect) in vectors() {
        match (said(wire, &bytes), expect.strip_prefix("wrong: ")) {
            (Ok(said), None) => assert_eq!(said.join(", "), expect, "{name}"),
            (Err(violation), Some(words)) => {
                assert!(violation.reason.contains(words), "{name}: {violation}");
                assert_eq!(violation.code, 1002, "{name}");
                wrong += 1;
            }
            (said, _) => panic!("{name}: {said:?}"),
        }
    }
    assert!(wrong > 10);
}

/// Every draft reads what the others have, but for what only some have.
#[test]
fn drafts_differ_where_they_are_known_to() {
    for (wire, name, bytes, _) in vectors() {
        let by_wire = [Wire::Qmux00, Wire::Qmux01, Wire::Qmux02].map(|wire| said(wire, &bytes));
        assert_eq!(by_wire[1], by_wire[2], "{name}");
        let is_the_same = by_wire[0] == by_wire[1];
        let is_new = ["PING", "answer", "DATAGRAM", "many frames", "below its least"];
        assert_eq!(is_the_same, !is_new.iter().any(|new| name.contains(new)), "{wire:?} {name}");
    }
}

#[test]
fn what_we_write_is_what_was_read() {
    for (wire, name, bytes, _) in vectors() {
        let Ok(before) = said(wire, &bytes) else { continue };
        let (mut message, mut written) = (&bytes[..], Vec::new());
        while !message.is_empty() {
            Frame::take(wire, &mut message).unwrap().encode(&mut written);
        }
        match wire {
            // Its datagrams have a length, which those of draft 00 cannot.
            Wire::Qmux00 => assert_eq!(said(Wire::Qmux01, &written), Ok(before), "{name}"),
            _ => assert_eq!(said(wire, &written), Ok(before), "{name}"),
        }
        if name.ends_with(": parameters") {
            assert_eq!(hex(&written), hex(&bytes), "{name}: to the byte");
        }
    }
}

/// Whatever is cut off, nothing is made of it that was not said.
#[test]
fn what_is_cut_off_is_wrong_or_says_less() {
    for (wire, name, bytes, _) in vectors() {
        let Ok(whole) = said(wire, &bytes) else { continue };
        for cut in 1..bytes.len() {
            if let Ok(part) = said(wire, &bytes[..cut]) {
                assert!(part.len() <= whole.len(), "{name} at {cut}: {part:?}");
            }
        }
    }
}
