//! A connection of QUIC, as quinn-proto has it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto as proto;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, Dir, VarInt};
use shardcast::net::Ecn;

use super::super::network::Random;
use super::conn::{Event, Written};
use super::{End, Spec, address_of};

/// Connection ids of a client, which the relay never looks into.
struct Cids(Random);

impl ConnectionIdGenerator for Cids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut cid = [0; 8];
        self.0.fill(&mut cid);
        ConnectionId::new(&cid)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

pub(super) struct Quic {
    relay: SocketAddr,
    endpoint: proto::Endpoint,
    handle: proto::ConnectionHandle,
    conn: proto::Connection,
}

fn stream(id: u64) -> proto::StreamId {
    number(id).into()
}

fn number(number: u64) -> VarInt {
    VarInt::from_u64(number).expect("a stream id, or a code")
}

impl Quic {
    pub fn connect(
        spec: &Spec,
        tls: Arc<rustls::ClientConfig>,
        seed: u64,
        shards: usize,
        now: Instant,
    ) -> Quic {
        let relay = address_of(spec.relay);
        let mut random = Random::new(seed);
        let cid_seed = random.next();
        let reset = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[1; 32]);
        let mut endpoint = proto::EndpointConfig::new(Arc::new(reset));
        let mut rng_seed = [0; 32];
        random.fill(&mut rng_seed);
        endpoint.rng_seed(Some(rng_seed));
        endpoint.cid_generator(move || Box::new(Cids(Random::new(cid_seed))));
        let mut endpoint = proto::Endpoint::new(Arc::new(endpoint), None, true, None);

