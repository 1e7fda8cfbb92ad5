//! TLS of connections that come in: all of it for as long as they shake hands, and then no more than what is
//! still asked of it.
//!
//! What rustls keeps of a handshake that is over, its buffers and the keys of records that QUIC does not have,
//! is a fourth of what an idle connection costs.

use std::any::Any;
use std::io::Cursor;
use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use quinn_proto::crypto::rustls::{HandshakeData, NoInitialCipherSuite, QuicServerConfig};
use quinn_proto::crypto::{
    CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig,
    Session, UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, Side, TransportError, TransportErrorCode};
use rustls::AlertDescription;
use rustls::pki_types::CertificateDer;
use rustls::quic::{KeyChange, Secrets, ServerConnection, Version};

/// Begins sessions.
pub(super) struct Server {
    tls: Arc<rustls::ServerConfig>,
    /// What of QUIC's cryptography needs no session.
    quic: Arc<QuicServerConfig>,
}

impl Server {
    pub fn new(tls: Arc<rustls::ServerConfig>) -> Result<Server, NoInitialCipherSuite> {
        Ok(Server { quic: Arc::new(tls.clone().try_into()?), tls })
    }
}

impl ServerConfig for Server {
    fn initial_keys(&self, version: u32, cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.quic.initial_keys(version, cid)
    }

    fn retry_tag(&self, version: u32, first_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.quic.retry_tag(version, first_cid, packet)
    }

    fn start_session(
        self: Arc<Self>,
        version: u32,
        params: &TransportParameters,
    ) -> Box<dyn Session> {
        let mut bytes = Vec::new();
        params.write(&mut bytes);
        let tls = ServerConnection::new(self.tls.clone(), draft(version), bytes)
            .expect("TLS 1.3 without early data, as the configuration was made");
        Box::new(Incoming {
            server: self,
            version,
            has_told: false,
            secrets: None,
            tls: Tls::Handshake(Box::new(tls)),
        })
    }
}

/// Of the versions that have keys at all.
fn draft(version: u32) -> Version {
    match version {
        0xff00_001d..=0xff00_0020 => Version::V1Draft,
        _ => Version::V1,
    }
}

/// TLS of one connection.
struct Incoming {
    server: Arc<Server>,
    version: u32,
    /// That what the handshake has agreed on is known.
    has_told: bool,
    /// Of which the keys after the next ones are made.
    secrets: Option<Secrets>,
    tls: Tls,
}

enum Tls {
    Handshake(Box<ServerConnection>),
    Over(Agreed),
}

/// What a handshake has agreed on.
#[derive(Clone)]
struct Agreed {
    protocol: Option<Box<[u8]>>,
    server_name: Option<Box<str>>,
    /// The certificates that the client has shown.
    chain: Option<Box<[CertificateDer<'static>]>>,
}

impl Agreed {
    fn of(tls: &ServerConnection) -> Agreed {
        let chain = tls.peer_certificates();
        Agreed {
            protocol: tls.alpn_protocol().map(Box::from),
            server_name: tls.server_name().map(Box::from),
            chain: chain
                .map(|chain| chain.iter().map(|shown| shown.clone().into_owned()).collect()),
        }
    }
}

impl Incoming {
    fn agreed(&self) -> Agreed {
        match &self.tls {
            Tls::Handshake(tls) => Agreed::of(tls),
            Tls::Over(agreed) => agreed.clone(),
        }
    }
}

impl Session for Incoming {
    fn initial_keys(&self, cid: &ConnectionId, _: Side) -> Keys {
        let keys = self.server.quic.initial_keys(self.version, cid);
        keys.unwrap_or_else(|_| unreachable!("a session has begun in this version"))
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let Agreed { protocol, server_name, .. } = self.agreed();
        let data = HandshakeData {
            protocol: protocol.map(Vec::from),
            server_name: server_name.map(String::from),
        };
        self.has_told.then(|| Box::new(data) as Box<dyn Any>)
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.agreed().chain.map(|chain| Box::new(Vec::from(chain)) as Box<dyn Any>)
    }

