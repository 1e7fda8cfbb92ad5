//! Frames of a group as they are stored, without their headers.

use bytes::{Buf, Bytes};

use crate::wire::decode_varint;

/// Takes the headers out of the pieces of one group, which pass through as they come.
#[derive(Debug, Default)]
pub struct Payloads {
    /// Bytes of the present frame that are still to come.
    left: u64,
}

/// A piece that ends in the middle of a header, which stored ones never do.
#[derive(Debug, PartialEq, Eq)]
pub struct CutHeader;

impl Payloads {
    /// The payload in the next piece, uncopied.
    pub fn strip(
        &mut self,
        mut piece: Bytes,
        out: &mut impl Extend<Bytes>,
    ) -> Result<(), CutHeader> {
        while !piece.is_empty() {
            if self.left == 0 {
                let (_delta, first) = decode_varint(&piece).ok_or(CutHeader)?;
                let (size, second) = decode_varint(&piece[first..]).ok_or(CutHeader)?;
                piece.advance(first + second);
                self.left = size;
            }
            let here = self.left.min(piece.len() as u64);
            self.left -= here;
            if here > 0 {
                out.extend([piece.split_to(here as usize)]);
            }
        }
        Ok(())
    }

    /// Whether a group that ends here ends with a whole frame.
    pub fn at_boundary(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three frames: "hello" after a delta of two bytes, an empty one, and 70 bytes.
    fn stored() -> Vec<u8> {
        let mut stored = b"\x40\x02\x05hello\x02\x00\x04\x40\x46".to_vec();
        stored.extend([b'x'; 70]);
        stored
    }

    #[track_caller]
    fn check(pieces: &[&[u8]], expect: Result<(&str, bool), CutHeader>) {
        let (mut payloads, mut out) = (Payloads::default(), Vec::new());
        let stripped = pieces
            .iter()
            .try_for_each(|piece| payloads.strip(Bytes::copy_from_slice(piece), &mut out));
        let text = String::from_utf8(out.concat()).unwrap();
        assert_eq!(stripped.map(|()| (text.as_str(), payloads.at_boundary())), expect);
    }

    #[test]
    fn payload_is_what_remains() {
        let all = format!("hello{}", "x".repeat(70));
        check(&[&stored()], Ok((&all, true)));
        check(&[], Ok(("", true)));
        check(&[b"\x00\x00\x00\x00"], Ok(("", true)));
    }

    #[test]
    fn a_piece_may_end_anywhere_in_a_payload() {
        let (stored, all) = (stored(), format!("hello{}", "x".repeat(70)));
        // Behind "\x40\x02\x05", and from the last frame's header on.
        for cut in (3..=8).chain(13..stored.len()) {
            check(&[&stored[..cut], &stored[cut..]], Ok((&all, true)));
        }
        check(&[&stored[..6]], Ok(("hel", false)));
        check(&[&stored[..stored.len() - 1]], Ok((&all[..all.len() - 1], false)));
    }

    #[test]
    fn a_cut_header_is_an_error() {
        let stored = stored();
        for cut in [1, 2, 9, 11, 12] {
            check(&[&stored[..cut]], Err(CutHeader));
        }
    }
}
