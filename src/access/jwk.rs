//! One key as JSON (RFC 7517) ⇄ values. What is secret in it is never shown.

use aws_lc_rs::encoding::{AsBigEndian, AsDer};
use aws_lc_rs::rsa::{KeyPairComponents, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair};
use aws_lc_rs::signature::{ParsedPublicKey, RsaKeyPair, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde::Serialize;

use super::algorithm::{Algorithm, Curve, Family, NoAlgorithm};
use super::claims::{Form, WrittenGrant, parse_scope, write_grant};
use super::grant::Grant;
use super::json::{Fault, Members};
use super::key_id::{KeyId, KeyIdFault};
use super::refusal::ClaimsFault;
use crate::files;

/// Bytes of a shared secret; the reference takes no shorter one.
const SECRET_BYTES_MIN: usize = 32;

/// Bits of an RSA modulus that the cryptography takes.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// What is shown in the place of a key that was given as the name of a file.
const HIDDEN_KEY: &str = "a key, not a file's name";

/// What is wrong with a key, or with the file that it is in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    #[error("cannot be read: {}; {}", .0, readable(.0))]
    Unreadable(String),
    #[error("cannot be read: {0}; give a directory that this user may list")]
    NoDirectory(String),
    #[error("given where the name of its file is wanted; write it to a file first")]
    NotAName,
    #[error("more than {0} bytes, which is no key")]
    TooLarge(u64),
    #[error(
        "with it the files of keys have more than {0} bytes in all, which is more than a relay takes"
    )]
    AllTooLarge(u64),
    #[error("more keys than the {0} that a relay takes")]
    TooMany(usize),
    #[error(
        "more than {0} files of one key each; tokens of many keys name theirs: use --auth-key-dir"
    )]
    TooManyUnnamed(usize),
    #[error("neither a JWK nor one in base64url; make one with shardcast token generate")]
    NotText,
    #[error(
        "a token, and no key: give the key that its issuer signs with, or the public half of that"
    )]
    IsToken,
    #[error(
        "PEM, and keys are JWK here: make one with shardcast token generate, or write this one as a JWK with \
         another tool"
    )]
    IsPem,
    #[error("a set (`keys`), and one key signs: write the one that is meant to a file of its own")]
    SetSigns,
    #[error("{0}")]
    Json(#[from] Fault),
    #[error("no `{0}`")]
    Missing(&'static str),
    #[error("`kty` is none of oct, EC, RSA and OKP")]
    Kind,
    #[error("`alg` is {0}")]
    Algorithm(#[from] NoAlgorithm),
    #[error("`alg` {0} is not for keys of this `kty`")]
    AlgorithmKind(Algorithm),
    #[error("`crv` is not {1}, which `alg` {0} is for")]
    Curve(Algorithm, &'static str),
    #[error("`{0}` is not base64url")]
    Base64(&'static str),
    #[error("`k` has fewer than {SECRET_BYTES_MIN} bytes")]
    ShortSecret,
    #[error("`{0}` has not {1} bytes")]
    Length(&'static str, usize),
    #[error("`n` has {0} bits; {min} to {max} are taken", min = RSA_BITS.start(), max = RSA_BITS.end())]
    RsaBits(usize),
    #[error("its numbers are no public key")]
    Public,
    #[error("its private numbers do not belong to its public ones")]
    Private,
    #[error("a shared secret has no public half; relays need the key itself")]
    NoPublic,
    #[error("`key_ops` has something that is not sign, verify, encrypt or decrypt")]
    Operation,
    #[error("it may not {0}: `key_ops` does not say so")]
    NotFor(&'static str),
    #[error("it has no private numbers to sign with")]
    NoPrivate,
    #[error("{0}")]
    Name(#[from] KeyIdFault),
    #[error("the name of the file is not that of a key: {0}")]
    FileName(KeyIdFault),
    #[error("`scope`: {0}")]
    Scope(ClaimsFault),
    #[error("`scope` allows nothing")]
    ScopeEmpty,
    #[error("a set (`keys`) without a key")]
    SetEmpty,
    #[error("a set (`keys`) of several in which one has no `kid`")]
    SetUnnamed,
    #[error("another key is named {0} too")]
    NameTaken(KeyId),
    #[error("keys[{index}]: {fault}")]
    InSet { index: usize, fault: Box<KeyFault> },
    #[error("the system has no randomness to give")]
    NoRandomness,
}

/// A key as it is written down, public or private.
#[derive(Clone)]
pub(super) struct Jwk {
    pub algorithm: Algorithm,
    pub id: Option<KeyId>,
    pub scope: Option<Grant>,
    pub may_sign: bool,
    pub may_verify: bool,
    pub numbers: Numbers,
}

/// Names as in RFC 7518 §6.
#[derive(Clone)]
pub(super) enum Numbers {
    Secret { k: Vec<u8> },
    Ec { curve: Curve, x: Vec<u8>, y: Vec<u8>, d: Option<Vec<u8>> },
    Ed { x: Vec<u8>, d: Option<Vec<u8>> },
    Rsa { n: Vec<u8>, e: Vec<u8>, private: Option<RsaPrivate> },
}

#[derive(Clone)]
pub(super) struct RsaPrivate {
    d: Vec<u8>,
    p: Vec<u8>,
    q: Vec<u8>,
    dp: Vec<u8>,
    dq: Vec<u8>,
    qi: Vec<u8>,
}

/// The bytes of a file of keys as JSON, whichever way it is written.
pub(super) fn json_of(bytes: &[u8]) -> Result<Vec<u8>, KeyFault> {
    let bytes = bytes.trim_ascii();
    if bytes.first() == Some(&b'{') {
        return Ok(bytes.to_vec());
    }
    if bytes.starts_with(b"-----BEGIN ") {
        return Err(KeyFault::IsPem);
    }
    let parts: Vec<&[u8]> = bytes.split(|byte| *byte == b'.').collect();
    if parts.len() == 3 && parts.iter().all(|part| decode_unpadded(part).is_some()) {
        return Err(KeyFault::IsToken);
    }
    decode(bytes).filter(|json| json.trim_ascii().first() == Some(&b'{')).ok_or(KeyFault::NotText)
}

/// What is to be given in the place of what cannot be read, for this reason.
fn readable(reason: &str) -> &'static str {
    match reason {
        files::NOT_REGULAR => "give one file, or a directory of keys with --auth-key-dir",
        _ => "give a file this user may read",
    }
}

/// What was given as the name of a file, as far as it may be shown: it may be what belongs into the file.
pub fn shown_name(text: &str) -> &str {
    let begins = ["{", "eyJ", "-----BEGIN "].iter().any(|begin| text.starts_with(begin));
    // Where names are separated by commas, JSON is taken apart.
    let is_secret = begins || text.contains('"');
    if is_secret { HIDDEN_KEY } else { text }
}

/// Tokens have no padding, keys of some tools do.
pub(super) fn decode_unpadded(text: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    decode_unpadded(text).or_else(|| URL_SAFE.decode(text).ok())
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Jwk {
    pub fn parse(mut members: Members<'_>) -> Result<Jwk, KeyFault> {
        let kind = members.string("kty")?.ok_or(KeyFault::Missing("kty"))?;
        let algorithm = members.string("alg")?.ok_or(KeyFault::Missing("alg"))?;
        let algorithm: Algorithm = algorithm.parse()?;
        let numbers = match (kind.as_str(), algorithm.family()) {
            ("oct", Family::Secret { .. }) => Numbers::secret(&mut members)?,
            ("EC", Family::Ec(curve)) => Numbers::ec(&mut members, algorithm, curve)?,
            ("OKP", Family::Ed) => Numbers::ed(&mut members, algorithm)?,
            ("RSA", Family::Rsa) => Numbers::rsa(&mut members)?,
            ("oct" | "EC" | "OKP" | "RSA", _) => return Err(KeyFault::AlgorithmKind(algorithm)),
            _ => return Err(KeyFault::Kind),
        };
        let id = members.string("kid")?.map(|id| KeyId::parse(&id)).transpose()?;
        let scope = members.take("scope").map(|json| parse_scope(json.get().as_bytes()));
        let scope = scope.transpose().map_err(KeyFault::Scope)?;
        if scope.as_ref().is_some_and(Grant::is_empty) {
            return Err(KeyFault::ScopeEmpty);
        }
        let operations = members.strings("key_ops")?;
        let is_known =
            |name: &String| matches!(name.as_str(), "sign" | "verify" | "encrypt" | "decrypt");
        if !operations.iter().flatten().all(is_known) {
            return Err(KeyFault::Operation);
        }
        let may =
            |name: &str| operations.as_ref().is_none_or(|list| list.iter().any(|one| one == name));
        let (may_sign, may_verify) = (may("sign"), may("verify"));
        Ok(Jwk { algorithm, id, scope, may_sign, may_verify, numbers })
    }

    /// What tokens of this key are verified with. Numbers that are no key are found here and not with
    /// the first token.
    pub fn verifier(&self) -> Result<DecodingKey, KeyFault> {
        if !self.may_verify {
            return Err(KeyFault::NotFor("verify"));
        }
        // The library takes these in base64url alone, which they just were.
        const OURS: &str = "what was encoded is base64url";
        match &self.numbers {
            Numbers::Secret { k } => Ok(DecodingKey::from_secret(k)),
            Numbers::Ec { curve, x, y, .. } => {
                let curve: &'static dyn signature::VerificationAlgorithm = match curve {
                    Curve::P256 => &signature::ECDSA_P256_SHA256_FIXED,
                    Curve::P384 => &signature::ECDSA_P384_SHA384_FIXED,
                };
                ParsedPublicKey::new(curve, point(x, y)).map_err(|_| KeyFault::Public)?;
                Ok(DecodingKey::from_ec_components(&encode(x), &encode(y)).expect(OURS))
            }
            Numbers::Ed { x, .. } => {
                ParsedPublicKey::new(&signature::ED25519, x).map_err(|_| KeyFault::Public)?;
                Ok(DecodingKey::from_ed_components(&encode(x)).expect(OURS))
            }
            Numbers::Rsa { n, e, .. } => {
                let components = RsaPublicKeyComponents { n, e };
                let params = &signature::RSA_PKCS1_2048_8192_SHA256;
                components.to_parsed_public_key(params).map_err(|_| KeyFault::Public)?;
                Ok(DecodingKey::from_rsa_raw_components(n, e))
            }
        }
    }

    /// What tokens of this key are signed with.
    pub fn signer(&self) -> Result<EncodingKey, KeyFault> {
        if !self.may_sign {
            return Err(KeyFault::NotFor("sign"));
        }
        match &self.numbers {
            Numbers::Secret { k } => Ok(EncodingKey::from_secret(k)),
            Numbers::Ec { curve, x, y, d } => {
                let d = d.as_ref().ok_or(KeyFault::NoPrivate)?;
                let curve = curve.signing();
                let pair = EcdsaKeyPair::from_private_key_and_public_key(curve, d, &point(x, y))
                    .map_err(|_| KeyFault::Private)?;
                let der = pair.to_pkcs8v1().map_err(|_| KeyFault::Private)?;
                Ok(EncodingKey::from_ec_der(der.as_ref()))
            }
            Numbers::Ed { x, d } => {
                let d = d.as_ref().ok_or(KeyFault::NoPrivate)?;
                let pair = Ed25519KeyPair::from_seed_and_public_key(d, x)
                    .map_err(|_| KeyFault::Private)?;
                let der = pair.to_pkcs8().map_err(|_| KeyFault::Private)?;
                Ok(EncodingKey::from_ed_der(der.as_ref()))
            }
            Numbers::Rsa { n, e, private } => {
                let RsaPrivate { d, p, q, dp, dq, qi } =
                    private.as_ref().ok_or(KeyFault::NoPrivate)?;
                let public_key = RsaPublicKeyComponents { n, e };
                let pair = RsaKeyPair::from_components(&KeyPairComponents {
                    public_key,
                    d,
                    p,
                    q,
                    dP: dp,
                    dQ: dq,
                    qInv: qi,
                });
                let der =
                    rsa_der(&pair.map_err(|_| KeyFault::Private)?).ok_or(KeyFault::Private)?;
                Ok(EncodingKey::from_rsa_der(&der))
            }
        }
    }

    pub fn generate(
        algorithm: Algorithm,
        id: Option<KeyId>,
        scope: Option<Grant>,
    ) -> Result<Jwk, KeyFault> {
        let numbers = match algorithm.family() {
            Family::Secret { bytes } => Numbers::new_secret(bytes),
            Family::Ec(curve) => Numbers::new_ec(curve),
            Family::Ed => Numbers::new_ed(),
            Family::Rsa => Numbers::new_rsa(),
        };
        if scope.as_ref().is_some_and(Grant::is_empty) {
            return Err(KeyFault::ScopeEmpty);
        }
        let numbers = numbers.ok_or(KeyFault::NoRandomness)?;
        Ok(Jwk { algorithm, id, scope, may_sign: true, may_verify: true, numbers })
    }

    /// The same without what is private; none for a shared secret.
    pub fn public(&self) -> Option<Jwk> {
        let numbers = match self.numbers.clone() {
            Numbers::Secret { .. } => return None,
            Numbers::Ec { curve, x, y, .. } => Numbers::Ec { curve, x, y, d: None },
            Numbers::Ed { x, .. } => Numbers::Ed { x, d: None },
            Numbers::Rsa { n, e, .. } => Numbers::Rsa { n, e, private: None },
        };
        Some(Jwk { numbers, may_sign: false, may_verify: true, ..self.clone() })
    }

    /// Whether it has numbers that a relay does not need.
    pub fn is_private(&self) -> bool {
        match &self.numbers {
            Numbers::Secret { .. } => false,
            Numbers::Ec { d, .. } | Numbers::Ed { d, .. } => d.is_some(),
            Numbers::Rsa { private, .. } => private.is_some(),
        }
    }

    pub fn to_json(&self) -> String {
        let mut written = Written {
            alg: self.algorithm.name(),
            kid: self.id.as_ref().map(KeyId::as_str),
            scope: self.scope.as_ref().map(|scope| write_grant(scope, Form::Prefixes)),
            ..Written::default()
        };
        let operations = [("sign", self.may_sign), ("verify", self.may_verify)];
        written.key_ops =
            operations.iter().filter(|(_, may)| *may).map(|(name, _)| *name).collect();
        match &self.numbers {
            Numbers::Secret { k } => {
                written.kty = "oct";
                written.k = Some(encode(k));
            }
            Numbers::Ec { curve, x, y, d } => {
                written.kty = "EC";
                written.crv = Some(curve.name());
                (written.x, written.y) = (Some(encode(x)), Some(encode(y)));
                written.d = d.as_ref().map(encode);
            }
            Numbers::Ed { x, d } => {
                written.kty = "OKP";
                written.crv = Some("Ed25519");
                written.x = Some(encode(x));
                written.d = d.as_ref().map(encode);
            }
            Numbers::Rsa { n, e, private } => {
                written.kty = "RSA";
                (written.n, written.e) = (Some(encode(n)), Some(encode(e)));
                if let Some(RsaPrivate { d, p, q, dp, dq, qi }) = private {
                    (written.d, written.p, written.q) =
                        (Some(encode(d)), Some(encode(p)), Some(encode(q)));
                    (written.dp, written.dq, written.qi) =
                        (Some(encode(dp)), Some(encode(dq)), Some(encode(qi)));
                }
            }
        }
        serde_json::to_string(&written).expect("strings are JSON")
    }
}

#[derive(Default, Serialize)]
struct Written<'a> {
    kty: &'static str,
    alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    key_ops: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<WrittenGrant<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    d: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    q: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dq: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qi: Option<String>,
}

impl Numbers {
    fn secret(members: &mut Members<'_>) -> Result<Numbers, KeyFault> {
        let k = number(members, "k")?;
        if k.len() < SECRET_BYTES_MIN {
            return Err(KeyFault::ShortSecret);
        }
        Ok(Numbers::Secret { k })
    }

    fn ec(
        members: &mut Members<'_>,
        algorithm: Algorithm,
        curve: Curve,
    ) -> Result<Numbers, KeyFault> {
        check_curve(members, algorithm, curve.name())?;
        let (x, y) = (sized(members, "x", curve.bytes())?, sized(members, "y", curve.bytes())?);
        Ok(Numbers::Ec { curve, x, y, d: number_if_any(members, "d")? })
    }

    fn ed(members: &mut Members<'_>, algorithm: Algorithm) -> Result<Numbers, KeyFault> {
        check_curve(members, algorithm, "Ed25519")?;
        let x = sized(members, "x", 32)?;
        Ok(Numbers::Ed { x, d: number_if_any(members, "d")? })
    }

    fn rsa(members: &mut Members<'_>) -> Result<Numbers, KeyFault> {
        let (n, e) = (number(members, "n")?, number(members, "e")?);
        let (n, e) = (without_zeros(&n), without_zeros(&e));
        let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(KeyFault::RsaBits(bits));
        }
        let mut private = [None, None, None, None, None, None];
        for (number, name) in private.iter_mut().zip(["d", "p", "q", "dp", "dq", "qi"]) {
            *number = number_if_any(members, name)?;
        }
        // With some of them missing it counts as public, as in the reference.
        let private = match private {
            [Some(d), Some(p), Some(q), Some(dp), Some(dq), Some(qi)] => {
                Some(RsaPrivate { d, p, q, dp, dq, qi })
            }
            _ => None,
        };
        Ok(Numbers::Rsa { n, e, private })
    }

    fn new_secret(bytes: usize) -> Option<Numbers> {
        let mut k = vec![0; bytes];
        aws_lc_rs::rand::fill(&mut k).ok()?;
        Some(Numbers::Secret { k })
    }

    fn new_ec(curve: Curve) -> Option<Numbers> {
        let pair = EcdsaKeyPair::generate(curve.signing()).ok()?;
        // An uncompressed point: 4, x, y.
        let point = &pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        let d = pair.private_key().as_be_bytes().ok()?;
        Some(Numbers::Ec { curve, x: x.to_vec(), y: y.to_vec(), d: Some(d.as_ref().to_vec()) })
    }

    fn new_ed() -> Option<Numbers> {
        let pair = Ed25519KeyPair::generate().ok()?;
        let d = pair.seed().ok()?.as_be_bytes().ok()?;
        let x = pair.public_key().as_ref().to_vec();
        Some(Numbers::Ed { x, d: Some(d.as_ref().to_vec()) })
    }

    fn new_rsa() -> Option<Numbers> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).ok()?;
        let der = rsa_der(&pair)?;
        let (_, mut fields, _) = der_value(&der)?;
        let mut next = || -> Option<Vec<u8>> {
            let (_, number, rest) = der_value(fields)?;
            fields = rest;
            Some(without_zeros(number))
        };
        let _version = next()?;
        let (n, e) = (next()?, next()?);
        let (d, p, q, dp, dq, qi) = (next()?, next()?, next()?, next()?, next()?, next()?);
        Some(Numbers::Rsa { n, e, private: Some(RsaPrivate { d, p, q, dp, dq, qi }) })
    }
}

impl Curve {
    fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Curve::P256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            Curve::P384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        }
    }
}

