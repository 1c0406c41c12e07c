//! Certificates with their keys, and which of them a client gets.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use std::{error, fmt};

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use webpki::EndEntityCert;

use super::ec_key::normalize;
use super::handshake::note_full_steps;
use super::validity::validity;

/// Contents of the two files of a certificate, with the names that errors call them.
#[derive(Clone, Copy, Debug)]
pub struct PemFiles<'a> {
    /// Path of the file with the certificate, and its chain after it.
    pub certificate_file: &'a str,
    /// Its content: PEM.
    pub certificate: &'a [u8],
    /// Path of the file with the key.
    pub key_file: &'a str,
    /// Its content: PEM of PKCS#8, SEC1 or PKCS#1, not encrypted.
    pub key: &'a [u8],
}

/// Reason why a pair of files cannot be used: a sentence that names a file and no content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateError(String);

impl fmt::Display for CertificateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl error::Error for CertificateError {}

/// Kind of a certificate's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// An elliptic curve: P-256 or P-384.
    Ecdsa,
    /// Its signatures cost most of a handshake.
    Rsa,
    /// Few clients accept it.
    Ed25519,
}

/// A certificate with its chain and its key, which belong together.
#[derive(Clone, Debug)]
pub struct Certificate {
    certified: Arc<CertifiedKey>,
    names: Vec<String>,
    validity: Range<u64>,
    key_kind: KeyKind,
    /// Cost of a full handshake, in steps of a turn's budget.
    full_steps: usize,
}

/// Costs of full handshakes in steps of a turn's budget, of 5 µs each, by the kind of the key.
/// Measured with ring on one core, in µs: 125-135 with P-256, 730 with an RSA key of 2,048 bits.
/// With P-384, a signature costs 400 more than with P-256.
const STEPS_EC: usize = 25;
const STEPS_P384: usize = 105;
const STEPS_RSA_2048: usize = 146;

impl Certificate {
    /// Parses the files of a certificate, and checks that it is valid at the time `now_s`, in Unix
    /// seconds.
    ///
    /// # Errors
    ///
    /// What is wrong with one of the files.
    pub fn parse(files: &PemFiles<'_>, now_s: u64) -> Result<Self, CertificateError> {
        let certificate = Self::parse_untimed(files)?;
        certificate.check_time(files.certificate_file, now_s)?;
        Ok(certificate)
    }

    /// Parses the files of a certificate, which may have expired.
    ///
    /// # Errors
    ///
    /// What is wrong with one of the files.
    pub fn parse_untimed(files: &PemFiles<'_>) -> Result<Self, CertificateError> {
        let PemFiles { certificate_file, key_file, .. } = *files;
        let chain =
            parse_chain(files.certificate).map_err(|reason| refuse(certificate_file, &reason))?;
        let key = PrivateKeyDer::from_pem_slice(files.key).map_err(|error| match error {
            pem::Error::NoItemsFound => {
                refuse(key_file, "no private key found; it must be PEM, and not encrypted")
            }
            _ => refuse(key_file, "this is not valid PEM"),
        })?;
        let key = signing_key(&key).ok_or_else(|| {
            refuse(key_file, "this key is not supported; use P-256, P-384, Ed25519 or RSA")
        })?;
        let key_kind = match key.algorithm() {
            SignatureAlgorithm::ECDSA => KeyKind::Ecdsa,
            SignatureAlgorithm::RSA => KeyKind::Rsa,
            _ => KeyKind::Ed25519,
        };
        let full_steps = full_steps(&*key);
        let first = &chain[0];
        let no_certificate = || refuse(certificate_file, "the first certificate is not valid");
        let names = EndEntityCert::try_from(first).map_err(|_| no_certificate())?;
        let names = names.valid_dns_names().map(str::to_owned).collect();
        let validity = validity(first).ok_or_else(no_certificate)?;
        let certified = CertifiedKey::new(chain, key);
        if certified.keys_match().is_err() {
            let reason = format!("this key does not belong to the first one in {certificate_file}");
            return Err(refuse(key_file, &reason));
        }
        Ok(Self { certified: Arc::new(certified), names, validity, key_kind, full_steps })
    }

    /// Checks that the certificate of `certificate_file` is valid at the time `now_s`, in Unix
    /// seconds.
    ///
    /// # Errors
    ///
    /// The time from which or until which it is valid.
    pub fn check_time(&self, certificate_file: &str, now_s: u64) -> Result<(), CertificateError> {
        let Range { start, end } = self.validity;
        let reason = if now_s >= end {
            format!("the certificate has expired on {}", date(end - 1))
        } else if now_s < start {
            format!("the certificate is not valid before {}", date(start))
        } else {
            return Ok(());
        };
        Err(refuse(certificate_file, &reason))
    }