    /// There is no early data.
    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        match &self.tls {
            Tls::Handshake(tls) => tls.is_handshaking(),
            Tls::Over(_) => false,
        }
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let Tls::Handshake(tls) = &mut self.tls else {
            // In QUIC clients have nothing to say in TLS after their handshake (RFC 9001 §4.1.3, §6).
            let code = TransportErrorCode::crypto(AlertDescription::UnexpectedMessage.into());
            return Err(failed(code, "TLS after the handshake".to_owned()));
        };
        tls.read_hs(bytes).map_err(|error| {
            let code = match tls.alert() {
                Some(alert) => TransportErrorCode::crypto(alert.into()),
                None => TransportErrorCode::PROTOCOL_VIOLATION,
            };
            failed(code, error.to_string())
        })?;
        let is_agreed =
            tls.alpn_protocol().is_some() || tls.server_name().is_some() || !tls.is_handshaking();
        Ok(is_agreed && !std::mem::replace(&mut self.has_told, true))
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Tls::Handshake(tls) = &self.tls else { return Ok(None) };
        let params = tls
            .quic_transport_parameters()
            .map(|bytes| TransportParameters::read(Side::Server, &mut Cursor::new(bytes)));
        params.transpose().map_err(TransportError::from)
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        let Tls::Handshake(tls) = &mut self.tls else { return None };
        let keys = match tls.write_hs(out) {
            Some(KeyChange::Handshake { keys }) => keys,
            Some(KeyChange::OneRtt { keys, next }) => {
                self.secrets = Some(next);
                keys
            }
            None => {
                // Tickets were the last that it had to say.
                if !tls.is_handshaking() {
                    self.tls = Tls::Over(Agreed::of(tls));
                }
                return None;
            }
        };
        let (local, remote) = (keys.local, keys.remote);
        Some(Keys {
            header: KeyPair { local: Box::new(local.header), remote: Box::new(remote.header) },
            packet: KeyPair { local: Box::new(local.packet), remote: Box::new(remote.packet) },
        })
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let secrets = self.secrets.as_mut()?;
        let before = secrets.clone();
        let remote = secrets.next_packet_keys().remote;
        let local = Later {
            secrets: before,
            confidentiality_limit: PacketKey::confidentiality_limit(&remote),
            key: OnceLock::new(),
        };
        Some(KeyPair { local: Box::new(local), remote: Box::new(remote) })
    }

    /// Nobody sends a server one.
    fn is_valid_retry(&self, _: &ConnectionId, _: &[u8], _: &[u8]) -> bool {
        false
    }

