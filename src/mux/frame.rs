//! Frames of qmux and its transport parameters: bytes of one message ⇄ values.
//!
//! The drafts 01 and 02 have any number of frames in a message, draft 00 has one.

use super::Violation;
use crate::limits::{MUX_FRAME_BYTES_MAX, MUX_RECORD_BYTES_MAX};
use crate::session::streams::StreamId;
use crate::wire::{decode_varint, encode_varint};

/// Which draft is spoken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Wire {
    Qmux00,
    Qmux01,
    Qmux02,
}

impl Wire {
    /// Whether a message holds many frames, and pings and datagrams are among them.
    pub fn has_records(self) -> bool {
        self >= Wire::Qmux01
    }

    /// Bytes of one message.
    pub fn message_bytes_max(self) -> usize {
        if self.has_records() { MUX_RECORD_BYTES_MAX } else { MUX_FRAME_BYTES_MAX }
    }
}

const PADDING: u64 = 0x00;
const RESET_STREAM: u64 = 0x04;
const STOP_SENDING: u64 = 0x05;
const STREAM: u64 = 0x08;
const STREAM_LAST: u64 = 0x0f;
const MAX_DATA: u64 = 0x10;
const MAX_STREAM_DATA: u64 = 0x11;
const MAX_STREAMS_BIDI: u64 = 0x12;
const MAX_STREAMS_UNI: u64 = 0x13;
const DATA_BLOCKED: u64 = 0x14;
const STREAM_DATA_BLOCKED: u64 = 0x15;
const STREAMS_BLOCKED_BIDI: u64 = 0x16;
const STREAMS_BLOCKED_UNI: u64 = 0x17;
const CONNECTION_CLOSE: u64 = 0x1c;
const APPLICATION_CLOSE: u64 = 0x1d;
const DATAGRAM: u64 = 0x30;
const DATAGRAM_WITH_LENGTH: u64 = 0x31;
const TRANSPORT_PARAMETERS: u64 = 0x3f51_5330_0d0a_0d0a;
const PING: u64 = 0x348c_6752_9ef8_c7bd;
const PONG: u64 = 0x348c_6752_9ef8_c7be;

/// Bits of the type of a STREAM frame.
const FIN: u64 = 1;
const HAS_LENGTH: u64 = 2;
const HAS_OFFSET: u64 = 4;

/// Bytes that precede what a STREAM frame carries, at most: its type, id, offset and length.
pub const STREAM_HEAD_BYTES_MAX: usize = 1 + 8 + 8 + 4;

/// Bytes of any frame that carries nothing but numbers, at most: a ping has two of eight bytes, a reset a
/// type and three of those.
pub const NUMBERS_BYTES_MAX: usize = 1 + 8 + 8 + 8;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// PADDING, and what peers say of limits that they have met.
    Nothing,
    Reset {
        id: StreamId,
        code: u64,
        final_size: u64,
    },
    Stop {
        id: StreamId,
        code: u64,
    },
    Stream {
        id: StreamId,
        data: &'a [u8],
        is_last: bool,
    },
    MaxData(u64),
    MaxStreamData {
        id: StreamId,
        max: u64,
    },
    MaxStreams {
        is_uni: bool,
        max: u64,
    },
    /// The peer ends the session: in good order, or because something is wrong.
    Close {
        is_orderly: bool,
        code: u64,
        reason: &'a [u8],
    },
    Datagram(&'a [u8]),
    Parameters(Parameters),
    Ping(u64),
    Pong(u64),
}

