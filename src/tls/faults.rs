//! Why a handshake has failed, for whoever is to mend it: whose certificate it is about, and which setting.
//! TLS and QUIC say it in words of theirs alone, which are read here; words that are not known are left as they are.

/// What the peer has found wrong, and not this relay.
const BY_PEER: &str = "aborted by peer: ";
const FAILED: &str = "the cryptographic handshake failed: error ";
const CERTIFICATE: &str = "invalid peer certificate: ";

/// How a certificate is told that is none of those with a fingerprint, with its own in quotation marks behind it.
pub const NOT_PINNED: &str = "NotPinned";

/// Of a connection that this relay has begun.
pub fn of_server(reason: &str) -> String {
    let Some(fault) = Fault::read(reason) else { return reason.to_owned() };
    let Fault { is_by_peer, why } = fault;
    if is_by_peer {
        return format!(
            "it does not take our certificate ({why}); see --connect-tls-cert, and its --listen-tls-root"
        );
    }
    if let Some((_, shown)) = why.split_once(NOT_PINNED) {
        let shown = shown.split('"').nth(1).unwrap_or_default();
        return format!("its certificate has the SHA-256 {shown}; see --connect-tls-fingerprint");
    }
    if let Some((_, rest)) = why.split_once("not valid for name ") {
        let (name, others) = rest.split_once("; certificate ").unwrap_or((rest, ""));
        let others = others.replace("DnsName(\"", "").replace("\")", "");
        let others = others.replace("IpAddress(", "").replace(')', "");
        return format!(
            "its certificate is not for {name} (see --connect-tls-host-name): it {others}"
        );
    }
    if why.contains("expired") || why.contains("not valid yet") {
        return format!("its certificate is not valid now ({why})");
    }
    let settings = "--connect-tls-root, --connect-tls-fingerprint";
    format!("nobody vouches for its certificate ({why}); see {settings}")
}

/// Of a connection that somebody else has begun.
pub fn of_client(reason: &str) -> String {
    match Fault::read(reason) {
        None => reason.to_owned(),
        Some(Fault { is_by_peer: true, why }) => {
            format!("the client does not believe our certificate ({why})")
        }
        Some(Fault { why, .. }) => {
            format!("its certificate is not taken ({CERTIFICATE}{why}); see --listen-tls-root")
        }
    }
}

/// Something is wrong with a certificate.
struct Fault<'a> {
    is_by_peer: bool,
    why: &'a str,
}

impl Fault<'_> {
    fn read(reason: &str) -> Option<Fault<'_>> {
        let (is_by_peer, said) = match reason.strip_prefix(BY_PEER) {
            Some(said) => (true, said),
            None => (false, reason),
        };
        let rest = said.strip_prefix(FAILED)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let words = rest[digits..].split_once(": ").map_or(&rest[..digits], |(_, words)| words);
        if let Some(why) = words.strip_prefix(CERTIFICATE) {
            return Some(Fault { is_by_peer, why });
        }
        // A peer may give no reason beside the number. Alerts of RFC 8446 that are about certificates: from
        // bad_certificate to certificate_unknown, unknown_ca, access_denied and certificate_required.
        let is_known = matches!(rest[..digits].parse(), Ok(42..=46 | 48 | 49 | 116));
        (is_by_peer && is_known).then_some(Fault { is_by_peer, why: words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDSHAKE: &str = "the cryptographic handshake failed: ";

    #[test]
    fn faults_of_certificates_name_what_is_to_be_set() {
        for (said, expect) in [
            (
                "error 48: invalid peer certificate: UnknownIssuer",
                "nobody vouches for its certificate (UnknownIssuer); see --connect-tls-root, \
                 --connect-tls-fingerprint",
            ),
            (
                "error 46: invalid peer certificate: Other(OtherError(NotPinned(\"00ff\")))",
                "its certificate has the SHA-256 00ff; see --connect-tls-fingerprint",
            ),
            (
                "error 42: invalid peer certificate: certificate not valid for name \"q.example\"; certificate is \
                 only valid for DnsName(\"b.example\") or IpAddress(127.0.0.1)",
                "its certificate is not for \"q.example\" (see --connect-tls-host-name): it is only valid for \
                 b.example or 127.0.0.1",
            ),
            (
                "error 120: no application protocol",
                "the cryptographic handshake failed: error 120: no application protocol",
            ),
        ] {
            assert_eq!(of_server(&format!("{HANDSHAKE}{said}")), expect);
        }
        for (said, server, client) in [
            (
                "error 46: invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
                "it does not take our certificate (Other(OtherError(CaUsedAsEndEntity))); see --connect-tls-cert, and \
                 its --listen-tls-root",
                "the client does not believe our certificate (Other(OtherError(CaUsedAsEndEntity)))",
            ),
            (
                "error 51: invalid peer certificate: BadSignature",
                "it does not take our certificate (BadSignature); see --connect-tls-cert, and its --listen-tls-root",
                "the client does not believe our certificate (BadSignature)",
            ),
            (
                "error 116",
                "it does not take our certificate (116); see --connect-tls-cert, and its --listen-tls-root",
                "the client does not believe our certificate (116)",
            ),
        ] {
            let said = format!("{BY_PEER}{HANDSHAKE}{said}");
            assert_eq!((of_server(&said).as_str(), of_client(&said).as_str()), (server, client));
        }
        let said = format!("{HANDSHAKE}error 48: invalid peer certificate: UnknownIssuer");
        assert_eq!(
            of_client(&said),
            "its certificate is not taken (invalid peer certificate: UnknownIssuer); see --listen-tls-root"
        );
        for other in ["timed out", "aborted by peer: error", ""] {
            assert_eq!((of_server(other).as_str(), of_client(other).as_str()), (other, other));
        }
    }
}
