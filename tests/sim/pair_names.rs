//! Two names of channels that share a bucket of the table of watermarks.
//!
//! Chance would bring them together in one seed of many thousands. The hash is internal to the hub,
//! so they are found as a client would find them: one name is used and dropped, and another begins
//! where it ended.

use std::sync::OnceLock;

use speak::hub::{ChannelKey, ChannelName, Hub, Millis, Mode, Now, ReadRequest, ReadResult, Since};

use super::plan::{IDLE_CHANNEL_MS, Limits};

/// The hub's secret if these two are used.
pub(crate) const KEY: [u8; 16] = *b"0123456789abcdef";

/// Returns the two names. They are found once, since that takes some thousands of reads.
pub(crate) fn colliding() -> &'static [String; 2] {
    static FOUND: OnceLock<[String; 2]> = OnceLock::new();
    FOUND.get_or_init(find)
}

fn find() -> [String; 2] {
    let limits = Limits { history: 1, retention_ms: 1, timeout_ms: 1, ..Limits::default() };
    let mut hub = Hub::new(limits.config("anyEpoch", KEY));
    let first = "name".to_owned();
    hub.write(Now::default(), &log(&first), "", None).expect("no credentials are needed");
    for at_ms in [1, IDLE_CHANNEL_MS] {
        hub.expire(Now { mono: Millis(at_ms), ..Now::default() });
        hub.deliver(Now::default(), |_| {});
    }
    let second = (0..1_000_000)
        .map(|number| format!("name {number}"))
        .find(|name| next_id(&mut hub, name) > 1);
    [first, second.expect("a table of 4,096 buckets is not that large")]
}

fn log(name: &str) -> ChannelKey<'_> {
    ChannelName::parse(name).unwrap().for_writing().unwrap()
}

fn next_id(hub: &mut Hub, name: &str) -> u64 {
    let follows = [(log(name), Since::Now)];
    let call = ReadRequest {
        targets: &follows,
        epoch: None,
        credentials: None,
        grace_ms: None,
        mode: Mode::Immediate,
        token: 0,
    };
    match hub.read(Now::default(), &call) {
        Ok(ReadResult::Ready(reply)) => reply.slices()[0].next_id(),
        _ => unreachable!("it is answered at once"),
    }
}