impl<'a> Frame<'a> {
    /// Takes the next frame from a message.
    pub fn take(wire: Wire, message: &mut &'a [u8]) -> Result<Frame<'a>, Violation> {
        let kind = number(message)?;
        Ok(match kind {
            PADDING => Frame::Nothing,
            RESET_STREAM => {
                let (id, code) = (stream(message)?, number(message)?);
                Frame::Reset { id, code, final_size: number(message)? }
            }
            STOP_SENDING => Frame::Stop { id: stream(message)?, code: number(message)? },
            STREAM..=STREAM_LAST => {
                let id = stream(message)?;
                // Bytes of a stream are in order by construction, and one release leaves this out.
                if kind & HAS_OFFSET != 0 {
                    number(message)?;
                }
                let data = match kind & HAS_LENGTH != 0 {
                    true => bytes(message)?,
                    false => std::mem::take(message),
                };
                Frame::Stream { id, data, is_last: kind & FIN != 0 }
            }
            MAX_DATA => Frame::MaxData(number(message)?),
            MAX_STREAM_DATA => Frame::MaxStreamData { id: stream(message)?, max: number(message)? },
            MAX_STREAMS_BIDI | MAX_STREAMS_UNI => {
                Frame::MaxStreams { is_uni: kind == MAX_STREAMS_UNI, max: number(message)? }
            }
            DATA_BLOCKED | STREAMS_BLOCKED_BIDI | STREAMS_BLOCKED_UNI => {
                number(message)?;
                Frame::Nothing
            }
            STREAM_DATA_BLOCKED => {
                number(message)?;
                number(message)?;
                Frame::Nothing
            }
            CONNECTION_CLOSE | APPLICATION_CLOSE => {
                let is_orderly = kind == APPLICATION_CLOSE;
                let code = number(message)?;
                if !is_orderly {
                    // The type of the frame that was wrong.
                    number(message)?;
                }
                Frame::Close { is_orderly, code, reason: bytes(message)? }
            }
            DATAGRAM if wire.has_records() => Frame::Datagram(std::mem::take(message)),
            DATAGRAM_WITH_LENGTH if wire.has_records() => Frame::Datagram(bytes(message)?),
            TRANSPORT_PARAMETERS => Frame::Parameters(Parameters::decode(wire, bytes(message)?)?),
            PING if wire.has_records() => Frame::Ping(number(message)?),
            PONG if wire.has_records() => Frame::Pong(number(message)?),
            _ => return Err(Violation::protocol("a frame of no known kind")),
        })
    }

    /// Appends the frame. Datagrams and bytes of streams have their length before them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Frame::Nothing => out.push(PADDING as u8),
            Frame::Reset { id, code, final_size } => {
                numbers(&[RESET_STREAM, id.0, code, final_size], out);
            }
            Frame::Stop { id, code } => numbers(&[STOP_SENDING, id.0, code], out),
            Frame::Stream { id, data, is_last } => {
                encode_stream_head(id, 0, data.len(), is_last, out);
                out.extend_from_slice(data);
            }
            Frame::MaxData(max) => numbers(&[MAX_DATA, max], out),
            Frame::MaxStreamData { id, max } => numbers(&[MAX_STREAM_DATA, id.0, max], out),
            Frame::MaxStreams { is_uni, max } => {
                numbers(&[if is_uni { MAX_STREAMS_UNI } else { MAX_STREAMS_BIDI }, max], out);
            }
            Frame::Close { is_orderly, code, reason } => {
                match is_orderly {
                    true => numbers(&[APPLICATION_CLOSE, code], out),
                    false => numbers(&[CONNECTION_CLOSE, code, 0], out),
                }
                encode_varint(reason.len() as u64, out);
                out.extend_from_slice(reason);
            }
            Frame::Datagram(payload) => encode_datagram(&[payload], out),
            Frame::Parameters(parameters) => {
                let mut body = Vec::new();
                parameters.encode(&mut body);
                numbers(&[TRANSPORT_PARAMETERS, body.len() as u64], out);
                out.extend_from_slice(&body);
            }
            Frame::Ping(sequence) => numbers(&[PING, sequence], out),
            Frame::Pong(sequence) => numbers(&[PONG, sequence], out),
        }
    }
}

/// Appends what precedes so many bytes of a stream.
pub fn encode_stream_head(
    id: StreamId,
    offset: u64,
    length: usize,
    is_last: bool,
    out: &mut Vec<u8>,
) {
    let fin = if is_last { FIN } else { 0 };
    numbers(&[STREAM | HAS_OFFSET | HAS_LENGTH | fin, id.0, offset, length as u64], out);
}

/// Appends a datagram that is in parts.
pub fn encode_datagram(parts: &[&[u8]], out: &mut Vec<u8>) {
    let length = parts.iter().map(|part| part.len() as u64).sum();
    numbers(&[DATAGRAM_WITH_LENGTH, length], out);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// What one side allows the other, in its first frame. What is not stated is zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameters {
    /// Milliseconds.
    pub max_idle_timeout: u64,
    pub max_data: u64,
    /// Of streams that who states this has opened, and of those of the other side.
    pub max_stream_data_bidi_local: u64,
    pub max_stream_data_bidi_remote: u64,
    pub max_stream_data_uni: u64,
    pub max_streams_bidi: u64,
    pub max_streams_uni: u64,
    /// Bytes of a frame with a datagram.
    pub max_datagram_frame_size: u64,
    /// Bytes of a message. This has a value where it is not stated.
    pub max_record_size: u64,
}

