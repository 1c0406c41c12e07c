//! Options of the commands.

use std::time::Duration;

use super::server_url::ServerUrl;
use crate::options::{Arity, Settings, Spec, set};

/// Settings of all commands. A command uses those that its table sets.
#[derive(Debug)]
pub struct CliOptions {
    pub(super) server: ServerUrl,
    pub(super) retry: Duration,
    pub(super) from: Option<i64>,
    pub(super) follow: bool,
    pub(super) json: bool,
    pub(super) direct_port: u16,
    pub(super) origin: String,
    pub(super) wait: Duration,
    pub(super) prompt_timeout: Duration,
    pub(super) quick: bool,
    pub(super) admin: bool,
    pub(super) secrets: bool,
    pub(super) repair: bool,
    pub(super) restored: bool,
    pub(super) kind: Kind,
    pub(super) away: Duration,
    pub(super) message: Option<String>,
}

/// Kind of the names of `speak create`, as `/create` calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Inbox,
    Feed,
    Room,
}

/// Variable with the server that the commands talk to: that of the option `--server`.
pub const SERVER_ENV: &str = "SPEAK_SERVER";

pub(super) const SERVER: Spec<CliOptions> = Spec {
    name: "server",
    takes: Arity::One("URL"),
    default: "http://localhost:8080",
    help: "server: http(s)://HOST:PORT or unix:PATH; or SPEAK_SERVER",
    set: |options, text| set(&mut options.server, ServerUrl::parse(text)),
};

impl Settings for CliOptions {
    fn clear_list(&mut self, _: &str) {}
}

impl CliOptions {
    /// Returns the defaults of the options in `specs`. The others are empty.
    pub(super) fn defaults(specs: &[Spec<Self>]) -> Self {
        let mut options = Self {
            server: ServerUrl::parse(SERVER.default).expect("a valid default"),
            retry: Duration::ZERO,
            from: None,
            follow: false,
            json: false,
            direct_port: 0,
            origin: String::new(),
            wait: Duration::ZERO,
            prompt_timeout: Duration::ZERO,
            quick: false,
            admin: false,
            secrets: false,
            repair: false,
            restored: false,
            kind: Kind::Inbox,
            away: Duration::ZERO,
            message: None,
        };
        for spec in specs {
            spec.set_all(&mut options, spec.default).expect("valid defaults");
        }
        options
    }
}
