//! Pairs of files: what is accepted, and what errors say.

use speak::tls::{Certificate, KeyKind, PemFiles};

use crate::pipe::{NOW_S, certificate, pem};

fn parse(certificate: &[u8], key: &[u8], now_s: u64) -> Result<Certificate, String> {
    let files = PemFiles { certificate_file: "a.pem", certificate, key_file: "a.key", key };
    Certificate::parse(&files, now_s).map_err(|error| error.to_string())
}

#[test]
fn each_kind_and_form_of_key_is_accepted() {
    for (name, key, kind, chain) in [
        ("ecdsa", "ecdsa.key", KeyKind::Ecdsa, 2),
        ("ecdsa", "ecdsa-sec1.key", KeyKind::Ecdsa, 2),
        ("rsa", "rsa.key", KeyKind::Rsa, 1),
        ("rsa", "rsa-pkcs1.key", KeyKind::Rsa, 1),
        ("ed25519", "ed25519.key", KeyKind::Ed25519, 1),
    ] {
        let pair = parse(&pem(&format!("{name}.pem")), &pem(key), NOW_S).unwrap();
        assert_eq!((pair.key_kind(), pair.chain_length()), (kind, chain), "{key}");
    }
}

#[test]
fn a_key_may_follow_other_sections_of_its_file() {
    let key = [pem("ecdsa.pem"), pem("ecdsa-sec1.key")].concat();
    assert!(parse(&pem("ecdsa.pem"), &key, NOW_S).is_ok());
}

#[test]
fn a_certificate_tells_its_names_and_its_end() {
    let pair = certificate("ecdsa");
    assert_eq!(pair.names(), ["ecdsa.example.test", "*.wild.example.test"]);
    let end = pair.expires_s();
    let (chain, key) = (pem("ecdsa.pem"), pem("ecdsa.key"));
    assert!(parse(&chain, &key, end - 1).is_ok());
    let error = parse(&chain, &key, end).unwrap_err();
    assert!(error.starts_with("a.pem: the certificate has expired on "), "{error}");
    let error = parse(&chain, &key, 1_000_000_000).unwrap_err();
    assert!(error.starts_with("a.pem: the certificate is not valid before "), "{error}");
}

#[test]
fn errors_name_the_file_and_the_fault() {
    let (chain, key) = (pem("ecdsa.pem"), pem("ecdsa.key"));
    let cut = &chain[..chain.len() / 4];
    let damaged = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let letters = b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
    let rsa = pem("rsa.key");
    let (encrypted, unsupported) = (pem("encrypted.key"), pem("unsupported.key"));
    for (certificate, key, expected) in [
        (&b""[..], &key[..], "a.pem: no certificate found; it must be PEM"),
        (&key, &key, "a.pem: no certificate found; it must be PEM"),
        (cut, &key, "a.pem: this is not valid PEM"),
        (letters, &key, "a.pem: this is not valid PEM"),
        (damaged, &key, "a.pem: the first certificate is not valid"),
        (&chain, b"", "a.key: no private key found; it must be PEM, and not encrypted"),
        (&chain, &chain, "a.key: no private key found; it must be PEM, and not encrypted"),
        (&chain, &key[..key.len() / 2], "a.key: this is not valid PEM"),
        (&chain, &rsa, "a.key: this key does not belong to the first one in a.pem"),
        (
            &chain,
            &unsupported,
            "a.key: this key is not supported; use P-256, P-384, Ed25519 or RSA",
        ),
    ] {
        assert_eq!(parse(certificate, key, NOW_S).map(|_| ()).unwrap_err(), expected);
    }
    assert!(parse(&chain, &encrypted, NOW_S).unwrap_err().starts_with("a.key: "));
}
