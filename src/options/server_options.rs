//! Options of the server, and their table.

use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::listen_addr::ListenAddr;
use super::origin::parse_allowed_origin;
use super::spec::{Arity, Settings, Spec, push, set};
use super::values::{
    HAS_TLS, nonzero, parse_admin_addr, parse_bool, parse_cluster, parse_cluster_ca, parse_count,
    parse_dir, parse_duration, parse_level, parse_listen_addr, parse_memory, parse_name,
    parse_network, parse_path, parse_size, parse_sync, parse_tls_file,
};
use crate::api::{AllowOrigin, Cidr, TrustedProxies};
use crate::clustered::{HAS_CLUSTER, HAS_CLUSTER_TLS};
use crate::log::SyncMode;

/// Default port of https (RFC 9110, section 4.2.2).
const HTTPS_PORT: u16 = 443;

/// Settings of the server. `docs/operating.md` explains them.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses to listen on.
    pub listen: Vec<ListenAddr>,
    /// Files of the certificates for [`ListenAddr::Tls`], each with its chain. The first is the
    /// default one.
    pub tls_cert: Vec<PathBuf>,
    /// Files of the keys of these certificates, in the same order.
    pub tls_key: Vec<PathBuf>,
    /// Address of the admin listener, which serves metrics. None for no admin listener.
    pub admin_listen: Option<ListenAddr>,
    /// Maximum duration of a long poll.
    pub poll_timeout: Duration,
    /// Lifetime of an introduced connection after its last call.
    pub connection_timeout: Duration,
    /// Lifetime of an introduced connection after its pending read is closed.
    pub close_grace: Duration,
    /// Time after which an idle client is closed.
    pub keep_alive: Duration,
    /// Time in which a request must arrive, and in which a response must make progress.
    pub request_timeout: Duration,
    /// Silence after which a stream gets a heartbeat: without output on an event stream, without
    /// input from a WebSocket.
    pub heartbeat: Duration,
    /// Lifetime of an event stream that carries a connection. 0 for no end.
    pub stream_life: Duration,
    /// Messages retained per channel. 0 retains none.
    pub history: usize,
    /// Time for which a message is retained.
    pub retention: Duration,
    /// Maximum size of a message, in bytes.
    pub max_message: usize,
    /// Maximum size of the text of an introduction, in bytes.
    pub max_introduction: usize,
    /// Maximum size of a request head, in bytes.
    pub max_head: usize,
    /// Maximum size of the messages or members in one response, in bytes. Further calls return the
    /// rest.
    pub max_reply: usize,
    /// Unsent bytes of one stream. A stream with more is closed.
    pub max_backlog: usize,
    /// Maximum number of clients. 0 for as many as the limit on open files allows.
    pub max_clients: usize,
    /// Maximum number of clients per address. 0 for no limit.
    pub max_clients_per_address: usize,
    /// Calls per second and address that add messages. 0 for no limit.
    pub max_rate: usize,
    /// Maximum number of channels. 0 for no limit.
    pub max_channels: usize,
    /// Memory for channels, members, messages and client buffers, in bytes.
    pub max_memory: usize,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub trust_proxy: Vec<Cidr>,
    /// Origins of pages that may call, as [`AllowOrigin`] has them, or `*`.
    pub allow_origin: Vec<String>,
    /// Serve the demo at `/`.
    pub demo: bool,
    /// File that keeps the hub from a stop to the next start. None to keep nothing.
    pub state: Option<PathBuf>,
    /// Directory of the journal, which keeps the hub through a crash. None to keep nothing.
    pub journal: Option<PathBuf>,
    /// Moment at which a record of the journal counts as written.
    pub journal_sync: SyncMode,
    /// URL of the Redis that the nodes of a cluster share. None for a single process.
    pub cluster: Option<String>,
    /// File with the certificates of the authorities that are trusted to issue that of this Redis.
    /// None for a Redis without TLS.
    pub cluster_ca: Option<PathBuf>,
    /// Directory of the responses to challenges of ACME. None to answer no challenges.
    pub acme_challenges: Option<PathBuf>,
    /// Redirect plain HTTP to https.
    pub redirect_https: bool,
    /// User to switch to after binding: `USER` or `USER:GROUP`.
    pub user: Option<String>,
    /// Drop capabilities and use Landlock.
    pub sandbox: bool,
    /// Least severe level that is logged.
    pub log: LevelFilter,
    /// Check what a start needs, and exit.
    pub check: bool,
}

/// Help for `--cluster`.
const CLUSTER_HELP: &str = if HAS_CLUSTER {
    "Redis of a cluster of servers: redis://HOST[:PORT][/DB]"
} else {
    "Redis of a cluster of servers; only in the full build"
};

