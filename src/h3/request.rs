//! The request that opens a session, and its answer (spec §7.1, §1.3): theirs, and where this relay dials ours.

use std::fmt;

use bytes::Bytes;
use url::Url;
use web_transport_proto::{ConnectError, ConnectRequest, ConnectResponse, Frame, http::StatusCode};

use super::{Code, Violation};
use crate::wire::encode_varint;

/// A client wants a session.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Path and query, as they are in the URL. There may be secrets in it.
    pub target: String,
    /// The protocols that the client offers, in its order of preference.
    pub protocols: Vec<String>,
    /// Where the page comes from that asks, if one does.
    pub origin: Option<String>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (protocols, origin) = (&self.protocols, &self.origin);
        f.debug_struct("Request")
            .field("protocols", protocols)
            .field("origin", origin)
            .finish_non_exhaustive()
    }
}

/// What a field section asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    Session(Request),
    /// Something else: the status that says so.
    Other(Status),
}

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Malformed,
    /// The client may not be at this path, or does not show that it may.
    Unauthorized,
    /// The page may not use the relay.
    Forbidden,
    /// A method other than CONNECT.
    MethodNotAllowed,
    /// This connection has a session, or this client as many as it may.
    TooManyRequests,
    FieldsTooLarge,
    /// There is no room, or the relay ends.
    Unavailable,
}

impl Status {
    pub fn code(self) -> StatusCode {
        match self {
            Status::Malformed => StatusCode::BAD_REQUEST,
            Status::Unauthorized => StatusCode::UNAUTHORIZED,
            Status::Forbidden => StatusCode::FORBIDDEN,
            Status::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Status::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Status::FieldsTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Status::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

const MALFORMED: Violation =
    Violation::new(Code::QPACK_DECOMPRESSION_FAILED, "malformed field section");

/// The library reads whole frames.
fn frame(fields: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(fields.len() + 8);
    encode_varint(Frame::HEADERS.0.into_inner(), &mut frame);
    encode_varint(fields.len() as u64, &mut frame);
    frame.extend_from_slice(fields);
    frame
}

/// Reads the field section of a HEADERS frame.
pub fn read(fields: &[u8]) -> Result<Asked, Violation> {
    let request = match ConnectRequest::decode(&mut &frame(fields)[..]) {
        Ok(request) => request,
        Err(ConnectError::QpackError(_)) => return Err(MALFORMED),
        Err(ConnectError::FieldSectionTooLarge) => return Ok(Asked::Other(Status::FieldsTooLarge)),
        Err(ConnectError::WrongMethod(Some(_))) => {
            return Ok(Asked::Other(Status::MethodNotAllowed));
        }
        Err(_) => return Ok(Asked::Other(Status::Malformed)),
    };
    // What is no text, or more than one, is no origin that anybody names.
    let origins = request.headers.get_all("origin").into_iter();
    let origins: Vec<_> =
        origins.map(|origin| String::from_utf8_lossy(origin.as_bytes())).collect();
    let mut target = request.url.path().to_owned();
    if let Some(query) = request.url.query() {
        target.push('?');
        target.push_str(query);
    }
    Ok(Asked::Session(Request {
        target,
        protocols: request.protocols,
        origin: (!origins.is_empty()).then(|| origins.join(" ")),
    }))
}

/// HEADERS that ask for a session at an `https` URL, in one of these protocols.
pub fn ask(url: &Url, protocols: impl IntoIterator<Item = String>) -> Bytes {
    let mut out = Vec::new();
    let request = ConnectRequest::new(url.clone()).with_protocols(protocols);
    // A parsed URL and names of ours are ASCII.
    request.encode(&mut out).expect("a field section of ASCII");
    out.into()
}

/// What our request was answered with: the protocol of the session, if one is named, or why there is none.
pub fn read_answer(fields: &[u8]) -> Result<Result<Option<String>, StatusCode>, Violation> {
    match ConnectResponse::decode(&mut &frame(fields)[..]) {
        Ok(response) => Ok(Ok(response.protocol)),
        Err(ConnectError::WrongStatus(Some(status))) => Ok(Err(status)),
        Err(ConnectError::QpackError(_)) => Err(MALFORMED),
        Err(_) => Err(Violation::new(Code::MESSAGE_ERROR, "malformed answer")),
    }
}

/// HEADERS that accept a session, and name the protocol if one was offered.
pub fn accept(protocol: Option<&str>) -> Bytes {
    let response = ConnectResponse::OK;
    encode(match protocol {
        Some(protocol) => response.with_protocol(protocol),
        None => response,
    })
}

/// HEADERS that refuse a request.
pub fn refuse(status: Status) -> Bytes {
    encode(ConnectResponse::new(status.code()))
}

fn encode(response: ConnectResponse) -> Bytes {
    let mut out = Vec::new();
    // What we name is plain ASCII, and far from the size limit: the two ways in which it fails.
    response.encode(&mut out).expect("a short field section of ASCII");
    out.into()
}
