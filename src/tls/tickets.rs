//! Session tickets that outlast the process: who comes again to the process that has taken over from another, or
//! to one that was started again, needs no certificate and no signature of it. All come at once then.
//!
//! The library's own ticketer makes keys that it gives to nobody. Here they are of a secret and of the time, so
//! that nothing has to be kept but the secret.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use rustls::server::ProducesTickets;

use crate::limits::{TICKET_KEY_LIFETIME, TICKET_LIFETIME};

const KEY_BYTES: usize = 32;

/// The number of the span of time that a ticket is of, before what is encrypted.
const SPAN_BYTES: usize = size_of::<u64>();

/// The tickets of one kind of listener: those of others are none here.
pub struct Tickets {
    secret: Prk,
    listener: &'static [u8],
}

impl Tickets {
    pub fn new(secret: &[u8; KEY_BYTES], listener: &'static str) -> Tickets {
        let secret = Salt::new(HKDF_SHA256, b"shardcast tickets").extract(secret);
        Tickets { secret, listener: listener.as_bytes() }
    }

    fn key(&self, span: u64) -> Option<RandomizedNonceKey> {
        let mut key = [0; KEY_BYTES];
        let span = span.to_be_bytes();
        let info = [&span[..], self.listener];
        self.secret.expand(&info, KeyBytes).ok()?.fill(&mut key).ok()?;
        RandomizedNonceKey::new(&AES_256_GCM, &key).ok()
    }

    fn seal(&self, span: u64, plain: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = plain.to_vec();
        let nonce = self.key(span)?.seal_in_place_append_tag(Aad::empty(), &mut sealed).ok()?;
        Some([&span.to_be_bytes()[..], nonce.as_ref(), &sealed].concat())
    }

    fn open(&self, now: u64, ticket: &[u8]) -> Option<Vec<u8>> {
        let (span, rest) = ticket.split_first_chunk::<SPAN_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let span = u64::from_be_bytes(*span);
        // One from ahead is of a process whose clock was another.
        if span.abs_diff(now) > 1 {
            return None;
        }
        let mut plain = sealed.to_vec();
        let opened = self.key(span)?.open_in_place(nonce.into(), Aad::empty(), &mut plain).ok()?;
        let bytes = opened.len();
        plain.truncate(bytes);
        Some(plain)
    }
}

/// The number of the span of time that is now.
fn span() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() / TICKET_KEY_LIFETIME.as_secs()
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        TICKET_LIFETIME.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(span(), plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(span(), ticket)
    }
}

/// What is secret is not shown.
impl fmt::Debug for Tickets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tickets")
    }
}

struct KeyBytes;

impl KeyType for KeyBytes {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] = b"what a session was";

    #[test]
    fn tickets_outlast_the_process() {
        let ticket = Tickets::new(&[1; 32], "quic").encrypt(PLAIN).unwrap();
        assert_eq!(Tickets::new(&[1; 32], "quic").decrypt(&ticket).unwrap(), PLAIN);
        assert!(!ticket.windows(PLAIN.len()).any(|some| some == PLAIN));
    }

    #[test]
    fn tickets_of_others_are_none() {
        let ticket = Tickets::new(&[1; 32], "quic").encrypt(PLAIN).unwrap();
        assert_eq!(Tickets::new(&[2; 32], "quic").decrypt(&ticket), None);
        assert_eq!(Tickets::new(&[1; 32], "https").decrypt(&ticket), None);
        for at in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[at] ^= 1;
            assert_eq!(Tickets::new(&[1; 32], "quic").decrypt(&forged), None, "byte {at}");
            assert_eq!(Tickets::new(&[1; 32], "quic").decrypt(&ticket[..at]), None, "{at} bytes");
        }
    }

    #[test]
    fn tickets_end() {
        let tickets = Tickets::new(&[1; 32], "quic");
        let ticket = tickets.seal(7, PLAIN).unwrap();
        for (now, is_good) in [(5, false), (6, true), (7, true), (8, true), (9, false)] {
            assert_eq!(tickets.open(now, &ticket).is_some(), is_good, "span {now}");
        }
        // In one span and the next.
        assert!(TICKET_LIFETIME <= TICKET_KEY_LIFETIME);
    }
}