/// Help for `--cluster-ca`.
const CLUSTER_CA_HELP: &str = if HAS_CLUSTER_TLS {
    "certificates of the CAs trusted for a Redis with TLS, rediss://"
} else {
    "CAs for a Redis with TLS; only in the full build"
};

/// Help for `--listen`.
const LISTEN_HELP: &str = if HAS_TLS {
    "address: 8080, [::1]:8080, tls:443, unix:PATH"
} else {
    "address to listen on: 8080, [::1]:8080, unix:PATH"
};

/// Help for `--tls-cert`.
const TLS_CERT_HELP: &str = if HAS_TLS {
    "certificate for tls: addresses, with its chain"
} else {
    "certificate for TLS; only in the full build"
};

/// Help for `--tls-key`.
const TLS_KEY_HELP: &str = if HAS_TLS {
    "key of the certificate with the same place"
} else {
    "key of a certificate; only in the full build"
};

/// Listeners of a server with certificates, unless `--listen` names others.
const TLS_LISTEN: &str = "tls:443,tls:7732,80";

/// All options, in the order of help and documentation.
pub const SPECS: &[Spec<Options>] = &[
    Spec {
        name: "listen",
        takes: Arity::Several("ADDR"),
        default: "8080,7732",
        help: LISTEN_HELP,
        set: |options, text| push(&mut options.listen, parse_listen_addr(text)),
    },
    Spec {
        name: "tls-cert",
        takes: Arity::Several("FILE"),
        default: "",
        help: TLS_CERT_HELP,
        set: |options, text| push(&mut options.tls_cert, parse_tls_file(text)),
    },
    Spec {
        name: "tls-key",
        takes: Arity::Several("FILE"),
        default: "",
        help: TLS_KEY_HELP,
        set: |options, text| push(&mut options.tls_key, parse_tls_file(text)),
    },
    Spec {
        name: "admin-listen",
        takes: Arity::One("ADDR"),
        default: "",
        help: "address of the admin listener, for /metrics and /health",
        set: |options, text| set(&mut options.admin_listen, parse_admin_addr(text).map(Some)),
    },
    Spec {
        name: "poll-timeout",
        takes: Arity::One("TIME"),
        default: "25s",
        help: "maximum duration of a long poll",
        set: |options, text| set(&mut options.poll_timeout, parse_duration(text)),
    },
    Spec {
        name: "connection-timeout",
        takes: Arity::One("TIME"),
        default: "5s",
        help: "how long an introduced connection survives after its last call",
        set: |options, text| {
            set(&mut options.connection_timeout, parse_duration(text).and_then(nonzero))
        },
    },
    Spec {
        name: "close-grace",
        takes: Arity::One("TIME"),
        default: "0s",
        help: "how long a connection survives after its pending read is closed",
        set: |options, text| set(&mut options.close_grace, parse_duration(text)),
    },
    Spec {
        name: "keep-alive",
        takes: Arity::One("TIME"),
        default: "75s",
        help: "how long a client may stay idle",
        set: |options, text| set(&mut options.keep_alive, parse_duration(text).and_then(nonzero)),
    },
    Spec {
        name: "request-timeout",
        takes: Arity::One("TIME"),
        default: "10s",
        help: "how long a request may take, or a response make no progress",
        set: |options, text| {
            set(&mut options.request_timeout, parse_duration(text).and_then(nonzero))
        },
    },
    Spec {
        name: "heartbeat",
        takes: Arity::One("TIME"),
        default: "15s",
        help: "send a heartbeat on a silent stream after this long",
        set: |options, text| set(&mut options.heartbeat, parse_duration(text).and_then(nonzero)),
    },
    Spec {
        name: "stream-life",
        takes: Arity::One("TIME"),
        default: "10m",
        help: "how long an event stream with a connection lasts; 0: no end",
        set: |options, text| set(&mut options.stream_life, parse_duration(text)),
    },
    Spec {
        name: "history",
        takes: Arity::One("COUNT"),
        default: "100",
        help: "messages retained per channel; 0 retains none",
        set: |options, text| set(&mut options.history, parse_count(text)),
    },
    Spec {
        name: "retention",
        takes: Arity::One("TIME"),
        default: "1h",
        help: "how long a message is retained",
        set: |options, text| set(&mut options.retention, parse_duration(text).and_then(nonzero)),
    },
    Spec {
        name: "max-message",
        takes: Arity::One("SIZE"),
        default: "64k",
        help: "maximum size of a message",
        set: |options, text| set(&mut options.max_message, parse_size(text)),
    },
    Spec {
        name: "max-introduction",
        takes: Arity::One("SIZE"),
        default: "1k",
        help: "maximum size of an introduction",
        set: |options, text| set(&mut options.max_introduction, parse_size(text)),
    },
    Spec {
        name: "max-head",
        takes: Arity::One("SIZE"),
        default: "16k",
        help: "maximum size of a request head",
        set: |options, text| set(&mut options.max_head, parse_size(text).and_then(nonzero)),
    },
    Spec {
        name: "max-reply",
        takes: Arity::One("SIZE"),
        default: "1m",
        help: "maximum size of the messages or members in one response",
        set: |options, text| set(&mut options.max_reply, parse_size(text).and_then(nonzero)),
    },
    Spec {
        name: "max-backlog",
        takes: Arity::One("SIZE"),
        default: "1m",
        help: "unsent bytes per stream before it is closed",
        set: |options, text| set(&mut options.max_backlog, parse_size(text).and_then(nonzero)),
    },
    Spec {
        name: "max-clients",
        takes: Arity::One("COUNT"),
        default: "0",
        help: "maximum number of clients; 0 for what the file limit allows",
        set: |options, text| set(&mut options.max_clients, parse_count(text)),
    },
    Spec {
        name: "max-clients-per-address",
        takes: Arity::One("COUNT"),
        default: "0",
        help: "maximum number of clients per address; 0 for no limit",
        set: |options, text| set(&mut options.max_clients_per_address, parse_count(text)),
    },
    Spec {
        name: "max-rate",
        takes: Arity::One("COUNT"),
        default: "0",
        help: "messages per second from one address; 0 for no limit",
        set: |options, text| set(&mut options.max_rate, parse_count(text)),
    },
    Spec {
        name: "max-channels",
        takes: Arity::One("COUNT"),
        default: "0",
        help: "maximum number of channels; 0 for no limit",
        set: |options, text| set(&mut options.max_channels, parse_count(text)),
    },
    Spec {
        name: "max-memory",
        takes: Arity::One("SIZE"),
        default: "256m",
        help: "memory limit for channels, members, messages and client buffers",
        set: |options, text| set(&mut options.max_memory, parse_memory(text).and_then(nonzero)),
    },
    Spec {
        name: "trust-proxy",
        takes: Arity::Several("ADDR"),
        default: "",
        help: "proxy whose X-Forwarded-For is trusted: 10.0.0.0/8, unix",
        set: |options, text| push(&mut options.trust_proxy, parse_network(text)),
    },
    Spec {
        name: "allow-origin",
        takes: Arity::Several("ORIGIN"),
        default: "*",
        help: "origin of pages that may call: * or https://[*.]example.org",
        set: |options, text| push(&mut options.allow_origin, parse_allowed_origin(text)),
    },
    Spec {
        name: "no-demo",
        takes: Arity::Nothing,
        default: "off",
        help: "do not serve the demo page",
        set: |options, text| set(&mut options.demo, parse_bool(text).map(|is_set| !is_set)),
    },
    Spec {
        name: "state",
        takes: Arity::One("FILE"),
        default: "",
        help: "file that keeps channels and connections across a stop; a crash loses them",
        set: |options, text| set(&mut options.state, parse_path(text)),
    },
    Spec {
        name: "journal",
        takes: Arity::One("DIR"),
        default: "",
        help: "directory that keeps all acknowledged calls, also through a crash",
        set: |options, text| set(&mut options.journal, Ok(parse_dir(text))),
    },
    Spec {
        name: "journal-sync",
        takes: Arity::One("WHEN"),
        default: "always",
        help: "when a record is safe: on the disk (always), or in the kernel (os)",
        set: |options, text| set(&mut options.journal_sync, parse_sync(text)),
    },
    Spec {
        name: "cluster",
        takes: Arity::One("URL"),
        default: "",
        help: CLUSTER_HELP,
        set: |options, text| set(&mut options.cluster, parse_cluster(text).map(Some)),
    },
    Spec {
        name: "cluster-ca",
        takes: Arity::One("FILE"),
        default: "",
        help: CLUSTER_CA_HELP,
        set: |options, text| set(&mut options.cluster_ca, parse_cluster_ca(text).map(Some)),
    },
    Spec {
        name: "acme-challenges",
        takes: Arity::One("DIR"),
        default: "",
        help: "directory of the responses to http-01 challenges of ACME",
        set: |options, text| set(&mut options.acme_challenges, Ok(parse_dir(text))),
    },
    Spec {
        name: "redirect-https",
        takes: Arity::Nothing,
        default: "off",
        help: "redirect plain HTTP to https, except challenges and /health",
        set: |options, text| set(&mut options.redirect_https, parse_bool(text)),
    },
    Spec {
        name: "user",
        takes: Arity::One("NAME"),
        default: "",
        help: "user to switch to after binding: NAME, NAME:GROUP, UID:GID",
        set: |options, text| set(&mut options.user, parse_name(text).map(Some)),
    },
    Spec {
        name: "no-sandbox",
        takes: Arity::Nothing,
        default: "off",
        help: "keep capabilities and do not use Landlock",
        set: |options, text| set(&mut options.sandbox, parse_bool(text).map(|is_set| !is_set)),
    },
    Spec {
        name: "log",
        takes: Arity::One("LEVEL"),
        default: "info",
        help: "log level: error, warn, info or debug",
        set: |options, text| set(&mut options.log, parse_level(text)),
    },
    Spec {
        name: "check",
        takes: Arity::Nothing,
        default: "off",
        help: "check options, files, addresses and user as a start does, then exit",
        set: |options, text| set(&mut options.check, parse_bool(text)),
    },
];

