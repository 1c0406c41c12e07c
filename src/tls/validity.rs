//! The time in which a certificate is valid (RFC 5280, section 4.1.2.5). No library that the
//! handshake needs tells it.

use std::ops::Range;

use super::der::{INTEGER, SEQUENCE, expect};

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The optional version of a certificate.
const VERSION: u8 = 0xa0;

/// Returns the time in which a certificate is valid, in Unix seconds: times before 1970 are 0.
/// `None` if `certificate` is not the DER of one.
pub(super) fn validity(certificate: &[u8]) -> Option<Range<u64>> {
    let (certificate, _) = expect(SEQUENCE, certificate)?;
    let (mut fields, _) = expect(SEQUENCE, certificate)?;
    if let Some((_, rest)) = expect(VERSION, fields) {
        fields = rest;
    }
    // Serial number, algorithm of the signature, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, fields) = expect(tag, fields)?;
    }
    let (validity, _) = expect(SEQUENCE, fields)?;
    let (start, rest) = time(validity)?;
    // The last second is a valid one.
    let (end, _) = time(rest)?;
    Some(start..end.saturating_add(1))
}

/// Splits a time from the bytes after it.
fn time(bytes: &[u8]) -> Option<(u64, &[u8])> {
    if let Some((digits, rest)) = expect(UTC_TIME, bytes) {
        let (year, digits) = number(digits, 2)?;
        // 50 to 99 are years of the twentieth century.
        return Some((seconds(if year < 50 { 2000 + year } else { 1900 + year }, digits)?, rest));
    }
    let (digits, rest) = expect(GENERALIZED_TIME, bytes)?;
    let (year, digits) = number(digits, 4)?;
    Some((seconds(year, digits)?, rest))
}

/// Takes a decimal number of `digits` digits.
fn number(text: &[u8], digits: usize) -> Option<(u64, &[u8])> {
    let (number, rest) = text.split_at_checked(digits)?;
    let is_number = number.iter().all(u8::is_ascii_digit);
    let value = number.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit.wrapping_sub(b'0')));
    is_number.then_some((value, rest))
}

/// Unix seconds of a year and `MMDDHHMMSSZ`.
fn seconds(year: u64, text: &[u8]) -> Option<u64> {
    let (month, text) = number(text, 2)?;
    let (day, text) = number(text, 2)?;
    let (hour, text) = number(text, 2)?;
    let (minute, text) = number(text, 2)?;
    let (second, text) = number(text, 2)?;
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day);
    if text != b"Z" || !is_date || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let Some(year_since_1970) = year.checked_sub(1970) else { return Some(0) };
    // A year begins in March here, so that a leap day is its last one.
    let (from_march, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = from_march / 4 - from_march / 100 + from_march / 400;
    let days_before_month = (153 * month + 2) / 5;
    // 719,468 days from March of the year 0 to 1970.
    let days = 365 * from_march + leap_days + days_before_month + day - 1;
    debug_assert!(days >= 719_468, "{year_since_1970} years after 1970");
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
    }

    #[test]
    fn times_are_seconds_since_1970() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", 0),
            (UTC_TIME, "491231235959Z", 2_524_607_999),
            (UTC_TIME, "500101000000Z", 0),
            (UTC_TIME, "240229120000Z", 1_709_208_000),
            (UTC_TIME, "240301000000Z", 1_709_251_200),
            (GENERALIZED_TIME, "20500101000000Z", 2_524_608_000),
            (GENERALIZED_TIME, "21000301000000Z", 4_107_542_400),
            (GENERALIZED_TIME, "99991231235959Z", 253_402_300_799),
            (GENERALIZED_TIME, "00010101000000Z", 0),
        ] {
            let bytes = element(tag, text.as_bytes());
            assert_eq!(time(&bytes), Some((expected, &[][..])), "{text}");
        }
        for text in ["", "7001010000Z", "701301000000Z", "700101240000Z", "70010100000 Z", "7"] {
            assert_eq!(time(&element(UTC_TIME, text.as_bytes())), None, "{text}");
        }
    }

    #[test]
    fn what_is_cut_is_no_certificate() {
        let serial = element(INTEGER, &[1]);
        let empty = element(SEQUENCE, &[]);
        let [start, end] =
            ["700101000000Z", "700101000009Z"].map(|text| element(UTC_TIME, text.as_bytes()));
        let validity_der = element(SEQUENCE, &[start, end].concat());
        for version in [vec![], element(VERSION, &[2, 1, 2])] {
            let fields =
                [&version[..], &serial, &empty, &empty, &validity_der, b"subject"].concat();
            let certificate = element(SEQUENCE, &element(SEQUENCE, &fields));
            assert_eq!(validity(&certificate), Some(0..10));
            for length in 0..certificate.len() {
                assert_eq!(validity(&certificate[..length]), None);
            }
        }
    }
}