fn point(x: &[u8], y: &[u8]) -> Vec<u8> {
    [&[4], x, y].concat()
}

fn check_curve(
    members: &mut Members<'_>,
    algorithm: Algorithm,
    name: &'static str,
) -> Result<(), KeyFault> {
    match members.string("crv")?.ok_or(KeyFault::Missing("crv"))? == name {
        true => Ok(()),
        false => Err(KeyFault::Curve(algorithm, name)),
    }
}

fn number_if_any(
    members: &mut Members<'_>,
    name: &'static str,
) -> Result<Option<Vec<u8>>, KeyFault> {
    let Some(text) = members.string(name)? else { return Ok(None) };
    decode(text.as_bytes()).ok_or(KeyFault::Base64(name)).map(Some)
}

fn number(members: &mut Members<'_>, name: &'static str) -> Result<Vec<u8>, KeyFault> {
    number_if_any(members, name)?.ok_or(KeyFault::Missing(name))
}

fn sized(members: &mut Members<'_>, name: &'static str, bytes: usize) -> Result<Vec<u8>, KeyFault> {
    let number = number(members, name)?;
    if number.len() == bytes { Ok(number) } else { Err(KeyFault::Length(name, bytes)) }
}

fn without_zeros(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|byte| *byte == 0).collect()
}

