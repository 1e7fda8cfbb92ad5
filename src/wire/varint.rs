//! Varints and the length-prefixed message, the two encodings everything else is made of (§2.1).

use super::CONTROL_MESSAGE_BYTES_MAX;
use super::error::{DecodeError, Fault};

/// The largest value a varint holds.
pub const VARINT_MAX: u64 = (1 << 62) - 1;

/// The value at the front of `buf` and the bytes it took; `None` while bytes are missing. Forms
/// longer than needed are accepted: the legacy SETUP is written with them.
#[inline]
pub fn decode_varint(buf: &[u8]) -> Option<(u64, usize)> {
    let first = *buf.first()?;
    if first < 0x40 {
        return Some((u64::from(first), 1));
    }
    decode_varint_wide(buf, first)
}

fn decode_varint_wide(buf: &[u8], first: u8) -> Option<(u64, usize)> {
    match first >> 6 {
        1 => {
            let bytes = *buf.first_chunk::<2>()?;
            Some((u64::from(u16::from_be_bytes(bytes) & 0x3fff), 2))
        }
        2 => {
            let bytes = *buf.first_chunk::<4>()?;
            Some((u64::from(u32::from_be_bytes(bytes) & 0x3fff_ffff), 4))
        }
        _ => {
            let bytes = *buf.first_chunk::<8>()?;
            Some((u64::from_be_bytes(bytes) & VARINT_MAX, 8))
        }
    }
}

/// Appends `value` in its shortest form. The value must be at most [`VARINT_MAX`]: there is no
/// encoding beyond, and a release build writes the maximum rather than a truncated number.
#[inline]
pub fn encode_varint(value: u64, out: &mut Vec<u8>) {
    debug_assert!(value <= VARINT_MAX, "varint out of range: {value}");
    let value = value.min(VARINT_MAX);
    match varint_len(value) {
        1 => out.push(value as u8),
        2 => out.extend_from_slice(&(value as u16 | 1 << 14).to_be_bytes()),
        4 => out.extend_from_slice(&(value as u32 | 2 << 30).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 3 << 62).to_be_bytes()),
    }
}

/// The bytes of a varint that begins with this one.
#[inline]
pub fn varint_len_by(first: u8) -> usize {
    1 << (first >> 6)
}

/// The bytes [`encode_varint`] appends for `value`.
#[inline]
pub fn varint_len(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// Folds the sign into the lowest bit, so small negative numbers stay short. Fits a varint for
/// −2^61 ≤ n < 2^61.
#[inline]
pub fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

#[inline]
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends an optional number: 0 for none, n + 1 for n. The largest has no encoding of its own, and
/// becomes the one before.
pub(super) fn encode_optional(value: Option<u64>, out: &mut Vec<u8>) {
    encode_varint(value.map_or(0, |n| n.saturating_add(1).min(VARINT_MAX)), out);
}

/// Appends a byte string with its length.
pub(super) fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends what `body` writes, with its length in front.
pub(super) fn encode_message(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    // The length is known last and belongs first: write it at the end and rotate it there, which
    // needs no second buffer and no guess at how long the length will be.
    let start = out.len();
    body(out);
    let length = out.len() - start;
    encode_varint(length as u64, out);
    out[start..].rotate_right(varint_len(length as u64));
}

/// Split one length-prefixed message from the front of `buf`: its body, and the bytes it used
/// with the prefix. `Ok(None)`: more bytes are needed. A body declared longer than `limit` is
/// [`Fault::TooLarge`], decided from the length alone so that it is never waited for.
#[inline]
pub fn split_message(buf: &[u8], limit: usize) -> Result<Option<(&[u8], usize)>, DecodeError> {
    let Some((length, prefix)) = decode_varint(buf) else {
        return Ok(None);
    };
    if length > limit as u64 {
        return Err(DecodeError::new(Fault::TooLarge, 0));
    }
    let end = prefix + length as usize;
    Ok(buf.get(prefix..end).map(|body| (body, end)))
}

/// Parses `body` with `parse`, to its last byte.
pub(super) fn parse_body<'a, T>(
    body: &'a [u8],
    parse: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut reader = Reader::new(body);
    let message = parse(&mut reader)?;
    reader.finish()?;
    Ok(message)
}

/// Takes one control message from the front of `buf`.
pub(super) fn take_message<'a, T>(
    buf: &'a [u8],
    parse: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Option<(T, usize)>, DecodeError> {
    let Some((body, used)) = split_message(buf, CONTROL_MESSAGE_BYTES_MAX)? else {
        return Ok(None);
    };
    Ok(Some((parse_body(body, parse)?, used)))
}

/// Takes one control message with a type varint before its length. `parse` gets the type.
pub(super) fn take_typed_message<'a, T>(
    buf: &'a [u8],
    parse: impl FnOnce(u64, &mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Option<(T, usize)>, DecodeError> {
    let Some((kind, head)) = decode_varint(buf) else {
        return Ok(None);
    };
    let taken = take_message(&buf[head..], |reader| parse(kind, reader))?;
    Ok(taken.map(|(message, used)| (message, head + used)))
}

/// A cursor over one message body. Running out of bytes is an error here, whatever may follow on
/// the stream: a field never leaves its message.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    body: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub fn new(body: &'a [u8]) -> Reader<'a> {
        Reader { body, offset: 0 }
    }

    /// Bytes read so far. Take it before a field to say where that field was.
    pub fn offset(&self) -> usize {
        self.offset
    }

    pub fn remaining(&self) -> usize {
        self.body.len() - self.offset
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let (value, used) = decode_varint(&self.body[self.offset..]).ok_or(self.short())?;
        self.offset += used;
        Ok(value)
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.body.get(self.offset).ok_or(self.short())?;
        self.offset += 1;
        Ok(byte)
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (bytes, _) = self.body[self.offset..].split_at_checked(count).ok_or(self.short())?;
        self.offset += count;
        Ok(bytes)
    }

    pub fn string(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.length()?;
        let start = self.offset;
        std::str::from_utf8(self.bytes(length)?)
            .map_err(|error| DecodeError::new(Fault::InvalidUtf8, start + error.valid_up_to()))
    }

    /// A duration in milliseconds.
    pub fn duration_ms(&mut self) -> Result<u64, DecodeError> {
        self.varint()
    }

    /// An optional number: 0 is none, n + 1 is n.
    pub fn optional(&mut self) -> Result<Option<u64>, DecodeError> {
        Ok(self.varint()?.checked_sub(1))
    }

    /// A reader of the next field alone, which has its length in front. Its offsets still count
    /// from the start of the message.
    pub fn field(&mut self) -> Result<Reader<'a>, DecodeError> {
        let length = self.length()?;
        let offset = self.offset;
        self.bytes(length)?;
        Ok(Reader { body: &self.body[..self.offset], offset })
    }

    /// Ends the message: leftover bytes are [`Fault::Long`].
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.remaining() > 0 {
            return Err(DecodeError::new(Fault::Long, self.offset));
        }
        Ok(())
    }

    /// Gives up on the rest of the message, which is then no error.
    pub(super) fn skip_rest(&mut self) {
        self.offset = self.body.len();
    }

    /// A length that the message has bytes for, checked before anything is reserved for it.
    fn length(&mut self) -> Result<usize, DecodeError> {
        let start = self.offset;
        let length = self.varint()?;
        if length > self.remaining() as u64 {
            return Err(DecodeError::new(Fault::Short, start));
        }
        Ok(length as usize)
    }

    fn short(&self) -> DecodeError {
        DecodeError::new(Fault::Short, self.offset)
    }
}
