//! Keys of elliptic curves whose number is not written as RFC 5915, section 3, says.
//!
//! It has to have as many bytes as the curve: 32 for P-256. Some libraries write it as an integer.
//! That of `uacme` puts a zero in front of a number whose highest bit is set, as of half of all
//! keys; others leave out leading zeros. ring refuses both.

use rustls::pki_types::{PrivateKeyDer, PrivateSec1KeyDer};

use super::der::{BIT_STRING, INTEGER, OCTET_STRING, SEQUENCE, element, expect};

/// The optional public key of an `ECPrivateKey`.
const PUBLIC_KEY: u8 = 0xa1;
/// The optional curve.
const PARAMETERS: u8 = 0xa0;

/// Writes the same key as RFC 5915 says. `None` if `key` is not one of an elliptic curve with its
/// public key, or has a number that is too large.
pub(super) fn normalize(key: &PrivateKeyDer<'_>) -> Option<PrivateKeyDer<'static>> {
    let sec1 = match key {
        PrivateKeyDer::Sec1(sec1) => sec1.secret_sec1_der(),
        PrivateKeyDer::Pkcs8(pkcs8) => inside_pkcs8(pkcs8.secret_pkcs8_der())?,
        _ => return None,
    };
    let (fields, _) = expect(SEQUENCE, sec1)?;
    let (version, fields) = expect(INTEGER, fields)?;
    let (number, mut fields) = expect(OCTET_STRING, fields)?;
    if let Some((_, rest)) = expect(PARAMETERS, fields) {
        fields = rest;
    }
    let (public, _) = expect(PUBLIC_KEY, fields)?;
    let (point, _) = expect(BIT_STRING, public)?;
    // No unused bits, the mark of an uncompressed point, and two coordinates.
    let [0, 4, coordinates @ ..] = point else { return None };
    let length = coordinates.len() / 2;
    // P-256 and P-384: what a listener can use. The version is that of RFC 5915.
    if version != [1] || !matches!(length, 32 | 48) {
        return None;
    }
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let padding = length.checked_sub(number.len() - zeros)?;
    let number = [&vec![0; padding], &number[zeros..]].concat();
    let fields = [
        element(INTEGER, version),
        element(OCTET_STRING, &number),
        element(PUBLIC_KEY, &element(BIT_STRING, point)),
    ];
    let key = element(SEQUENCE, &fields.concat());
    Some(PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(key)))
}

