//! The options of the server, and the table of them.

use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::listen_addr::ListenAddr;
use super::spec::{Arity, Settings, Spec, push, set};
use super::values::{
    address, count, duration, level, name, network, nonzero, origin, parse_bool, path, size,
};
use crate::api::{AllowOrigin, Network, TrustedProxies};

/// Everything that the operator decides. OPERATIONS.md says what each is for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to serve.
    pub listen: Vec<ListenAddr>,
    /// Where metrics are served, apart from the public doors.
    pub admin_listen: Option<ListenAddr>,
    /// The longest that a long poll waits.
    pub poll_timeout: Duration,
    /// How long an introduced connection outlives its last call.
    pub connection_timeout: Duration,
    /// How long it outlives the closing of a read that waited with it.
    pub close_grace: Duration,
    /// How long an idle client may stay.
    pub keep_alive: Duration,
    /// How long a request may take to arrive, and an answer may make no progress.
    pub request_timeout: Duration,
    /// After how much silence a stream gets a sign of life.
    pub heartbeat: Duration,
    /// Messages retained in a channel.
    pub history: usize,
    /// How long a message is retained.
    pub retention: Duration,
    /// A message's size, in bytes.
    pub max_message: usize,
    /// A request head's size, in bytes.
    pub max_head: usize,
    /// The messages in one answer, in bytes.
    pub max_reply: usize,
    /// What may wait unsent for one stream, in bytes.
    pub max_backlog: usize,
    /// Clients at once; 0 for what the file limit allows.
    pub max_clients: usize,
    /// Clients at once from one address; 0 for no limit.
    pub max_clients_per_address: usize,
    /// Calls that add messages, a second and address; 0 for no limit.
    pub max_rate: usize,
    /// Channels at once; 0 for no limit.
    pub max_channels: usize,
    /// What may be held for clients, in bytes.
    pub max_memory: usize,
    /// Whose `X-Forwarded-For` names the client.
    pub trust_proxy: Vec<Network>,
    /// Which pages may call.
    pub allow_origin: Vec<String>,
    /// Whether `/` is the demo.
    pub demo: bool,
    /// Where the hub is kept from a stop to the next start.
    pub state: Option<PathBuf>,
    /// Whom root becomes: `USER` or `USER:GROUP`.
    pub user: Option<String>,
    /// Whether the process confines itself.
    pub sandbox: bool,
    /// What is logged.
    pub log: LevelFilter,
}

