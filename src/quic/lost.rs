//! Why a connection is over, in words and for whoever dials again.

use quinn_proto::ConnectionError;

use super::{Cause, Event};
use crate::wire::SessionCode;

pub(super) fn lost(reason: &ConnectionError) -> Event {
    Event::Lost { cause: cause(reason), reason: words(reason) }
}

/// What a connection ended by: an alert of TLS (RFC 9001 §4.8), or a word of the peer.
fn cause(reason: &ConnectionError) -> Cause {
    const DENIED: SessionCode = SessionCode::UNAUTHORIZED;
    let code = match reason {
        ConnectionError::TransportError(error) => error.code,
        ConnectionError::ConnectionClosed(close) => close.error_code,
        ConnectionError::ApplicationClosed(close) => {
            let code = close.error_code.into_inner();
            let is_denied = code == DENIED.0 || code == DENIED.to_http3();
            return if is_denied { Cause::Denied } else { Cause::Other };
        }
        _ => return Cause::Other,
    };
    if (0x100..0x200).contains(&u64::from(code)) { Cause::Tls } else { Cause::Other }
}

/// Why a connection is over. A code that the peer has sent as WebTransport maps them is named as the session's own.
fn words(reason: &ConnectionError) -> String {
    match reason {
        ConnectionError::ApplicationClosed(close)
            if let Some(code) = SessionCode::from_http3(close.error_code.into_inner()) =>
        {
            match String::from_utf8_lossy(&close.reason) {
                said if said.is_empty() => format!("closed by peer: {}", code.0),
                said => format!("closed by peer: {said} (code {})", code.0),
            }
        }
        _ => reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use quinn_proto::{ApplicationClose, VarInt};

    use super::*;

    #[test]
    fn codes_are_named_as_the_sessions_own_however_they_were_sent() {
        let closed = |code: u64, reason: &'static str| {
            let error_code = VarInt::from_u64(code).unwrap();
            words(&ConnectionError::ApplicationClosed(ApplicationClose {
                error_code,
                reason: reason.into(),
            }))
        };
        let stopped = SessionCode(16);
        assert_eq!(closed(stopped.0, "stopped"), "closed by peer: stopped (code 16)");
        assert_eq!(closed(stopped.to_http3(), "stopped"), "closed by peer: stopped (code 16)");
        assert_eq!(closed(stopped.to_http3(), ""), "closed by peer: 16");
        assert_eq!(words(&ConnectionError::TimedOut), "timed out");
    }
}