/// Returns the `ECPrivateKey` of a key in PKCS#8 (RFC 5208, section 5). The key of another
/// algorithm looks like none.
fn inside_pkcs8(pkcs8: &[u8]) -> Option<&[u8]> {
    let (fields, _) = expect(SEQUENCE, pkcs8)?;
    let (_, fields) = expect(INTEGER, fields)?;
    let (_, fields) = expect(SEQUENCE, fields)?;
    let (key, _) = expect(OCTET_STRING, fields)?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ring::sign::any_ecdsa_type;
    use rustls::pki_types::PrivatePkcs8KeyDer;

    use super::*;

    /// Numbers and public points of keys that `openssl` has made.
    const KEYS: [(&str, &str); 3] = [
        // P-256: with a leading zero, and with the highest bit set.
        (
            "00691c23b5005813b367d8ed4c9dfcf1ed8d77739eeb1f7e2128456e9611a76a",
            "04f9ad09ca0c9ad1fff3f7930fb09ea7203e926f771c7264a25fd789a257b4a6cc82765b6dcc9aa06ea5ed\
             58d4da05f7bd31dca0e751aa9c98db4009cb967d251d",
        ),
        (
            "db8c2467cc480077ef312166b3e6b8eb510e73cc06905f8bca281552d1006e12",
            "048da7a9bcefcc924e6b0fc31df79ac882b13bd57ed82c82e522ccae3a1fa39c8d5a725ac2adbc43b822ac\
             95a5d00af19b56b1a033927c42096449b2b1e815b486",
        ),
        // P-384.
        (
            "94ffe9520dcf1abda427e4fdd16395bdd7c4d3a94828da74f8d9515335fed60855abff10d019e47fbde50f\
             f00a092ff8",
            "04801bf92d01a4f83ede1a220ec2605d32755f6452dfef9ac24b5d9f9251de95d5e5696fbf04033d2a651b\
             1c346e468080352a8b58eb5206793c9e3a99d8ec2f641e954f385521c589085959707feb9ef2626f61671d\
             c0c27083c9aa3f6772e40e",
        ),
    ];
    const P256: [u8; 10] = [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    const P384: [u8; 7] = [6, 5, 0x2b, 0x81, 4, 0, 0x22];
    const EC: [u8; 9] = [6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];

    fn bytes(hex: &str) -> Vec<u8> {
        let pairs = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    /// The same key in SEC1, with and without the curve, and in PKCS#8.
    fn encodings(number: &[u8], point: &[u8]) -> [PrivateKeyDer<'static>; 3] {
        let curve = if point.len() > 65 { &P384[..] } else { &P256 };
        let public = element(PUBLIC_KEY, &element(BIT_STRING, &[&[0], point].concat()));
        let sec1 = |parameters: &[u8]| {
            let fields = [&[2, 1, 1], &element(OCTET_STRING, number)[..], parameters, &public];
            element(SEQUENCE, &fields.concat())
        };
        let algorithm = element(SEQUENCE, &[&EC, curve].concat());
        let inner = element(OCTET_STRING, &sec1(&[]));
        let pkcs8 = element(SEQUENCE, &[&[2, 1, 0], &algorithm[..], &inner].concat());
        [
            PrivateKeyDer::Sec1(sec1(&element(PARAMETERS, curve)).into()),
            PrivateKeyDer::Sec1(sec1(&[]).into()),
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8)),
        ]
    }

    #[test]
    fn a_point_of_no_usable_curve_is_no_key() {
        let point = [vec![4], vec![7; 200]].concat();
        for key in encodings(&[1], &point) {
            assert!(normalize(&key).is_none());
        }
    }

    #[test]
    fn a_number_may_have_zeros_in_front_or_lack_them() {
        for (number, point) in KEYS {
            let (number, point) = (bytes(number), bytes(point));
            let zeros = number.iter().take_while(|byte| **byte == 0).count();
            let short = number[zeros..].to_vec();
            let long = [&[0], &number[..]].concat();
            for written in [&number, &short, &long] {
                for key in encodings(written, &point) {
                    assert_eq!(any_ecdsa_type(&key).is_ok(), *written == number, "{written:x?}");
                    let key = normalize(&key).unwrap();
                    let signer = any_ecdsa_type(&key).unwrap();
                    let public = signer.public_key().unwrap();
                    assert!(public.as_ref().ends_with(&point));
                }
            }
        }
    }

    #[test]
    fn what_is_no_such_key_is_left_alone() {
        let (number, point) = (bytes(KEYS[1].0), bytes(KEYS[1].1));
        let too_large = [&[1], &number[..]].concat();
        for key in encodings(&too_large, &point) {
            assert!(normalize(&key).is_none());
        }
        for key in encodings(&number, &point[..33]) {
            let other = normalize(&key);
            assert!(other.is_none_or(|key| any_ecdsa_type(&key).is_err()));
        }
        let [_, sec1, pkcs8] = encodings(&number, &point);
        for length in 0..sec1.secret_der().len() {
            let cut = sec1.secret_der()[..length].to_vec();
            assert!(normalize(&PrivateKeyDer::Sec1(cut.into())).is_none());
        }
        for length in 0..pkcs8.secret_der().len() {
            let cut = pkcs8.secret_der()[..length].to_vec();
            assert!(normalize(&PrivateKeyDer::Pkcs8(cut.into())).is_none());
        }
        let rsa = PrivateKeyDer::Pkcs1(sec1.secret_der().to_vec().into());
        assert!(normalize(&rsa).is_none());
    }
}
