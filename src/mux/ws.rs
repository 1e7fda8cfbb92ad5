//! WebSocket frames (RFC 6455 §5), as a server reads and writes them: bytes in any pieces ⇄ messages.
//!
//! What comes in one piece is unmasked where it lies. Only a message that comes in parts is collected, and
//! what that took is given back with it: a connection that is idle holds nothing.

use super::Violation;

/// Bytes of what a Ping, a Pong or a Close carries (RFC 6455 §5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// Bytes of the longest header: two, a length of eight and a mask of four.
const HEAD_BYTES_MAX: usize = 14;

/// Room for the header of a message that we send: they are all shorter than 64 KiB.
const HEAD_BYTES_SENT: usize = 4;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    fn of(byte: u8) -> Option<Opcode> {
        Some(match byte & 0x0f {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return None,
        })
    }

    fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// What the client has said.
#[derive(PartialEq, Eq, Debug)]
pub enum Said<'a> {
    /// One binary message, whole.
    Message(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    /// The status, if the client has given one.
    Close(Option<u16>),
}

#[derive(Debug)]
pub struct Reader {
    /// Bytes that a message may have.
    most: usize,
    /// The header of the present frame, while it is not complete.
    head: [u8; HEAD_BYTES_MAX],
    head_len: usize,
    frame: Option<Frame>,
    /// What has come of the present message, if that is in parts, and of a frame between those.
    message: Vec<u8>,
    control: Vec<u8>,
    /// The next data frame goes on with a message.
    is_in_message: bool,
}

/// A frame of which the payload has not come whole.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    is_last: bool,
    mask: [u8; 4],
    len: usize,
    got: usize,
}

impl Reader {
    /// Of messages of so many bytes at most.
    pub fn new(most: usize) -> Reader {
        Reader {
            most,
            head: [0; HEAD_BYTES_MAX],
            head_len: 0,
            frame: None,
            message: Vec::new(),
            control: Vec::new(),
            is_in_message: false,
        }
    }

    /// Takes in what has come and hands over what that says. Nothing more may be read after a violation.
    pub fn read(
        &mut self,
        mut input: &mut [u8],
        take: &mut dyn FnMut(Said<'_>) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        loop {
            let frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.read_head(&mut input)? {
                    Some(frame) => frame,
                    None => return Ok(()),
                },
            };
            let here = (frame.len - frame.got).min(input.len());
            let (part, rest) = input.split_at_mut(here);
            input = rest;
            unmask(part, frame.mask, frame.got);
            let got = frame.got + here;
            let is_whole = got == frame.len;
            let (held, ends) = match frame.opcode.is_control() {
                true => (&mut self.control, is_whole),
                false => (&mut self.message, is_whole && frame.is_last),
            };
            if !ends || !held.is_empty() {
                held.extend_from_slice(part);
            }
            if !is_whole {
                self.frame = Some(Frame { got, ..frame });
                return Ok(());
            }
            if !frame.opcode.is_control() {
                self.is_in_message = !frame.is_last;
            }
            if ends {
                let collected = std::mem::take(held);
                let whole: &[u8] = if collected.is_empty() { part } else { &collected };
                take(said(frame.opcode, whole)?)?;
            }
        }
    }

    /// The next frame, once its header is complete.
    fn read_head(&mut self, input: &mut &mut [u8]) -> Result<Option<Frame>, Violation> {
        loop {
            let wanted = head_len(&self.head[..self.head_len]);
            if self.head_len == wanted {
                break;
            }
            let here = (wanted - self.head_len).min(input.len());
            if here == 0 {
                return Ok(None);
            }
            let (part, rest) = std::mem::take(input).split_at_mut(here);
            self.head[self.head_len..self.head_len + here].copy_from_slice(part);
            self.head_len += here;
            *input = rest;
        }
        let head = self.head;
        let head = &head[..std::mem::take(&mut self.head_len)];
        let opcode = Opcode::of(head[0]).filter(|_| head[0] & RESERVED == 0);
        let opcode = opcode.ok_or(Violation::protocol("a WebSocket frame of no kind"))?;
        let is_last = head[0] & FIN != 0;
        if head[1] & MASKED == 0 {
            return Err(Violation::protocol("a WebSocket frame without a mask"));
        }
        let (length, mask) = head[2..].split_at(head.len() - 6);
        let length = match length {
            [] => u64::from(head[1] & !MASKED),
            bytes => bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let mask = [mask[0], mask[1], mask[2], mask[3]];
        if opcode.is_control() {
            if !is_last || length > CONTROL_BYTES_MAX as u64 {
                return Err(Violation::protocol("a WebSocket control frame in parts, or too long"));
            }
        } else {
            if (opcode == Opcode::Continuation) != self.is_in_message {
                return Err(Violation::protocol("parts of WebSocket messages out of order"));
            }
            if opcode == Opcode::Text {
                return Err(Violation::text());
            }
            if length > (self.most - self.message.len()) as u64 {
                return Err(Violation::too_large());
            }
        }
        Ok(Some(Frame { opcode, is_last, mask, len: length as usize, got: 0 }))
    }
}

/// How long a header is, as far as its first bytes tell.
fn head_len(head: &[u8]) -> usize {
    match head.get(1).map(|byte| byte & !MASKED) {
        None => 2,
        Some(126) => 8,
        Some(127) => HEAD_BYTES_MAX,
        Some(_) => 6,
    }
}

fn said(opcode: Opcode, whole: &[u8]) -> Result<Said<'_>, Violation> {
    Ok(match opcode {
        Opcode::Ping => Said::Ping(whole),
        Opcode::Pong => Said::Pong,
        Opcode::Close => match whole {
            [] => Said::Close(None),
            [_] => return Err(Violation::protocol("half a status in a WebSocket Close")),
            [high, low, ..] => Said::Close(Some(u16::from_be_bytes([*high, *low]))),
        },
        Opcode::Continuation | Opcode::Text | Opcode::Binary => Said::Message(whole),
    })
}

/// Unmasks some bytes of a frame, from the one at `offset` on.
pub fn unmask(bytes: &mut [u8], mut mask: [u8; 4], offset: usize) {
    mask.rotate_left(offset % 4);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        let masked = u64::from_ne_bytes(word.try_into().expect("chunks of eight"));
        word.copy_from_slice(&(masked ^ wide).to_ne_bytes());
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

/// Appends a message that is not in parts.
pub fn write(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let start = begin(out);
    out.extend_from_slice(payload);
    end(opcode, start, out);
}

/// Appends room for the header of a message whose payload follows.
pub(super) fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES_SENT]);
    start
}

/// Bytes of the payload of a message that was begun.
pub(super) fn payload_len(start: usize, out: &[u8]) -> usize {
    out.len() - start - HEAD_BYTES_SENT
}

/// Writes the header of a message that was begun.
pub(super) fn end(opcode: Opcode, start: usize, out: &mut Vec<u8>) {
    let length = payload_len(start, out);
    debug_assert!(length <= usize::from(u16::MAX), "a message of {length} bytes");
    out[start] = FIN | opcode as u8;
    if length < 126 {
        out[start + 1] = length as u8;
        out.copy_within(start + HEAD_BYTES_SENT.., start + 2);
        out.truncate(start + 2 + length);
    } else {
        out[start + 1] = 126;
        out[start + 2..start + 4].copy_from_slice(&(length as u16).to_be_bytes());
    }
}
