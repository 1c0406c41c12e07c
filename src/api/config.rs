//! Settings of the API.

use std::time::Duration;

use super::client_addr::TrustedProxies;
use super::cors::AllowOrigin;

/// Settings of the API, from the options.
#[derive(Clone, Debug)]
pub struct Config {
    /// Size of a message in bytes. Larger ones are rejected.
    pub max_message: usize,
    /// Size of the text of an introduction in bytes. Larger ones are rejected.
    pub max_introduction: usize,
    /// Size of a request head in bytes. Larger ones are rejected.
    pub max_head: usize,
    /// Longest wait of a long poll. A longer `timeout` is reduced to it.
    pub poll_timeout: Duration,
    /// Pages that may add messages and read responses.
    pub allow_origin: AllowOrigin,
    /// Serve the demo at `/`.
    pub demo: bool,
    /// Calls of `/write` and `/introduce` per second and address; 0 for no limit.
    pub max_rate: usize,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub proxies: TrustedProxies,
    /// Port of https to which plain HTTP is redirected; `None` for no redirects.
    pub https_port: Option<u16>,
}
