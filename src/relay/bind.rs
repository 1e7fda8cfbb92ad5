//! The sockets of all shards and the listeners beside them: bound, or taken from a process before this one.

use std::net::{SocketAddr, TcpListener};
use std::time::Instant;

use super::StartError;
use crate::config::{Config, WebListen};
use crate::estate::{self, Inherited};
use crate::limits::{PORT_WAIT, PORT_WAIT_MAX, SAME_PORT_TRIES_MAX};
use crate::net::{BindError, Rows};
use crate::store;
use crate::web;

/// What is bound, or was by a process before this one.
pub(super) struct Bound {
    pub rows: Rows,
    pub http: Option<TcpListener>,
    pub https: Option<TcpListener>,
}

/// The sockets of all shards and the listeners for HTTP and HTTPS. Where UDP and TCP are to have the same port
/// and the kernel chooses it, one that is free for UDP may be taken for TCP.
pub(super) fn bind(
    config: &Config,
    shards: usize,
    inherited: &mut Inherited,
) -> Result<Bound, StartError> {
    if let Some(rows) = inherited.rows.take() {
        let (address, wanted) = (rows.address(), config.listen);
        let is_there = address.ip() == wanted.ip() && [0, address.port()].contains(&wanted.port());
        if is_there && rows.shards() == shards {
            let [http, https] = listen(config, address, inherited)?;
            return Ok(Bound { rows, http, https });
        }
        if inherited.is_shared {
            let before = (address, rows.shards());
            return Err(StartError::Moved { before, after: (wanted, shards) });
        }
        // Who keeps them has to let go of them too.
        store::forget_sockets(2 * rows.shards());
    }
    let mut tries = 1;
    let begun = Instant::now();
    loop {
        let rows = match Rows::bind(config.listen, shards) {
            // By a relay that has just ended, as it may be.
            Err(BindError::PortTaken(_)) if begun.elapsed() < PORT_WAIT_MAX => {
                std::thread::sleep(PORT_WAIT);
                continue;
            }
            rows => rows?,
        };
        let is_same = [config.web.http, config.web.https].contains(&Some(WebListen::Same));
        let is_chosen = is_same && config.listen.port() == 0;
        match listen(config, rows.address(), inherited) {
            Err(web::ListenError::PortTaken { .. }) if is_chosen && tries < SAME_PORT_TRIES_MAX => {
                tries += 1;
            }
            both => {
                let [http, https] = both?;
                return Ok(Bound { rows, http, https });
            }
        }
    }
}

/// The listeners for HTTP and HTTPS.
fn listen(
    config: &Config,
    quic: SocketAddr,
    inherited: &mut Inherited,
) -> Result<[Option<TcpListener>; 2], web::ListenError> {
    let mut listen = |listen: Option<WebListen>, name, flag| {
        let address = match listen {
            None => return Ok(None),
            Some(WebListen::Same) => quic,
            Some(WebListen::At(address)) => address,
        };
        let inherited = inherited.listener(name, address);
        inherited.map_or_else(|| web::listen(address, flag), Ok).map(Some)
    };
    let http = listen(config.web.http, estate::HTTP, "--web-http-listen")?;
    Ok([http, listen(config.web.https, estate::HTTPS, "--web-https-listen")?])
}

/// The listeners that there are once more, by the names under which the next process knows them.
pub(super) fn copies(
    http: &Option<TcpListener>,
    https: &Option<TcpListener>,
    internal: &Option<TcpListener>,
) -> std::io::Result<Vec<(String, TcpListener)>> {
    let named = [(estate::HTTP, http), (estate::HTTPS, https), (estate::INTERNAL, internal)];
    let named = named.into_iter().filter_map(|(name, listener)| Some((name, listener.as_ref()?)));
    let copy =
        |(name, listener): (&str, &TcpListener)| Ok((name.to_owned(), listener.try_clone()?));
    named.map(copy).collect()
}