impl Default for Parameters {
    fn default() -> Parameters {
        Parameters {
            max_idle_timeout: 0,
            max_data: 0,
            max_stream_data_bidi_local: 0,
            max_stream_data_bidi_remote: 0,
            max_stream_data_uni: 0,
            max_streams_bidi: 0,
            max_streams_uni: 0,
            max_datagram_frame_size: 0,
            max_record_size: MUX_RECORD_BYTES_MAX as u64,
        }
    }
}

const RESET_STREAM_AT: u64 = 0x1d;
const APPLICATION_PROTOCOLS: u64 = 0x3d4f_9c2a_8b1e_6075;

impl Parameters {
    /// Their ids, in the order in which they are written.
    const IDS: [u64; 9] = [0x01, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x20, 0x0571_c594_29cd_0845];

    fn values(&mut self) -> [&mut u64; 9] {
        [
            &mut self.max_idle_timeout,
            &mut self.max_data,
            &mut self.max_stream_data_bidi_local,
            &mut self.max_stream_data_bidi_remote,
            &mut self.max_stream_data_uni,
            &mut self.max_streams_bidi,
            &mut self.max_streams_uni,
            &mut self.max_datagram_frame_size,
            &mut self.max_record_size,
        ]
    }

    fn encode(mut self, out: &mut Vec<u8>) {
        for (id, value) in Parameters::IDS.into_iter().zip(self.values()) {
            if *value > 0 {
                let mut bytes = Vec::new();
                encode_varint(*value, &mut bytes);
                numbers(&[id, bytes.len() as u64], out);
                out.extend_from_slice(&bytes);
            }
        }
    }

    fn decode(wire: Wire, mut body: &[u8]) -> Result<Parameters, Violation> {
        let mut parameters = Parameters::default();
        // Of the numbers, then of one that has no value.
        let mut seen = [false; Parameters::IDS.len() + 1];
        while !body.is_empty() {
            let id = number(&mut body)?;
            let mut value = bytes(&mut body)?;
            let known = match id {
                0x00 | 0x02 | 0x03 | 0x0a..=0x10 => {
                    return Err(Violation::protocol("a parameter of QUIC that qmux does not have"));
                }
                // The protocol was agreed on before.
                APPLICATION_PROTOCOLS => {
                    return Err(Violation::protocol("a parameter that no WebSocket has"));
                }
                RESET_STREAM_AT => Some(Parameters::IDS.len()),
                id => Parameters::IDS.iter().position(|known| *known == id),
            };
            let Some(known) = known else { continue };
            if std::mem::replace(&mut seen[known], true) {
                return Err(Violation::protocol("a parameter twice"));
            }
            if id != RESET_STREAM_AT {
                *parameters.values()[known] = number(&mut value)?;
            }
            if !value.is_empty() {
                return Err(Violation::protocol("a parameter that is too long"));
            }
        }
        if wire.has_records() && parameters.max_record_size < MUX_RECORD_BYTES_MAX as u64 {
            return Err(Violation::protocol("max_record_size is below its least"));
        }
        Ok(parameters)
    }
}

fn number(message: &mut &[u8]) -> Result<u64, Violation> {
    let (value, used) = decode_varint(message).ok_or(CUT_SHORT)?;
    *message = &message[used..];
    Ok(value)
}

fn stream(message: &mut &[u8]) -> Result<StreamId, Violation> {
    number(message).map(StreamId)
}

/// Bytes with their length before them.
fn bytes<'a>(message: &mut &'a [u8]) -> Result<&'a [u8], Violation> {
    let length = usize::try_from(number(message)?).map_err(|_| CUT_SHORT)?;
    let (bytes, rest) = message.split_at_checked(length).ok_or(CUT_SHORT)?;
    *message = rest;
    Ok(bytes)
}

const CUT_SHORT: Violation = Violation { code: 1002, reason: "a frame that is cut short" };

fn numbers(numbers: &[u64], out: &mut Vec<u8>) {
    numbers.iter().for_each(|number| encode_varint(*number, out));
}
