//! How a session introduces itself: SETUP on 05+ (§1.7), the legacy exchange on 01 and 02 (§1.5).

use super::CONTROL_MESSAGE_BYTES_MAX;
use super::error::{DecodeError, Fault};
use super::varint::{
    Reader, encode_bytes, encode_message, encode_varint, parse_body, take_message, varint_len,
};

/// Parameters in one SETUP, legacy or not.
pub const SETUP_PARAMETERS_MAX: usize = 64;

/// Versions in a legacy CLIENT_SETUP. Deployed peers offer three; the reference has no limit.
const LEGACY_VERSIONS_MAX: usize = 64;

const PARAMETER_PROBE: u64 = 1;
const PARAMETER_PATH: u64 = 2;
const PARAMETER_ROLE: u64 = 3;
const PARAMETER_COST: u64 = 4;
const PARAMETER_HOP: u64 = 5;

// §1.7
/// SETUP (05+), one per direction, alone on a unidirectional stream. The default value is what a
/// peer that sends no parameter at all has said.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Setup {
    pub probe: ProbeLevel,
    /// The request path with its query, if any; see [`split_path_query`]. Never an empty string.
    pub path: Option<String>,
    pub role: Role,
    /// The link price for routes crossing this session. `None` counts as 1; 0 is a free link.
    pub cost: Option<u64>,
    /// The sender's identity in hop chains, 0 for none.
    pub hop: u64,
}

/// Which reports a peer can answer a PROBE with.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ProbeLevel {
    #[default]
    None,
    Report,
    Increase,
}

/// The directions a client declares it will use.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Role {
    #[default]
    Both,
    Publisher,
    Subscriber,
}

impl Setup {
    pub fn decode(body: &[u8]) -> Result<Setup, DecodeError> {
        if body.len() > CONTROL_MESSAGE_BYTES_MAX {
            return Err(DecodeError::new(Fault::TooLarge, 0));
        }
        parse_body(body, |reader| {
            let mut setup = Setup::default();
            let count = parameter_count(reader)?;
            let mut seen = Vec::with_capacity(count.min(reader.remaining()));
            for _ in 0..count {
                let start = reader.offset();
                let id = reader.varint()?;
                // Unknown ids are skipped, yet even they may not repeat.
                if seen.contains(&id) {
                    return Err(DecodeError::new(Fault::ParameterRepeated, start));
                }
                seen.push(id);
                setup.set(id, reader.field()?)?;
            }
            Ok(setup)
        })
    }

    fn set(&mut self, id: u64, mut value: Reader<'_>) -> Result<(), DecodeError> {
        match id {
            PARAMETER_PROBE => {
                self.probe = match value.varint()? {
                    0 => ProbeLevel::None,
                    1 => ProbeLevel::Report,
                    // A level above the known ones includes them.
                    _ => ProbeLevel::Increase,
                }
            }
            PARAMETER_PATH => {
                let start = value.offset();
                let path =
                    std::str::from_utf8(value.bytes(value.remaining())?).map_err(|error| {
                        DecodeError::new(Fault::InvalidUtf8, start + error.valid_up_to())
                    })?;
                self.path = (!path.is_empty()).then(|| path.to_owned());
            }
            PARAMETER_ROLE => {
                self.role = match value.varint()? {
                    1 => Role::Publisher,
                    2 => Role::Subscriber,
                    _ => Role::Both,
                }
            }
            PARAMETER_COST => self.cost = Some(value.varint()?),
            PARAMETER_HOP => self.hop = value.varint()?,
            _ => return Ok(()),
        }
        value.finish()
    }

    /// Writes the parameters in ascending order and leaves out those that say nothing.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let probe = match self.probe {
            ProbeLevel::None => None,
            ProbeLevel::Report => Some(1),
            ProbeLevel::Increase => Some(2),
        };
        let path = self.path.as_deref().filter(|path| !path.is_empty());
        let role = match self.role {
            Role::Both => None,
            Role::Publisher => Some(1),
            Role::Subscriber => Some(2),
        };
        let hop = (self.hop != 0).then_some(self.hop);
        let numbers = [probe, role, self.cost, hop];

        encode_message(out, |out| {
            let count = numbers.iter().flatten().count() + usize::from(path.is_some());
            encode_varint(count as u64, out);
            encode_number(PARAMETER_PROBE, probe, out);
            if let Some(path) = path {
                encode_varint(PARAMETER_PATH, out);
                encode_bytes(path.as_bytes(), out);
            }
            encode_number(PARAMETER_ROLE, role, out);
            encode_number(PARAMETER_COST, self.cost, out);
            encode_number(PARAMETER_HOP, hop, out);
        });
    }
}

fn encode_number(id: u64, value: Option<u64>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        encode_varint(id, out);
        encode_varint(varint_len(value) as u64, out);
        encode_varint(value, out);
    }
}

// §1.8
/// The path and the query of a request target, split at the first `?`.
pub fn split_path_query(raw: &str) -> (&str, Option<&str>) {
    match raw.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (raw, None),
    }
}

