//! How tokens may be signed: the twelve algorithms of the reference, and no other.

use std::fmt;
use std::str::FromStr;

use jsonwebtoken::Algorithm as Jwa;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    ES256,
    ES384,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    EdDSA,
}

/// What keys an algorithm takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// A shared secret; a new one has so many bytes.
    Secret {
        bytes: usize,
    },
    Ec(Curve),
    Ed,
    Rsa,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "none of HS256, HS384, HS512, ES256, ES384, RS256, RS384, RS512, PS256, PS384, PS512 and EdDSA"
)]
pub struct NoAlgorithm;

impl Algorithm {
    pub const ALL: [Algorithm; 12] = [
        Algorithm::HS256,
        Algorithm::HS384,
        Algorithm::HS512,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
        Algorithm::EdDSA,
    ];

    fn facts(self) -> (&'static str, Jwa, Family) {
        match self {
            Algorithm::HS256 => ("HS256", Jwa::HS256, Family::Secret { bytes: 32 }),
            Algorithm::HS384 => ("HS384", Jwa::HS384, Family::Secret { bytes: 48 }),
            Algorithm::HS512 => ("HS512", Jwa::HS512, Family::Secret { bytes: 64 }),
            Algorithm::ES256 => ("ES256", Jwa::ES256, Family::Ec(Curve::P256)),
            Algorithm::ES384 => ("ES384", Jwa::ES384, Family::Ec(Curve::P384)),
            Algorithm::RS256 => ("RS256", Jwa::RS256, Family::Rsa),
            Algorithm::RS384 => ("RS384", Jwa::RS384, Family::Rsa),
            Algorithm::RS512 => ("RS512", Jwa::RS512, Family::Rsa),
            Algorithm::PS256 => ("PS256", Jwa::PS256, Family::Rsa),
            Algorithm::PS384 => ("PS384", Jwa::PS384, Family::Rsa),
            Algorithm::PS512 => ("PS512", Jwa::PS512, Family::Rsa),
            Algorithm::EdDSA => ("EdDSA", Jwa::EdDSA, Family::Ed),
        }
    }

    pub fn name(self) -> &'static str {
        self.facts().0
    }

    pub(super) fn library(self) -> Jwa {
        self.facts().1
    }

    pub(super) fn family(self) -> Family {
        self.facts().2
    }
}

impl Curve {
    pub fn name(self) -> &'static str {
        match self {
            Curve::P256 => "P-256",
            Curve::P384 => "P-384",
        }
    }

    /// Of a coordinate.
    pub fn bytes(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
        }
    }
}

impl FromStr for Algorithm {
    type Err = NoAlgorithm;

    fn from_str(text: &str) -> Result<Algorithm, NoAlgorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == text).ok_or(NoAlgorithm)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
