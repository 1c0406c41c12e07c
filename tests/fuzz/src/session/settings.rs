//! Settings of the operator, and chance.

use std::cell::RefCell;
use std::time::Duration;

use speak::api::{AllowOrigin, Cidr, Config, TrustedProxies};
use speak::hub::{self, Epoch};
use support::random::Random;

use super::super::source::Source;

/// The only page on the list, if there is a list.
pub(super) const LISTED: &str = "http://a";

pub(super) const EPOCH: &str = "epochABC";

/// Unsent bytes that may be queued for one stream.
pub(super) const MAX_BACKLOG: usize = 2_000;

pub(super) struct Settings {
    pub(super) hub: hub::Config,
    pub(super) api: Config,
    pub(super) has_list: bool,
}

impl Settings {
    /// The first choices are those of most servers.
    pub(super) fn take(source: &mut Source<'_>) -> Self {
        let ms = Duration::from_millis;
        let mut hub = hub::Config {
            epoch: Epoch::new(EPOCH.as_bytes().try_into().expect("eight characters")),
            history: source.pick(&[100, 0, 1, 3]),
            retention: ms(source.pick(&[600_000, 40, 3_000, 70_000])),
            connection_timeout: ms(source.pick(&[5_000, 1, 30, 100_000])),
            close_grace: ms(source.pick(&[0, 7, 3_000, 30_000])),
            max_reply: source.pick(&[1 << 20, 1, 150, 400]),
            max_channels: source.pick(&[0, 1, 3]),
            ..hub::Config::default()
        };
        let list = |origin: &str| AllowOrigin::List(vec![origin.to_owned()]);
        let mut api = Config {
            max_head: 2048,
            max_message: source.pick(&[1_000, 0, 16]),
            max_introduction: 0,
            allow_origin: source.pick(&[None, Some(LISTED)]).map_or(AllowOrigin::Any, list),
            demo: source.below(2) == 0,
            poll_timeout: ms(source.pick(&[25_000, 1_000, 0])),
            max_rate: 0,
            proxies: TrustedProxies(Vec::new()),
            https_port: None,
        };
        hub.max_memory = source.pick(&[usize::MAX, 2_000, 8_000, 40_000]);
        api.max_rate = source.pick(&[0, 1, 0]);
        api.proxies.0.extend(source.pick(&[None, Some("10.0.0.0/31")]).and_then(Cidr::parse));
        api.max_introduction = source.pick(&[500, 8]);
        let has_list = matches!(api.allow_origin, AllowOrigin::List(_));
        Self { hub, api, has_list }
    }
}

thread_local! {
    static CHANCE: RefCell<Random> = RefCell::default();
}

pub(super) fn reset_chance() {
    CHANCE.take();
}

/// Fills a buffer with bytes that are the same in every run.
pub(super) fn chance(bytes: &mut [u8]) {
    CHANCE.with_borrow_mut(|random| bytes.iter_mut().for_each(|byte| *byte = random.next() as u8));
}