fn parameter_count(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    count_up_to(SETUP_PARAMETERS_MAX, Fault::ParametersTooMany, reader)
}

fn count_up_to(limit: usize, fault: Fault, reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    let start = reader.offset();
    let count = reader.varint()?;
    if count > limit as u64 {
        return Err(DecodeError::new(fault, start));
    }
    Ok(count as usize)
}

// §1.5
/// The client's half of the legacy exchange (01, 02). The stream type comes before it, and its
/// length is two bytes rather than a varint.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ClientSetup {
    /// Version codes in the client's order of preference; see `Version::from_code`.
    pub versions: Vec<u64>,
    /// None of them matters to a lite session.
    pub parameters: Vec<LegacyParameter>,
}

impl ClientSetup {
    pub fn decode(body: &[u8]) -> Result<ClientSetup, DecodeError> {
        parse_body(body, |reader| {
            let count = count_up_to(LEGACY_VERSIONS_MAX, Fault::TooLarge, reader)?;
            let mut versions = Vec::with_capacity(count.min(reader.remaining()));
            for _ in 0..count {
                versions.push(reader.varint()?);
            }
            Ok(ClientSetup { versions, parameters: LegacyParameter::decode_list(reader)? })
        })
    }

    pub fn take(buf: &[u8]) -> Result<Option<(ClientSetup, usize)>, DecodeError> {
        take_legacy(buf, ClientSetup::decode)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_legacy(out, |out| {
            encode_varint(self.versions.len() as u64, out);
            for &version in &self.versions {
                encode_varint(version, out);
            }
            LegacyParameter::encode_list(&self.parameters, out);
        });
    }
}

// §1.5
/// The server's half of the legacy exchange (01, 02).
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ServerSetup {
    /// The code of the chosen version.
    pub version: u64,
    /// A lite server sends none.
    pub parameters: Vec<LegacyParameter>,
}

impl ServerSetup {
    /// The stream type that precedes the message.
    pub const TYPE: u64 = 0x21;

    pub fn decode(body: &[u8]) -> Result<ServerSetup, DecodeError> {
        parse_body(body, |reader| {
            let version = reader.varint()?;
            Ok(ServerSetup { version, parameters: LegacyParameter::decode_list(reader)? })
        })
    }

    pub fn take(buf: &[u8]) -> Result<Option<(ServerSetup, usize)>, DecodeError> {
        take_legacy(buf, ServerSetup::decode)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_legacy(out, |out| {
            encode_varint(self.version, out);
            LegacyParameter::encode_list(&self.parameters, out);
        });
    }
}

// §3.12
/// SESSION_INFO (01, 02), on the stream of the legacy exchange, in either direction.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct SessionInfo {
    /// Bits per second, 0 if unknown.
    pub bitrate: u64,
}

impl SessionInfo {
    pub fn take(buf: &[u8]) -> Result<Option<(SessionInfo, usize)>, DecodeError> {
        take_message(buf, |reader| Ok(SessionInfo { bitrate: reader.varint()? }))
    }
}

/// A parameter of the legacy exchange. The parity of the id decides the kind of value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LegacyParameter {
    /// `id` is even.
    Number { id: u64, value: u64 },
    /// `id` is odd.
    Bytes { id: u64, value: Vec<u8> },
}

impl LegacyParameter {
    fn decode_list(reader: &mut Reader<'_>) -> Result<Vec<LegacyParameter>, DecodeError> {
        let count = parameter_count(reader)?;
        let mut parameters = Vec::with_capacity(count.min(reader.remaining()));
        for _ in 0..count {
            let id = reader.varint()?;
            parameters.push(if id.is_multiple_of(2) {
                LegacyParameter::Number { id, value: reader.varint()? }
            } else {
                let mut field = reader.field()?;
                LegacyParameter::Bytes { id, value: field.bytes(field.remaining())?.to_vec() }
            });
        }
        Ok(parameters)
    }

    fn encode_list(parameters: &[LegacyParameter], out: &mut Vec<u8>) {
        encode_varint(parameters.len() as u64, out);
        for parameter in parameters {
            match parameter {
                LegacyParameter::Number { id, value } => {
                    debug_assert!(id.is_multiple_of(2), "a number at odd id {id}");
                    encode_varint(*id, out);
                    encode_varint(*value, out);
                }
                LegacyParameter::Bytes { id, value } => {
                    debug_assert!(!id.is_multiple_of(2), "bytes at even id {id}");
                    encode_varint(*id, out);
                    encode_bytes(value, out);
                }
            }
        }
    }
}

/// Two bytes of length cannot exceed the 64 KiB the reference allows.
fn take_legacy<T>(
    buf: &[u8],
    decode: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
) -> Result<Option<(T, usize)>, DecodeError> {
    let Some((length, rest)) = buf.split_first_chunk::<2>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes(*length));
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    Ok(Some((decode(body)?, 2 + length)))
}

fn encode_legacy(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    body(out);
    let length = out.len() - start - 2;
    debug_assert!(length <= usize::from(u16::MAX), "legacy setup of {length} bytes");
    out[start..start + 2].copy_from_slice(&(length as u16).to_be_bytes());
}
