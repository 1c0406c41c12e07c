//! Settings of the operator, and chance.

use std::cell::Cell;
use std::time::Duration;

use speak::api::{AllowOrigin, Cidr, Config, TrustedProxies};
use speak::hub::{self, Epoch};

use super::super::source::Source;

/// The only page on the list, if there is a list.
pub(super) const LISTED: &str = "http://a";

pub(super) const EPOCH: &str = "epochABC";

/// Unsent bytes that may be queued for one stream.
pub(super) const MAX_BACKLOG: usize = 2_000;

pub(super) struct Settings {
    history: usize,
    retention_ms: u64,
    timeout_ms: u64,
    grace_ms: u64,
    pub(super) max_reply: usize,
    pub(super) max_channels: usize,
    pub(super) max_message: usize,
    pub(super) has_list: bool,
    demo: bool,
    pub(super) poll_timeout_ms: u64,
    max_memory: usize,
    max_rate: usize,
    proxy: Option<&'static str>,
}

impl Settings {
    /// The first choices are those of most servers.
    pub(super) fn take(source: &mut Source<'_>) -> Self {
        Self {
            history: source.pick(&[100, 0, 1, 3]),
            retention_ms: source.pick(&[600_000, 40, 3_000, 70_000]),
            timeout_ms: source.pick(&[5_000, 1, 30, 100_000]),
            grace_ms: source.pick(&[0, 7, 3_000, 30_000]),
            max_reply: source.pick(&[1 << 20, 1, 150, 400]),
            max_channels: source.pick(&[0, 1, 3]),
            max_message: source.pick(&[1_000, 0, 16]),
            has_list: source.below(2) == 1,
            demo: source.below(2) == 0,
            poll_timeout_ms: source.pick(&[25_000, 1_000, 0]),
            max_memory: source.pick(&[usize::MAX, 2_000, 8_000, 40_000]),
            max_rate: source.pick(&[0, 1, 0]),
            proxy: source.pick(&[None, Some("10.0.0.0/31")]),
        }
    }

    pub(super) fn of_hub(&self) -> hub::Config {
        hub::Config {
            history: self.history,
            retention: Duration::from_millis(self.retention_ms),
            connection_timeout: Duration::from_millis(self.timeout_ms),
            close_grace: Duration::from_millis(self.grace_ms),
            max_reply: self.max_reply,
            max_channels: self.max_channels,
            max_memory: self.max_memory,
            epoch: Epoch::new(EPOCH.as_bytes().try_into().expect("eight characters")),
            ..hub::Config::default()
        }
    }

    pub(super) fn of_api(&self) -> Config {
        Config {
            max_message: self.max_message,
            max_head: 2048,
            poll_timeout: Duration::from_millis(self.poll_timeout_ms),
            allow_origin: if self.has_list {
                AllowOrigin::List(vec![LISTED.to_owned()])
            } else {
                AllowOrigin::Any
            },
            demo: self.demo,
            max_rate: self.max_rate,
            proxies: TrustedProxies(self.proxy.and_then(Cidr::parse).into_iter().collect()),
        }
    }
}

thread_local! {
    static CHANCE: Cell<u64> = const { Cell::new(0) };
}

pub(super) fn reset_chance() {
    CHANCE.set(0);
}

/// Fills a buffer with bytes that are the same in every run.
pub(super) fn chance(bytes: &mut [u8]) {
    for byte in bytes {
        let next = CHANCE
            .get()
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        CHANCE.set(next);
        *byte = (next >> 56) as u8;
    }
}