    /// Nothing of ours is made of that.
    fn export_keying_material(
        &self,
        _: &mut [u8],
        _: &[u8],
        _: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

fn failed(code: TransportErrorCode, reason: String) -> TransportError {
    TransportError { code, frame: None, reason }
}

/// A key that we send with after the next update of keys, which most connections never see: it is set up then.
/// The one that the peer sends with is there before, so that nobody sees by the time that a packet takes
/// whether keys are new (RFC 9001 §6.3).
struct Later {
    secrets: Secrets,
    confidentiality_limit: u64,
    key: OnceLock<Box<dyn PacketKey>>,
}

impl Later {
    fn key(&self) -> &dyn PacketKey {
        let key = || Box::new(self.secrets.clone().next_packet_keys().local) as Box<dyn PacketKey>;
        self.key.get_or_init(key).as_ref()
    }
}

impl PacketKey for Later {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        self.key().encrypt(packet, buf, header_len);
    }

    fn decrypt(
        &self,
        packet: u64,
        header: &[u8],
        payload: &mut BytesMut,
    ) -> Result<(), CryptoError> {
        self.key().decrypt(packet, header, payload)
    }

    fn tag_len(&self) -> usize {
        self.key().tag_len()
    }

    /// Asked before the key is needed.
    fn confidentiality_limit(&self) -> u64 {
        self.confidentiality_limit
    }

    fn integrity_limit(&self) -> u64 {
        self.key().integrity_limit()
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use rustls::quic::{ClientConnection, PacketKeySet};

    use super::*;
    use crate::config::{ConnectTls, IdentitySource};
    use crate::tls::{Identity, outgoing};

    const CID: &[u8] = &[7; 8];

    /// A client and a session that have shaken hands, and what either has to update its keys.
    fn established() -> (Box<dyn Session>, ClientConnection, Secrets) {
        let hosts = vec!["localhost".try_into().unwrap()];
        let source = IdentitySource::Generated { hosts };
        let identity = Identity::load(&source, &[], &[b"ours"]).unwrap();
        let server = Arc::new(Server::new(identity.config).unwrap());
        let params = TransportParameters::read(Side::Client, &mut Cursor::new(&[][..])).unwrap();
        let mut session = server.start_session(1, &params);

        let trust = ConnectTls { is_insecure: true, ..ConnectTls::default() };
        let mut tls = outgoing::dialling(&trust).unwrap();
        tls.alpn_protocols = vec![b"ours".to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let mut client =
            ClientConnection::new(Arc::new(tls), Version::V1, name, Vec::new()).unwrap();

        let mut next = None;
        while client.is_handshaking() || session.is_handshaking() {
            let mut bytes = Vec::new();
            while let Some(change) = client.write_hs(&mut bytes) {
                if let KeyChange::OneRtt { next: secrets, .. } = change {
                    next = Some(secrets);
                }
            }
            session.read_handshake(&bytes).unwrap();
            // What belongs to one level of encryption is read by itself.
            loop {
                let mut bytes = Vec::new();
                let has_keys = session.write_handshake(&mut bytes).is_some();
                if !bytes.is_empty() {
                    client.read_hs(&bytes).unwrap();
                }
                if !has_keys && bytes.is_empty() {
                    break;
                }
            }
        }
        (session, client, next.unwrap())
    }

    #[test]
    fn what_was_agreed_on_outlives_the_handshake() {
        let (mut session, ..) = established();
        assert!(session.transport_parameters().unwrap().is_none(), "TLS is still there");
        let agreed = session.handshake_data().unwrap().downcast::<HandshakeData>().ok().unwrap();
        assert_eq!(agreed.protocol.as_deref(), Some(&b"ours"[..]));
        assert_eq!(agreed.server_name.as_deref(), Some("localhost"));
        assert!(session.peer_identity().is_none());
        assert!(
            session.initial_keys(&ConnectionId::new(CID), Side::Server).packet.local.tag_len() > 0
        );

        // A KeyUpdate, which is what TLS over TCP would take.
        let error = session.read_handshake(&[24, 0, 0, 1, 0]).unwrap_err();
        assert_eq!(u64::from(error.code), 0x10a);
        let mut bytes = Vec::new();
        assert!(session.write_handshake(&mut bytes).is_none() && bytes.is_empty());
    }

    /// In any number of updates each end has the keys of the other, whenever its own are first used.
    #[test]
    fn keys_are_those_of_the_peer_after_every_update() {
        const HEAD: &[u8] = b"head";
        let (mut session, _, mut secrets) = established();
        let mut ours = Vec::new();
        let mut theirs: Vec<PacketKeySet> = Vec::new();
        for _ in 0..4 {
            ours.push(session.next_1rtt_keys().unwrap());
            theirs.push(secrets.next_packet_keys());
        }
        for (number, (ours, theirs)) in ours.iter().zip(&theirs).enumerate().rev() {
            let number = number as u64;
            let mut packet = [HEAD, b"to the client", &[0; 16]].concat();
            ours.local.encrypt(number, &mut packet, HEAD.len());
            let opened = theirs.remote.decrypt_in_place(number, HEAD, &mut packet[HEAD.len()..]);
            assert_eq!(opened.unwrap(), b"to the client");

            let mut packet = [HEAD, b"to the server", &[0; 16]].concat();
            PacketKey::encrypt(&theirs.local, number, &mut packet, HEAD.len());
            let mut payload = BytesMut::from(&packet[HEAD.len()..]);
            ours.remote.decrypt(number, HEAD, &mut payload).unwrap();
            assert_eq!(&payload[..], b"to the server");
            assert!(ours.remote.decrypt(number + 1, HEAD, &mut payload).is_err());

            let limit = PacketKey::confidentiality_limit(&theirs.local);
            assert_eq!(ours.local.confidentiality_limit(), limit);
        }
    }
}