/// An RSA key as RFC 8017 has it: what PKCS#8 wraps, after version and algorithm.
fn rsa_der(pair: &RsaKeyPair) -> Option<Vec<u8>> {
    let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(pair).ok()?;
    let (_, fields, _) = der_value(der.as_ref())?;
    let (_, _, fields) = der_value(fields)?;
    let (_, _, fields) = der_value(fields)?;
    der_value(fields).map(|(_, key, _)| key.to_vec())
}

/// Splits one element of DER off: its tag, its contents and what follows it.
fn der_value(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = input.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((tag, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_is_told_what_it_is() {
        for (text, expect) in [
            ("eyJhbGciOiJIUzI1NiJ9.e30.AAAA\n", KeyFault::IsToken),
            ("-----BEGIN PUBLIC KEY-----\nMFkw\n", KeyFault::IsPem),
            ("a.b", KeyFault::NotText),
            ("one. two. three", KeyFault::NotText),
            ("", KeyFault::NotText),
        ] {
            assert_eq!(json_of(text.as_bytes()), Err(expect), "{text:?}");
        }
        let directory = files::read_regular(&std::env::temp_dir(), 1).expect_err("no file");
        let fault = KeyFault::Unreadable(directory.to_string()).to_string();
        assert!(fault.contains("--auth-key-dir"), "{fault}");
        let fault = KeyFault::Unreadable("Permission denied".to_owned()).to_string();
        assert!(fault.ends_with("; give a file this user may read"), "{fault}");
    }

    #[test]
    fn a_key_is_not_shown_as_the_name_of_a_file() {
        for name in ["public.jwk", "/etc/keys/eyJ.jwk", "", "ey"] {
            assert_eq!(shown_name(name), name);
        }
        for key in [
            r#"{"kty":"oct","k":"SECRET"}"#,
            "eyJrdHkiOiJvY3QifQ",
            "\"k\":\"SECRET\"}",
            "-----BEGIN EC KEY",
        ] {
            assert_eq!(shown_name(key), HIDDEN_KEY);
        }
    }
}