        let crypto =
            proto::crypto::rustls::QuicClientConfig::try_from(tls).expect("the suites of TLS 1.3");
        let mut client = proto::ClientConfig::new(Arc::new(crypto));
        let mut first = [0; 16];
        random.fill(&mut first);
        // The largest multiple below 256 keeps every shard reachable.
        let (shard, shards) = (spec.shard as u64, shards as u64);
        first[0] = (shard + shards * random.below((256 - shard).div_ceil(shards))) as u8;
        client.initial_dst_cid_provider(Arc::new(move || ConnectionId::new(&first)));
        client.token_store(Arc::new(proto::NoneTokenStore));
        let mut transport = proto::TransportConfig::default();
        transport
            .max_idle_timeout(Some(VarInt::from_u32(30_000).into()))
            // One carries SETTINGS.
            .max_concurrent_uni_streams((spec.uni_streams + u32::from(spec.web.is_some())).into())
            .max_concurrent_bidi_streams(spec.bidi_streams.into())
            .stream_receive_window(spec.window.into())
            .receive_window(spec.window.into())
            .keep_alive_interval(Some(Duration::from_secs(3)))
            .mtu_discovery_config(None);
        if spec.is_swift {
            let mut congestion = proto::congestion::CubicConfig::default();
            congestion.initial_window(16 << 20);
            transport.congestion_controller_factory(Arc::new(congestion));
        }
        client.transport_config(Arc::new(transport));
        let (handle, conn) =
            endpoint.connect(now, client, relay, "relay.test").expect("a valid name");
        Quic { relay, endpoint, handle, conn }
    }

    pub fn datagram(&mut self, now: Instant, data: &[u8], ecn: Option<Ecn>) {
        let mut answer = Vec::new();
        let data = BytesMut::from(data);
        let ecn = ecn.and_then(|ecn| proto::EcnCodepoint::from_bits(ecn.bits()));
        let event = self.endpoint.handle(now, self.relay, None, ecn, data, &mut answer);
        if let Some(proto::DatagramEvent::ConnectionEvent(_, event)) = event {
            self.conn.handle_event(event);
        }
    }

    pub fn close(&mut self, now: Instant, with: u64) {
        self.conn.close(now, number(with), Bytes::from_static(b"bye"));
    }

    pub fn poll(&mut self) -> Option<Event> {
        while let Some(event) = self.conn.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.conn.handle_event(event);
            }
        }
        loop {
            let known = |id: proto::StreamId| VarInt::from(id).into_inner();
            return Some(match self.conn.poll()? {
                proto::Event::Connected => Event::Connected,
                proto::Event::ConnectionLost { reason } => {
                    let with = match &reason {
                        proto::ConnectionError::ApplicationClosed(close) => {
                            Some(close.error_code.into_inner())
                        }
                        _ => None,
                    };
                    Event::Lost(reason.to_string(), with)
                }
                proto::Event::Stream(proto::StreamEvent::Readable { id }) => {
                    Event::Readable(known(id))
                }
                proto::Event::Stream(proto::StreamEvent::Writable { id }) => {
                    Event::Writable(known(id))
                }
                proto::Event::Stream(proto::StreamEvent::Finished { id }) => {
                    Event::Finished(known(id))
                }
                proto::Event::Stream(proto::StreamEvent::Stopped { id, error_code }) => {
                    Event::Stopped(known(id), error_code.into_inner())
                }
                proto::Event::DatagramReceived => Event::Datagrams,
                _ => continue,
            });
        }
    }

    pub fn next_timer(&mut self) -> Option<Instant> {
        self.conn.poll_timeout()
    }

    pub fn timeout(&mut self, now: Instant) {
        self.conn.handle_timeout(now);
    }

    pub fn transmit(&mut self, now: Instant) -> Option<(Vec<u8>, Option<Ecn>)> {
        let mut buf = Vec::new();
        let transmit = self.conn.poll_transmit(now, 1, &mut buf)?;
        buf.truncate(transmit.size);
        Some((buf, transmit.ecn.and_then(|ecn| Ecn::from_bits(ecn as u8))))
    }

    pub fn open(&mut self, dir: Dir) -> Option<u64> {
        Some(VarInt::from(self.conn.streams().open(dir)?).into_inner())
    }

    pub fn accept(&mut self, dir: Dir) -> Option<u64> {
        Some(VarInt::from(self.conn.streams().accept(dir)?).into_inner())
    }

    pub fn read(&mut self, id: u64, into: &mut BytesMut) -> Option<Option<End>> {
        let mut recv = self.conn.recv_stream(stream(id));
        let mut chunks = recv.read(true).ok()?;
        let end = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => into.extend_from_slice(&chunk.bytes),
                Ok(None) => break Some(End::Finished),
                Err(proto::ReadError::Blocked) => break None,
                Err(proto::ReadError::Reset(code)) => break Some(End::Reset(code.into_inner())),
            }
        };
        let _ = chunks.finalize();
        Some(end)
    }

    pub fn write(&mut self, id: u64, bytes: &[u8]) -> Written {
        match self.conn.send_stream(stream(id)).write(bytes) {
            Ok(taken) => Written::Taken(taken),
            Err(proto::WriteError::Blocked) => Written::Blocked,
            Err(_) => Written::Gone,
        }
    }

    pub fn finish(&mut self, id: u64) {
        let _ = self.conn.send_stream(stream(id)).finish();
    }

    pub fn reset(&mut self, id: u64, with: u64) {
        let _ = self.conn.send_stream(stream(id)).reset(number(with));
    }

    pub fn stop(&mut self, id: u64, with: u64) {
        let _ = self.conn.recv_stream(stream(id)).stop(number(with));
    }

    pub fn yields(&mut self, id: u64) {
        let _ = self.conn.send_stream(stream(id)).set_priority(-1);
    }

    pub fn grant_uni(&mut self, count: u32) {
        self.conn.set_max_concurrent_streams(Dir::Uni, count.into());
    }

    pub fn send_datagram(&mut self, datagram: Bytes) {
        // Whether there is room for it is of no interest.
        let _ = self.conn.datagrams().send(datagram, true);
    }

    pub fn recv_datagram(&mut self) -> Option<Bytes> {
        self.conn.datagrams().recv()
    }
}