    /// Returns the DNS names for which the certificate is valid. They may begin with `*.`.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the first Unix second at which the certificate is no longer valid.
    #[must_use]
    pub fn expires_s(&self) -> u64 {
        self.validity.end
    }

    /// Returns the number of certificates that a client gets, with this one.
    #[must_use]
    pub fn chain_length(&self) -> usize {
        self.certified.cert.len()
    }

    /// Returns the kind of the key.
    #[must_use]
    pub fn key_kind(&self) -> KeyKind {
        self.key_kind
    }

    fn is_for(&self, name: &ServerName<'_>) -> bool {
        let certificate = EndEntityCert::try_from(&self.certified.cert[0]);
        certificate.is_ok_and(|cert| cert.verify_is_valid_for_subject_name(name).is_ok())
    }

    /// Returns whether the client can verify signatures of this key.
    fn suits(&self, hello: &ClientHello<'_>) -> bool {
        self.certified.key.choose_scheme(hello.signature_schemes()).is_some()
    }
}

/// Returns the cost of a full handshake with a key, in steps.
fn full_steps(key: &dyn SigningKey) -> usize {
    let schemes = [
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::RSA_PSS_SHA256,
    ];
    let Some(signer) = key.choose_scheme(&schemes) else { return STEPS_EC };
    match signer.scheme() {
        SignatureScheme::ECDSA_NISTP384_SHA384 => STEPS_P384,
        SignatureScheme::RSA_PSS_SHA256 => {
            // A signature is as long as the modulus, and costs the cube of that.
            let bytes = signer.sign(&[]).map_or(0, |signature| signature.len());
            STEPS_RSA_2048 * bytes.pow(3) / (2048 / 8usize).pow(3)
        }
        _ => STEPS_EC,
    }
}

/// Prepares a key for signatures.
fn signing_key(key: &PrivateKeyDer<'_>) -> Option<Arc<dyn SigningKey>> {
    let as_it_is = any_supported_type(key).ok();
    as_it_is.or_else(|| any_supported_type(&normalize(key)?).ok())
}

fn refuse(file: &str, reason: &str) -> CertificateError {
    CertificateError(format!("{file}: {reason}"))
}

fn parse_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err("no certificate found; it must be PEM".to_owned()),
        Err(_) => Err("this is not valid PEM".to_owned()),
    }
}

fn date(unix_s: u64) -> String {
    // httpdate panics after the year 9999, which a certificate without an end has.
    let latest = 253_402_300_799;
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_s.min(latest)))
}

/// The certificates of a server. The first is for clients that ask for none of their names.
#[derive(Debug)]
pub struct Certificates(Vec<Certificate>);

impl Certificates {
    /// `None` without a certificate.
    #[must_use]
    pub fn new(certificates: Vec<Certificate>) -> Option<Self> {
        (!certificates.is_empty()).then_some(Self(certificates))
    }

    /// Returns all certificates, the default one first.
    #[must_use]
    pub fn all(&self) -> &[Certificate] {
        &self.0
    }

    /// Chooses the first certificate that has the name and a key for the client, or else the first
    /// with the name, or else the default one.
    fn choose(&self, hello: &ClientHello<'_>) -> &Certificate {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = self
            .0
            .iter()
            .filter(|certificate| name.as_ref().is_some_and(|name| certificate.is_for(name)));
        let named: Vec<_> = named.collect();
        let suitable = named.iter().find(|certificate| certificate.suits(hello));
        suitable.or(named.first()).copied().unwrap_or(&self.0[0])
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificate = self.choose(&hello);
        note_full_steps(certificate.full_steps);
        Some(Arc::clone(&certificate.certified))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_costs_what_its_key_costs() {
        for (pem, steps) in [
            (&include_bytes!("../../tests/tls/ecdsa.key")[..], STEPS_EC),
            (include_bytes!("../../tests/tls/ed25519.key"), STEPS_EC),
            (include_bytes!("../../tests/tls/p384.key"), STEPS_P384),
            (include_bytes!("../../tests/tls/rsa.key"), STEPS_RSA_2048),
            (include_bytes!("../../tests/tls/rsa3072.key"), STEPS_RSA_2048 * 27 / 8),
        ] {
            let key = signing_key(&PrivateKeyDer::from_pem_slice(pem).unwrap()).unwrap();
            assert_eq!(full_steps(&*key), steps, "{:?}", key.algorithm());
        }
    }
}
