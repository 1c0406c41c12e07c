//! Configuration of the hub and the API, from the options.

use crate::api;
use crate::hub::{self, Epoch, token};
use crate::options::Options;

/// Returns the hub's configuration. `random` fills a buffer with unpredictable bytes.
pub(crate) fn hub_config(options: &Options, random: fn(&mut [u8])) -> hub::Config {
    let random_byte = || {
        let mut byte = [0];
        random(&mut byte);
        byte[0]
    };
    let mut watermark_hash_key = [0; 16];
    random(&mut watermark_hash_key);
    hub::Config {
        history: options.history,
        retention: options.retention,
        connection_timeout: options.connection_timeout,
        close_grace: options.close_grace,
        max_reply: options.max_reply,
        max_channels: options.max_channels,
        max_memory: options.max_memory,
        epoch: Epoch::new(token(random_byte)),
        watermark_hash_key,
    }
}

pub(super) fn api_config(options: &Options) -> api::Config {
    api::Config {
        max_message: options.max_message,
        max_introduction: options.max_introduction,
        max_head: options.max_head,
        poll_timeout: options.poll_timeout,
        allow_origin: options.allow_origin(),
        demo: options.demo,
        max_rate: options.max_rate,
        proxies: options.proxies(),
        https_port: options.https_port(),
    }
}