impl Options {
    /// Returns the origins that may call. `*` in the list allows all.
    #[must_use]
    pub fn allow_origin(&self) -> AllowOrigin {
        if self.allow_origin.iter().any(|origin| origin == "*") {
            AllowOrigin::Any
        } else {
            AllowOrigin::List(self.allow_origin.clone())
        }
    }

    /// Returns whether the server listens on the default addresses.
    #[must_use]
    pub fn has_default_listeners(&self) -> bool {
        self.listen == if self.has_tls() { Self::tls_listeners() } else { Self::defaults().listen }
    }

    /// Returns whether there are certificates for listeners with TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        !self.tls_cert.is_empty()
    }

    /// Sets the default listeners of a server with certificates: https, and redirects to it.
    pub(super) fn set_tls_defaults(&mut self) {
        if self.has_tls() && self.listen == Self::defaults().listen {
            self.listen = Self::tls_listeners();
            self.redirect_https = true;
        }
    }

    fn tls_listeners() -> Vec<ListenAddr> {
        TLS_LISTEN.split(',').filter_map(|text| parse_listen_addr(text).ok()).collect()
    }

    /// Returns the ports of the listeners with TLS.
    pub(super) fn tls_ports(&self) -> impl Iterator<Item = u16> {
        self.listen.iter().filter_map(|address| match address {
            ListenAddr::Tls(address) => Some(address.port()),
            ListenAddr::Tcp(_) | ListenAddr::Unix(_) => None,
        })
    }

    /// Returns the port of https to which plain HTTP is redirected: the default one, if a listener
    /// or the proxy in front has it, else that of the first listener with TLS. `None` for no
    /// redirects.
    #[must_use]
    pub fn https_port(&self) -> Option<u16> {
        let has_default = self.tls_ports().any(|port| port == HTTPS_PORT);
        let first = self.tls_ports().next().filter(|_| !has_default);
        self.redirect_https.then_some(first.unwrap_or(HTTPS_PORT))
    }

    /// Returns the proxies whose `X-Forwarded-For` is trusted.
    #[must_use]
    pub fn proxies(&self) -> TrustedProxies {
        TrustedProxies(self.trust_proxy.clone())
    }

    pub(super) fn defaults() -> Self {
        let mut options = Self {
            listen: Vec::new(),
            tls_cert: Vec::new(),
            tls_key: Vec::new(),
            admin_listen: None,
            poll_timeout: Duration::ZERO,
            connection_timeout: Duration::ZERO,
            close_grace: Duration::ZERO,
            keep_alive: Duration::ZERO,
            request_timeout: Duration::ZERO,
            heartbeat: Duration::ZERO,
            stream_life: Duration::ZERO,
            history: 0,
            retention: Duration::ZERO,
            max_message: 0,
            max_introduction: 0,
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
            journal: None,
            journal_sync: SyncMode::Always,
            cluster: None,
            cluster_ca: None,
            acme_challenges: None,
            redirect_https: false,
            user: None,
            sandbox: true,
            log: LevelFilter::Info,
            check: false,
        };
        for spec in SPECS {
            spec.set_all(&mut options, spec.default).expect("valid defaults");
        }
        options
    }
}

impl Settings for Options {
    fn clear_list(&mut self, name: &str) {
        match name {
            "listen" => self.listen.clear(),
            "tls-cert" => self.tls_cert.clear(),
            "tls-key" => self.tls_key.clear(),
            "allow-origin" => self.allow_origin.clear(),
            "trust-proxy" => self.trust_proxy.clear(),
            _ => {}
        }
    }
}
