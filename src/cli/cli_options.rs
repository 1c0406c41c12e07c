//! The options of the commands.

use std::time::Duration;

use super::server_url::ServerUrl;
use crate::options::{Arity, Settings, Spec, set};

/// What the options of the commands set; each command has some of them.
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
    pub(super) timeout: Duration,
    pub(super) quick: bool,
}

pub(super) const SERVER: Spec<CliOptions> = Spec {
    name: "server",
    takes: Arity::One("URL"),
    default: "http://localhost:8080",
    help: "whom to ask: http(s)://HOST:PORT or unix:PATH; or SPEAK_SERVER",
    set: |choices, text| set(&mut choices.server, ServerUrl::parse(text)),
};

impl Settings for CliOptions {
    fn clear_list(&mut self, _: &str) {}
}

impl CliOptions {
    pub(super) fn defaults(specs: &[Spec<Self>]) -> Self {
        let mut choices = Self {
            server: ServerUrl::parse(SERVER.default).expect("the default is good"),
            retry: Duration::ZERO,
            from: None,
            follow: false,
            json: false,
            direct_port: 0,
            origin: String::new(),
            wait: Duration::ZERO,
            timeout: Duration::ZERO,
            quick: false,
        };
        for spec in specs {
            spec.set_all(&mut choices, spec.default).expect("defaults are good");
        }
        choices
    }
}
