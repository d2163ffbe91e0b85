//! One key, and the signatures that it verifies (RFC 7518 §3).
//!
//! Knows nothing of tokens, nor where a key comes from.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED,
    EcdsaVerificationAlgorithm, ParsedPublicKey, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::aws_lc;
use jsonwebtoken::{Algorithm as Usual, DecodingKey};

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// What the library knows.
    Usual(Usual),
    /// What it does not.
    Es512,
}

impl Algorithm {
    /// The algorithm of this name in a header; not `none`, and none that nobody asked for.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(Self::Usual(match name {
            "HS256" => Usual::HS256,
            "HS384" => Usual::HS384,
            "HS512" => Usual::HS512,
            "RS256" => Usual::RS256,
            "RS384" => Usual::RS384,
            "RS512" => Usual::RS512,
            "ES256" => Usual::ES256,
            "ES384" => Usual::ES384,
            "ES512" => return Some(Self::Es512),
            "EdDSA" => Usual::EdDSA,
            _ => return None,
        }))
    }

    /// Whether who verifies could sign as well.
    pub(super) fn is_symmetric(self) -> bool {
        HMAC.contains(&self)
    }
}

const HMAC: [Algorithm; 3] = [
    Algorithm::Usual(Usual::HS256),
    Algorithm::Usual(Usual::HS384),
    Algorithm::Usual(Usual::HS512),
];
const RSA: [Algorithm; 3] = [
    Algorithm::Usual(Usual::RS256),
    Algorithm::Usual(Usual::RS384),
    Algorithm::Usual(Usual::RS512),
];
const ED: [Algorithm; 1] = [Algorithm::Usual(Usual::EdDSA)];

/// An elliptic curve, with the one algorithm that uses it (RFC 7518 §3.4).
struct Curve {
    name: &'static str,
    /// Of both coordinates, and a byte in front that says so.
    point_len: usize,
    algorithm: [Algorithm; 1],
    verification: &'static EcdsaVerificationAlgorithm,
}

static CURVES: [Curve; 3] = [
    Curve {
        name: "P-256",
        point_len: 1 + 2 * 32,
        algorithm: [Algorithm::Usual(Usual::ES256)],
        verification: &ECDSA_P256_SHA256_FIXED,
    },
    Curve {
        name: "P-384",
        point_len: 1 + 2 * 48,
        algorithm: [Algorithm::Usual(Usual::ES384)],
        verification: &ECDSA_P384_SHA384_FIXED,
    },
    Curve {
        name: "P-521",
        point_len: 1 + 2 * 66,
        algorithm: [Algorithm::Es512],
        verification: &ECDSA_P521_SHA512_FIXED,
    },
];

/// Bytes of a modulus. Below 2048 bits RSA is broken (RFC 7518 §3.3); above 8192 one signature
/// would take a millisecond.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// A key, with the algorithms that it is for.
///
/// A secret is never made of a public key, nor the other way round: each maker is for one family.
#[derive(Clone, Debug)]
pub(super) struct Key {
    key: DecodingKey,
    algorithms: &'static [Algorithm],
}

impl Key {
    /// For HS256, HS384 and HS512.
    pub(super) fn of_secret(secret: &str) -> Self {
        Self {
            key: DecodingKey::from_secret(secret.as_bytes()),
            algorithms: &HMAC,
        }
    }

