//! Parsers for the values of options. An error quotes the text and says what to give instead.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::listen_addr::ListenAddr;
use crate::api::Cidr;

pub(crate) fn nonzero<T: Default + PartialEq>(value: T) -> Result<T, String> {
    if value == T::default() { Err("must be greater than 0".into()) } else { Ok(value) }
}

pub(super) fn parse_listen_addr(text: &str) -> Result<ListenAddr, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            return Err("'unix:' needs a path: give unix:PATH".into());
        }
        return Ok(ListenAddr::Unix(path.into()));
    }
    if let Ok(port) = text.parse::<u16>() {
        return Ok(ListenAddr::Tcp((Ipv6Addr::UNSPECIFIED, port).into()));
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok()) {
        return Ok(ListenAddr::Tcp((Ipv4Addr::LOCALHOST, port).into()));
    }
    let error = |_| {
        format!("'{text}' is not an address: give 8080, 127.0.0.1:8080, [::1]:8080 or unix:PATH")
    };
    text.parse().map(ListenAddr::Tcp).map_err(error)
}

/// Longest duration: ten years. So no sum of durations overflows.
const SECONDS_MAX: f64 = 10.0 * 365.0 * 86_400.0;

pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let error =
        || format!("'{text}' is not a time: give seconds (5, 0.2) or a unit (200ms, 5s, 10m, 1h)");
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit_seconds = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(error()),
    };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = digits.parse().ok().filter(|_| is_number).ok_or_else(error)?;
    let seconds = number * unit_seconds;
    if seconds > SECONDS_MAX {
        return Err(format!("'{text}' is too long: give at most ten years"));
    }
    let duration = Duration::from_secs_f64(seconds);
    // The server counts in milliseconds. Rounding down would make a short time 0.
    let whole_ms = duration.as_nanos().div_ceil(1_000_000);
    Ok(Duration::from_millis(u64::try_from(whole_ms).expect("ten years fit")))
}

pub(super) fn parse_size(text: &str) -> Result<usize, String> {
    let error = || format!("'{text}' is not a size: give bytes, or a number with k, m or g");
    let (digits, factor) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    let number = parse_count(digits).map_err(|_| error())?;
    // The limit allows for sums of sizes, and for percent-encoding, which triples a message.
    number.checked_mul(factor).filter(|bytes| *bytes <= isize::MAX as usize / 16).ok_or_else(error)
}

pub(super) fn parse_count(text: &str) -> Result<usize, String> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| is_number)
        .ok_or_else(|| format!("'{text}' is not a number: give 0 or more"))
}

pub(super) fn parse_network(text: &str) -> Result<Cidr, String> {
    let error =
        || format!("'{text}' is not an address: give 127.0.0.1, 10.0.0.0/8, 2001:db8::/32 or unix");
    Cidr::parse(text).ok_or_else(error)
}

/// Parses a path. Returns None for an empty text, which unsets the option.
pub(super) fn parse_path(text: &str) -> Result<Option<PathBuf>, String> {
    let names_a_file = !text.ends_with('/');
    if names_a_file {
        Ok(Some(text).filter(|text| !text.is_empty()).map(PathBuf::from))
    } else {
        Err(format!("'{text}' is a directory: give a file in it"))
    }
}

pub(crate) fn parse_origin(text: &str) -> Result<String, String> {
    let host = text.split_once("://").map(|(_, host)| host);
    let is_origin =
        host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', ' ', '@']));
    let is_printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if (is_origin && is_printable) || matches!(text, "*" | "null") {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!("'{text}' is not an origin: give *, SCHEME://HOST or SCHEME://HOST:PORT"))
    }
}

pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "on" | "1" | "true" | "yes" => Ok(true),
        "off" | "0" | "false" | "no" => Ok(false),
        _ => Err(format!("'{text}' is neither on nor off; give one of them")),
    }
}

pub(super) fn parse_name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("needs a name".into()) } else { Ok(text.to_owned()) }
}

pub(super) fn parse_level(text: &str) -> Result<LevelFilter, String> {
    match text {
        "error" => Ok(LevelFilter::Error),
        "warn" => Ok(LevelFilter::Warn),
        "info" => Ok(LevelFilter::Info),
        "debug" => Ok(LevelFilter::Debug),
        _ => Err(format!("'{text}' is not a level: give error, warn, info or debug")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_may_have_units() {
        for (text, ms) in [
            ("5", 5_000),
            ("0.2", 200),
            ("200ms", 200),
            ("5s", 5_000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("0", 0),
            ("0.0001", 1),
            ("1.5h", 5_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "5x", "-1", "1e3", "5 s", "inf", "nan", "99999999999h", ".", "1.2.3"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for (text, bytes) in
            [("0", 0), ("100", 100), ("64k", 65_536), ("1m", 1 << 20), ("2G", 2 << 30)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "k", "-1", "+1", "1.5k", "1kb", "99999999999999999999", "9999999999999g", "ü"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