/// All options, in the order in which they are told.
pub const SPECS: &[Spec<Options>] = &[
    Spec {
        name: "listen",
        takes: Arity::Several("ADDR"),
        default: "8080,7732",
        help: "address to listen on: 8080, [::1]:8080, unix:PATH",
        set: |options, text| push(&mut options.listen, address(text)),
    },
    Spec {
        name: "admin-listen",
        takes: Arity::One("ADDR"),
        default: "",
        help: "where /metrics and /health are served apart",
        set: |options, text| set(&mut options.admin_listen, address(text).map(Some)),
    },
    Spec {
        name: "poll-timeout",
        takes: Arity::One("TIME"),
        default: "25s",
        help: "the longest that a long poll waits",
        set: |options, text| set(&mut options.poll_timeout, duration(text)),
    },
    Spec {
        name: "connection-timeout",
        takes: Arity::One("TIME"),
        default: "5s",
        help: "how long an introduced connection outlives its last call",
        set: |options, text| set(&mut options.connection_timeout, duration(text).and_then(nonzero)),
    },
    Spec {
        name: "close-grace",
        takes: Arity::One("TIME"),
        default: "0s",
        help: "how long it outlives the closing of its waiting read",
        set: |options, text| set(&mut options.close_grace, duration(text)),
    },
    Spec {
        name: "keep-alive",
        takes: Arity::One("TIME"),
        default: "75s",
        help: "how long an idle client may stay",
        set: |options, text| set(&mut options.keep_alive, duration(text).and_then(nonzero)),
    },
    Spec {
        name: "request-timeout",
        takes: Arity::One("TIME"),
        default: "10s",
        help: "how long a request may take, or an answer stand still",
        set: |options, text| set(&mut options.request_timeout, duration(text).and_then(nonzero)),
    },
    Spec {
        name: "heartbeat",
        takes: Arity::One("TIME"),
        default: "15s",
        help: "after how much silence a stream gets a sign of life",
        set: |options, text| set(&mut options.heartbeat, duration(text).and_then(nonzero)),
    },
    Spec {
        name: "history",
        takes: Arity::One("COUNT"),
        default: "100",
        help: "messages retained in a channel; 0 retains none",
        set: |options, text| set(&mut options.history, count(text)),
    },
    Spec {
        name: "retention",
        takes: Arity::One("TIME"),
        default: "1h",
        help: "how long a message is retained",
        set: |options, text| set(&mut options.retention, duration(text).and_then(nonzero)),
    },
    Spec {
        name: "max-message",
        takes: Arity::One("SIZE"),
        default: "64k",
        help: "a message's size",
        set: |options, text| set(&mut options.max_message, size(text)),
    },
    Spec {
        name: "max-head",
        takes: Arity::One("SIZE"),
        default: "16k",
        help: "a request head's size",
        set: |options, text| set(&mut options.max_head, size(text).and_then(nonzero)),
    },
    Spec {
        name: "max-reply",
        takes: Arity::One("SIZE"),
        default: "1m",
        help: "the messages in one answer",
        set: |options, text| set(&mut options.max_reply, size(text).and_then(nonzero)),
    },
    Spec {
        name: "max-backlog",
        takes: Arity::One("SIZE"),
        default: "1m",
        help: "what may wait unsent for one stream",
        set: |options, text| set(&mut options.max_backlog, size(text).and_then(nonzero)),
    },
    Spec {
        name: "max-clients",
        takes: Arity::One("COUNT"),
        default: "0",
        help: "clients at once; 0 for what the file limit allows",
        set: |options, text| set(&mut options.max_clients, count(text)),
    },
    Spec {
        name: "max-clients-per-address",
        takes: Arity::One("COUNT"),
        default: "0",
        help: "clients at once from one address; 0 for no limit",
        set: |options, text| set(&mut options.max_clients_per_address, count(text)),
    },
    Spec {
        name: "max-rate",
        takes: Arity::One("COUNT"),
        default: "0",
        help: "messages a second from one address; 0 for no limit",
        set: |options, text| set(&mut options.max_rate, count(text)),
    },
    Spec {
        name: "max-channels",
        takes: Arity::One("COUNT"),
        default: "0",
        help: "channels at once; 0 for no limit",
        set: |options, text| set(&mut options.max_channels, count(text)),
    },
    Spec {
        name: "max-memory",
        takes: Arity::One("SIZE"),
        default: "256m",
        help: "what messages, members and channels may hold together",
        set: |options, text| set(&mut options.max_memory, size(text).and_then(nonzero)),
    },
    Spec {
        name: "trust-proxy",
        takes: Arity::Several("ADDR"),
        default: "",
        help: "whose X-Forwarded-For names the client: 10.0.0.0/8, unix",
        set: |options, text| push(&mut options.trust_proxy, network(text)),
    },
    Spec {
        name: "allow-origin",
        takes: Arity::Several("ORIGIN"),
        default: "*",
        help: "pages that may call: * or https://example.org",
        set: |options, text| push(&mut options.allow_origin, origin(text)),
    },
    Spec {
        name: "no-demo",
        takes: Arity::Nothing,
        default: "off",
        help: "serve no demo page",
        set: |options, text| set(&mut options.demo, parse_bool(text).map(|is_set| !is_set)),
    },
    Spec {
        name: "state",
        takes: Arity::One("FILE"),
        default: "",
        help: "keeps channels and connections from a stop to the next start",
        set: |options, text| set(&mut options.state, path(text)),
    },
    Spec {
        name: "user",
        takes: Arity::One("NAME"),
        default: "",
        help: "whom root becomes once bound: NAME, NAME:GROUP, UID:GID",
        set: |options, text| set(&mut options.user, name(text).map(Some)),
    },
    Spec {
        name: "no-sandbox",
        takes: Arity::Nothing,
        default: "off",
        help: "keep capabilities, and do without Landlock",
        set: |options, text| set(&mut options.sandbox, parse_bool(text).map(|is_set| !is_set)),
    },
    Spec {
        name: "log",
        takes: Arity::One("LEVEL"),
        default: "info",
        help: "error, warn, info or debug",
        set: |options, text| set(&mut options.log, level(text)),
    },
];

impl Options {
    /// Which pages may call, as the calls want to know it.
    #[must_use]
    pub fn allow_origin(&self) -> AllowOrigin {
        if self.allow_origin.iter().any(|origin| origin == "*") {
            AllowOrigin::Any
        } else {
            AllowOrigin::List(self.allow_origin.clone())
        }
    }

    /// Whether it serves where it does if nobody says anything.
    #[must_use]
    pub fn has_default_listeners(&self) -> bool {
        self.listen == Self::defaults().listen
    }

    /// Who may say in whose name they call, as the calls want to know it.
    #[must_use]
    pub fn proxies(&self) -> TrustedProxies {
        TrustedProxies(self.trust_proxy.clone())
    }

    pub(super) fn defaults() -> Self {
        let mut options = Self {
            listen: Vec::new(),
            admin_listen: None,
            poll_timeout: Duration::ZERO,
            connection_timeout: Duration::ZERO,
            close_grace: Duration::ZERO,
            keep_alive: Duration::ZERO,
            request_timeout: Duration::ZERO,
            heartbeat: Duration::ZERO,
            history: 0,
            retention: Duration::ZERO,
            max_message: 0,
            max_head: 0,
            max_reply: 0,
            max_backlog: 0,
            max_clients: 0,
            max_clients_per_address: 0,
            max_rate: 0,
            max_channels: 0,
            max_memory: 0,
            trust_proxy: Vec::new(),
            allow_origin: Vec::new(),
            demo: true,
            state: None,
            user: None,
            sandbox: true,
            log: LevelFilter::Info,
        };
        for spec in SPECS {
            spec.set_all(&mut options, spec.default).expect("defaults are good");
        }
        options
    }
}

impl Settings for Options {
    fn clear_list(&mut self, name: &str) {
        match name {
            "listen" => self.listen.clear(),
            "allow-origin" => self.allow_origin.clear(),
            "trust-proxy" => self.trust_proxy.clear(),
            _ => {}
        }
    }
}