    /// For RS256, RS384 and RS512.
    pub(super) fn of_rsa_pem(pem: &str) -> Result<Self, &'static str> {
        let key = public_pem(pem, DecodingKey::from_rsa_pem)?;
        let der = key.try_get_as_bytes().map_err(|_| NOT_A_KEY)?;
        let parts = (aws_lc::DEFAULT_PROVIDER
            .key_utils
            .rsa_pub_components_from_public_key)(der);
        let (modulus, exponent) = parts.map_err(|_| NOT_A_KEY)?;
        Self::of_rsa(
            DecodingKey::from_rsa_raw_components(&modulus, &exponent),
            &modulus,
        )
    }

    /// For the algorithm of its curve: ES256, ES384 or ES512.
    pub(super) fn of_ec_pem(pem: &str) -> Result<Self, &'static str> {
        Self::of_point(public_pem(pem, DecodingKey::from_ec_pem)?, None)
    }

    /// The same of the numbers in base64, as a JWK has them.
    pub(super) fn of_rsa_numbers(n: &str, e: &str) -> Result<Self, &'static str> {
        let key = DecodingKey::from_rsa_components(n, e).map_err(|_| NOT_A_KEY)?;
        let modulus = BASE64_URL_SAFE_NO_PAD.decode(n).map_err(|_| NOT_A_KEY)?;
        Self::of_rsa(key, &modulus)
    }

    /// The same of a point's coordinates in base64, as a JWK has them.
    pub(super) fn of_coordinates(curve: &str, x: &str, y: &str) -> Result<Self, &'static str> {
        let key = DecodingKey::from_ec_components(x, y).map_err(|_| NOT_A_KEY)?;
        Self::of_point(key, Some(curve))
    }

    /// For `EdDSA` with Ed25519, of a public key in base64, as a JWK has it.
    pub(super) fn of_ed25519(x: &str) -> Result<Self, &'static str> {
        let key = DecodingKey::from_ed_components(x).map_err(|_| NOT_A_KEY)?;
        let bytes = key.try_get_as_bytes().map_err(|_| NOT_A_KEY)?;
        ParsedPublicKey::new(&aws_lc_rs::signature::ED25519, bytes).map_err(|_| NOT_A_KEY)?;
        Ok(Self {
            key,
            algorithms: &ED,
        })
    }

    fn of_rsa(key: DecodingKey, modulus: &[u8]) -> Result<Self, &'static str> {
        let zeros = modulus.iter().take_while(|&&byte| byte == 0).count();
        if !MODULUS.contains(&(modulus.len() - zeros)) {
            return Err("it has not 2048 to 8192 bits");
        }
        Ok(Self {
            key,
            algorithms: &RSA,
        })
    }

    fn of_point(key: DecodingKey, curve_name: Option<&str>) -> Result<Self, &'static str> {
        let point = key.try_get_as_bytes().map_err(|_| NOT_A_KEY)?;
        let mut curves = CURVES.iter();
        let curve = curves.find(|curve| curve.point_len == point.len());
        let curve = curve.ok_or("it is not on P-256, P-384 or P-521")?;
        if curve_name.is_some_and(|name| name != curve.name) {
            return Err("it is not on the curve that it names");
        }
        // Other curves have points of the same length.
        ParsedPublicKey::new(curve.verification, point)
            .map_err(|_| "it is not on P-256, P-384 or P-521")?;
        Ok(Self {
            key,
            algorithms: &curve.algorithm,
        })
    }

    /// The same key for this algorithm alone; `None` if it cannot be for it.
    pub(super) fn only(self, algorithm: Algorithm) -> Option<Self> {
        let index = self.algorithms.iter().position(|&own| own == algorithm)?;
        Some(Self {
            algorithms: &self.algorithms[index..=index],
            ..self
        })
    }

    /// Whether signatures of this algorithm can be this key's.
    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether `signature` is this key's.
    pub(super) fn verifies(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> bool {
        if !self.is_for(algorithm) {
            return false;
        }
        match algorithm {
            // The provider is named: which one is the default depends on what else is linked.
            Algorithm::Usual(usual) => {
                (aws_lc::DEFAULT_PROVIDER.verifier_factory)(&usual, &self.key)
                    .is_ok_and(|verifier| verifier.verify(message, signature).is_ok())
            }
            Algorithm::Es512 => self.key.try_get_as_bytes().is_ok_and(|point| {
                let key = UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point);
                key.verify(message, signature).is_ok()
            }),
        }
    }
}

const NOT_A_KEY: &str = "it is not a public key of its kind";

/// Reads a public key: who can sign has no reason to give that away.
fn public_pem(
    pem: &str,
    read: fn(&[u8]) -> jsonwebtoken::errors::Result<DecodingKey>,
) -> Result<DecodingKey, &'static str> {
    if !pem.contains("-----BEGIN ") {
        return Err("it is not PEM: it has no line that begins with `-----BEGIN `");
    }
    if pem.contains("PRIVATE KEY-----") {
        return Err("it is a private key, where a public one belongs");
    }
    if pem.contains("CERTIFICATE-----") {
        return Err("it is a certificate, where a public key belongs");
    }
    read(pem.as_bytes()).map_err(|_| NOT_A_KEY)
}
