//! Parsers for the values of options. An error quotes the text and says what to give instead.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::listen_addr::{ListenAddr, TLS_PREFIX};
use crate::api::Cidr;
use crate::clustered::HAS_CLUSTER_TLS;
use crate::log::SyncMode;

pub(crate) fn nonzero<T: Default + PartialEq>(value: T) -> Result<T, String> {
    if value == T::default() { Err("must be greater than 0".into()) } else { Ok(value) }
}

/// This build has listeners with TLS, which is the feature `tls`.
pub(super) const HAS_TLS: bool = cfg!(feature = "tls");

const NO_TLS: &str = "this build has no TLS; use the full one";

pub(super) fn parse_listen_addr(text: &str) -> Result<ListenAddr, String> {
    let Some(address) = text.strip_prefix(TLS_PREFIX) else { return parse_plain_addr(text) };
    if !HAS_TLS {
        return Err(NO_TLS.into());
    }
    match parse_plain_addr(address) {
        Ok(ListenAddr::Tcp(address)) => Ok(ListenAddr::Tls(address)),
        _ => Err(format!("'{text}' is not an address: give tls:443 or tls:[::1]:443")),
    }
}

/// Parses the address of the admin listener, which is for the operator's own machine.
pub(super) fn parse_admin_addr(text: &str) -> Result<ListenAddr, String> {
    if text.starts_with(TLS_PREFIX) {
        return Err(format!("'{text}': this listener is without TLS; give 127.0.0.1:9090"));
    }
    parse_plain_addr(text)
}

fn parse_plain_addr(text: &str) -> Result<ListenAddr, String> {
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
        let tls = if HAS_TLS { ", tls:443" } else { "" };
        format!(
            "'{text}' is not an address: give 8080, 127.0.0.1:8080, [::1]:8080{tls} or unix:PATH"
        )
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

/// Largest size of all memory together, in bytes: half of what this machine can address.
const MEMORY_MAX: usize = isize::MAX as usize;

/// Largest size of anything else. So no sum of sizes overflows, and no size of an encoded message:
/// percent-encoding triples it, and JSON makes it six times as long.
const SIZE_MAX: usize = MEMORY_MAX / 16;

/// Parses a size. Cuts a larger one to [`SIZE_MAX`].
pub(super) fn parse_size(text: &str) -> Result<usize, String> {
    parse_memory(text).map(|bytes| bytes.min(SIZE_MAX))
}

/// Parses a size of memory. Cuts a larger one to [`MEMORY_MAX`]: the same options start a server on
/// every machine.
pub(super) fn parse_memory(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let bytes = parse_whole(digits).and_then(|number| number.checked_mul(1 << shift));
    bytes.map(|bytes| usize::try_from(bytes).unwrap_or(MEMORY_MAX).min(MEMORY_MAX)).ok_or_else(
        || format!("'{text}' is not a size: give a whole number of bytes, or one with k, m or g"),
    )
}

/// Parses a count. Cuts one that this machine cannot count to.
pub(super) fn parse_count(text: &str) -> Result<usize, String> {
    let count = parse_whole(text).map(|number| usize::try_from(number).unwrap_or(usize::MAX));
    count.ok_or_else(|| format!("'{text}' is not a whole number below 2^64: give 0 or more"))
}

fn parse_whole(digits: &str) -> Option<u64> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
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

/// Parses the path of a directory. Returns None for an empty text, which unsets the option.
pub(super) fn parse_dir(text: &str) -> Option<PathBuf> {
    Some(text).filter(|text| !text.is_empty()).map(PathBuf::from)
}

/// Takes the path of a certificate or of a key.
pub(super) fn parse_tls_file(text: &str) -> Result<PathBuf, String> {
    if HAS_TLS { parse_name(text).map(PathBuf::from) } else { Err(NO_TLS.into()) }
}

pub(super) fn parse_sync(text: &str) -> Result<SyncMode, String> {
    match text {
        "always" => Ok(SyncMode::Always),
        "os" => Ok(SyncMode::Os),
        _ => Err(format!("'{text}' is no moment: give always or os")),
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

/// Checks the URL of a cluster, which may have a password. The server parses it again, with the
/// password from elsewhere.
#[cfg(feature = "cluster")]
pub(super) fn parse_cluster(text: &str) -> Result<String, String> {
    match crate::cluster::ClusterUrl::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(not(feature = "cluster"))]
pub(super) fn parse_cluster(_: &str) -> Result<String, String> {
    Err("this build has no cluster; use the full one".into())
}

/// Takes the file with the authorities of a cluster. The server reads it.
pub(super) fn parse_cluster_ca(text: &str) -> Result<PathBuf, String> {
    if HAS_CLUSTER_TLS {
        parse_name(text).map(PathBuf::from)
    } else {
        Err("this build has no TLS for a cluster; use the full one".into())
    }
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
        for (text, bytes) in [
            ("0", 0_u64),
            ("100", 100),
            ("64k", 65_536),
            ("1m", 1 << 20),
            ("256m", 256 << 20),
            ("1G", 1 << 30),
        ] {
            assert_eq!(
                parse_memory(text),
                Ok(usize::try_from(bytes).unwrap_or(MEMORY_MAX)),
                "{text}"
            );
        }
        for text in
            ["", "k", "-1", "+1", "1.5k", "1kb", "99999999999999999999", "9999999999999g", "ü"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for text in ["1.5", "0.5s", "1.5k", "-1"] {
            for error in [parse_count(text).unwrap_err(), parse_size(text).unwrap_err()] {
                assert!(error.contains("whole number"), "{error}");
            }
        }
    }

    #[test]
    fn a_size_is_cut_to_what_the_machine_can_address() {
        let huge = format!("{}", u64::MAX);
        assert_eq!(parse_memory(&huge), Ok(MEMORY_MAX));
        assert_eq!(parse_size(&huge), Ok(SIZE_MAX));
        assert_eq!(parse_count(&huge), Ok(usize::MAX));
        assert!(SIZE_MAX.checked_mul(6).is_some_and(|bytes| bytes < MEMORY_MAX));
    }
}
