//! What precedes a group's frames on a stream: read once where it comes in, written for those viewers
//! whose subscription has another number or version than the last one's.

use bytes::Bytes;
use shardcast::wire::{
    DecodeError, GroupHeader, UniType, Version, decode_varint, encode_varint, split_message,
};

/// What a unidirectional stream of a client turns out to be, and the bytes that told so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UniHead {
    Group(GroupHeader, usize),
    /// SETUP, with its body.
    Setup(Vec<u8>),
    Unknown,
}

/// None while bytes are missing.
pub fn take(version: Version, buf: &[u8]) -> Result<Option<UniHead>, DecodeError> {
    let Some((kind, used)) = decode_varint(buf) else { return Ok(None) };
    let rest = &buf[used..];
    match UniType::from_u64(kind) {
        Some(UniType::Group) => {
            let header = GroupHeader::take(version, rest)?;
            Ok(header.map(|(header, len)| UniHead::Group(header, used + len)))
        }
        Some(UniType::Setup) => {
            let body = split_message(rest, shardcast::wire::CONTROL_MESSAGE_BYTES_MAX)?;
            Ok(body.map(|(body, _)| UniHead::Setup(body.to_vec())))
        }
        None => Ok(Some(UniHead::Unknown)),
    }
}

/// Heads of one group's copies, of which neighbours often need the same.
pub struct Heads {
    sequence: u64,
    frame_start: u64,
    last: Option<(Version, u64, Bytes)>,
}

impl Heads {
    pub fn of(header: GroupHeader) -> Heads {
        Heads { sequence: header.sequence, frame_start: header.frame_start, last: None }
    }

    pub fn for_viewer(&mut self, version: Version, subscribe_id: u64) -> Bytes {
        if let Some((last, id, head)) = &self.last
            && (*last, *id) == (version, subscribe_id)
        {
            return head.clone();
        }
        let Heads { sequence, frame_start, .. } = *self;
        let mut head = Vec::with_capacity(16);
        encode_varint(UniType::Group as u64, &mut head);
        GroupHeader { subscribe_id, sequence, frame_start }.encode(version, &mut head);
        let head = Bytes::from(head);
        self.last = Some((version, subscribe_id, head.clone()));
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardcast::wire::Setup;

    fn group(version: Version, header: GroupHeader) -> Vec<u8> {
        Heads::of(header).for_viewer(version, header.subscribe_id).to_vec()
    }

    #[test]
    fn a_group_is_known_by_its_whole_head() {
        for version in [Version::Lite05, Version::Lite06] {
            let header = GroupHeader { subscribe_id: 70, sequence: 20_000, frame_start: 0 };
            let mut bytes = group(version, header);
            let whole = bytes.len();
            for end in 0..whole {
                assert_eq!(take(version, &bytes[..end]).unwrap(), None);
            }
            bytes.extend_from_slice(b"frames");
            assert_eq!(take(version, &bytes).unwrap(), Some(UniHead::Group(header, whole)));
        }
    }

    #[test]
    fn setup_and_strangers() {
        let mut bytes = Vec::new();
        encode_varint(UniType::Setup as u64, &mut bytes);
        Setup::default().encode(&mut bytes);
        let Ok(Some(UniHead::Setup(body))) = take(Version::Lite06, &bytes) else {
            panic!("a SETUP");
        };
        assert_eq!(Setup::decode(&body), Ok(Setup::default()));
        assert_eq!(take(Version::Lite06, &[0x3f]).unwrap(), Some(UniHead::Unknown));
        // A header that says it is longer than any is refused before it has come.
        assert!(take(Version::Lite06, &[0, 0x3f]).is_err());
    }

    #[test]
    fn equal_neighbours_share_a_head() {
        let header = GroupHeader { subscribe_id: 9, sequence: 5, frame_start: 0 };
        let mut heads = Heads::of(header);
        let first = heads.for_viewer(Version::Lite06, 0);
        assert_eq!(heads.for_viewer(Version::Lite06, 0).as_ptr(), first.as_ptr());
        assert_ne!(heads.for_viewer(Version::Lite06, 1), first);
        // Without the frame that a group begins with, which older versions do not state.
        assert_eq!(heads.for_viewer(Version::Lite05, 1).len(), first.len() - 1);
    }
}
