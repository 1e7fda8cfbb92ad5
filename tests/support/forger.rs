//! Initial packets that authenticate, and that anybody can make: of somebody who never means to connect.

use std::net::SocketAddr;

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic;
use shardcast::wire::encode_varint;

/// What a server takes as a first datagram (RFC 9000 §14.1).
const INITIAL_BYTES_MIN: usize = 1200;

pub const PING: &[u8] = &[0x01];

/// The first bits of a Retry packet, and the bytes of the tag at its end (RFC 9000 §17.2.5).
pub const RETRY: u8 = 0xf0;
const RETRY_TAG_BYTES: usize = 16;

/// What protects the Initial packets of those who send to this connection ID.
fn keys(cid: &[u8]) -> quic::Keys {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().and_then(|suite| suite.quic_suite());
    let suite = suite.expect("the suite of every Initial");
    suite.keys(cid, rustls::Side::Client, quic::Version::V1)
}

pub struct Forger {
    pub address: SocketAddr,
    cid: [u8; 8],
    /// Of the relay, as far as it is known.
    peer_cid: Vec<u8>,
    token: Vec<u8>,
    keys: quic::Keys,
}

impl Forger {
    pub fn new(index: usize) -> Forger {
        let cid = (index as u64).to_be_bytes();
        Forger {
            address: ([10, 2, (index >> 8) as u8, index as u8], 5000).into(),
            cid,
            peer_cid: cid.to_vec(),
            token: Vec::new(),
            keys: keys(&cid),
        }
    }

    /// Takes the token from a Retry packet (RFC 9000 §17.2.5).
    pub fn heed(&mut self, retry: &[u8]) {
        let after_version = &retry[5..];
        let (own, rest) = after_version.split_at(1 + usize::from(after_version[0]));
        assert_eq!(own[1..], self.cid);
        let (peer, rest) = rest.split_at(1 + usize::from(rest[0]));
        self.peer_cid = peer[1..].to_vec();
        self.token = rest[..rest.len() - RETRY_TAG_BYTES].to_vec();
        self.keys = keys(&self.peer_cid);
    }

    /// A datagram with one Initial that authenticates (RFC 9000 §17.2.2, RFC 9001 §5).
    pub fn initial(&self, number: u32, bits: u8, frames: &[u8]) -> Vec<u8> {
        let quic::DirectionalKeys { header: header_key, packet: packet_key } = &self.keys.local;
        let number_bytes = number.to_be_bytes();
        let length = number_bytes.len() + frames.len() + packet_key.tag_len();
        // Fixed bit, Initial, a packet number of four bytes; version 1.
        let mut datagram = vec![0xc3 | bits, 0, 0, 0, 1];
        for cid in [&self.peer_cid[..], &self.cid] {
            datagram.push(cid.len() as u8);
            datagram.extend(cid);
        }
        encode_varint(self.token.len() as u64, &mut datagram);
        datagram.extend(&self.token);
        encode_varint(length as u64, &mut datagram);
        let number_at = datagram.len();
        datagram.extend(number_bytes);

        let mut payload = frames.to_vec();
        let tag = packet_key.encrypt_in_place(number.into(), &datagram, &mut payload);
        datagram.extend(payload);
        datagram.extend(tag.expect("a short packet").as_ref());

        let (first, rest) = datagram.split_first_mut().expect("a header");
        let (number, sample) = rest[number_at - 1..].split_at_mut(number_bytes.len());
        let sample = &sample[..header_key.sample_len()];
        header_key.encrypt_in_place(sample, first, number).expect("a sample");
        // Behind the packet and not within: no PADDING frame, so that empty is empty.
        datagram.resize(INITIAL_BYTES_MIN, 0);
        datagram
    }
}
