//! The command line and the environment, made into [`Options`].
//!
//! One table, [`SPECS`], says of every option its name, its default and what it sets; parsing, `--help`, the names of
//! the environment variables and the manual page all come from it.

mod values;

use std::ffi::OsString;
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use crate::api::{AllowOrigin, Network, Proxies};

use values::{above_zero, address, count, duration, level, name, network, origin, path, size, switch};

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port; `[::]` takes IPv4 too.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Everything that the operator decides. OPERATIONS.md says what each is for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to serve.
    pub listen: Vec<Address>,
    /// Where metrics are served, apart from the public doors.
    pub admin_listen: Option<Address>,
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

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve.
    Run(Box<Options>),
    /// Print this and leave.
    Print(String),
}

/// One line that names the option and says what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub struct BadOption(pub String);

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing; in the environment yes or no.
    Nothing,
    /// A value of this kind: `TIME`, `SIZE`, …
    One(&'static str),
    /// The same, and may be repeated; in the environment separated by commas.
    Several(&'static str),
}

/// An option, as far as it can be told in a table.
#[derive(Debug)]
pub struct Spec {
    /// Without the dashes.
    pub name: &'static str,
    /// What follows it.
    pub takes: Takes,
    /// As it would be written in the environment; empty for none.
    pub default: &'static str,
    /// What it sets, in one line without a full stop.
    pub help: &'static str,
    set: fn(&mut Options, &str) -> Result<(), String>,
}

/// All options, in the order in which they are told.
pub const SPECS: &[Spec] = &[
    Spec {
        name: "listen",
        takes: Takes::Several("ADDR"),
        default: "8080,7732",
        help: "where to serve: 8080, 127.0.0.1:8080, [::1]:0, unix:PATH",
        set: |options, text| push(&mut options.listen, address(text)),
    },
    Spec {
        name: "admin-listen",
        takes: Takes::One("ADDR"),
        default: "",
        help: "where /metrics and /health are served apart",
        set: |options, text| put(&mut options.admin_listen, address(text).map(Some)),
    },
    Spec {
        name: "poll-timeout",
        takes: Takes::One("TIME"),
        default: "25s",
        help: "the longest that a long poll waits",
        set: |options, text| put(&mut options.poll_timeout, duration(text)),
    },
    Spec {
        name: "connection-timeout",
        takes: Takes::One("TIME"),
        default: "5s",
        help: "how long an introduced connection outlives its last call",
        set: |options, text| put(&mut options.connection_timeout, duration(text).and_then(above_zero)),
    },
    Spec {
        name: "close-grace",
        takes: Takes::One("TIME"),
        default: "0s",
        help: "how long it outlives the closing of its waiting read",
        set: |options, text| put(&mut options.close_grace, duration(text)),
    },
    Spec {
        name: "keep-alive",
        takes: Takes::One("TIME"),
        default: "75s",
        help: "how long an idle client may stay",
        set: |options, text| put(&mut options.keep_alive, duration(text).and_then(above_zero)),
    },
    Spec {
        name: "request-timeout",
        takes: Takes::One("TIME"),
        default: "10s",
        help: "how long a request may take, or an answer stand still",
        set: |options, text| put(&mut options.request_timeout, duration(text).and_then(above_zero)),
    },
    Spec {
        name: "heartbeat",
        takes: Takes::One("TIME"),
        default: "15s",
        help: "after how much silence a stream gets a sign of life",
        set: |options, text| put(&mut options.heartbeat, duration(text).and_then(above_zero)),
    },
    Spec {
        name: "history",
        takes: Takes::One("COUNT"),
        default: "100",
        help: "messages retained in a channel; 0 retains none",
        set: |options, text| put(&mut options.history, count(text)),
    },
    Spec {
        name: "retention",
        takes: Takes::One("TIME"),
        default: "1h",
        help: "how long a message is retained",
        set: |options, text| put(&mut options.retention, duration(text).and_then(above_zero)),
    },
    Spec {
        name: "max-message",
        takes: Takes::One("SIZE"),
        default: "64k",
        help: "a message's size",
        set: |options, text| put(&mut options.max_message, size(text)),
    },
    Spec {
        name: "max-head",
        takes: Takes::One("SIZE"),
        default: "16k",
        help: "a request head's size",
        set: |options, text| put(&mut options.max_head, size(text).and_then(above_zero)),
    },
    Spec {
        name: "max-reply",
        takes: Takes::One("SIZE"),
        default: "1m",
        help: "the messages in one answer",
        set: |options, text| put(&mut options.max_reply, size(text).and_then(above_zero)),
    },
    Spec {
        name: "max-backlog",
        takes: Takes::One("SIZE"),
        default: "1m",
        help: "what may wait unsent for one stream",
        set: |options, text| put(&mut options.max_backlog, size(text).and_then(above_zero)),
    },
    Spec {
        name: "max-clients",
        takes: Takes::One("COUNT"),
        default: "0",
        help: "clients at once; 0 for what the file limit allows",
        set: |options, text| put(&mut options.max_clients, count(text)),
    },
    Spec {
        name: "max-clients-per-address",
        takes: Takes::One("COUNT"),
        default: "0",
        help: "clients at once from one address; 0 for no limit",
        set: |options, text| put(&mut options.max_clients_per_address, count(text)),
    },
    Spec {
        name: "max-rate",
        takes: Takes::One("COUNT"),
        default: "0",
        help: "messages a second from one address; 0 for no limit",
        set: |options, text| put(&mut options.max_rate, count(text)),
    },
    Spec {
        name: "max-channels",
        takes: Takes::One("COUNT"),
        default: "0",
        help: "channels at once; 0 for no limit",
        set: |options, text| put(&mut options.max_channels, count(text)),
    },
    Spec {
        name: "max-memory",
        takes: Takes::One("SIZE"),
        default: "256m",
        help: "what messages, members and channels may hold together",
        set: |options, text| put(&mut options.max_memory, size(text).and_then(above_zero)),
    },
    Spec {
        name: "trust-proxy",
        takes: Takes::Several("ADDR"),
        default: "",
        help: "whose X-Forwarded-For names the client: 10.0.0.0/8, unix",
        set: |options, text| push(&mut options.trust_proxy, network(text)),
    },
    Spec {
        name: "allow-origin",
        takes: Takes::Several("ORIGIN"),
        default: "*",
        help: "pages that may call: * or https://example.org",
        set: |options, text| push(&mut options.allow_origin, origin(text)),
    },
    Spec {
        name: "no-demo",
        takes: Takes::Nothing,
        default: "off",
        help: "serve no demo page",
        set: |options, text| put(&mut options.demo, switch(text).map(|is_set| !is_set)),
    },
    Spec {
        name: "state",
        takes: Takes::One("FILE"),
        default: "",
        help: "keeps channels and connections from a stop to the next start",
        set: |options, text| put(&mut options.state, path(text)),
    },
    Spec {
        name: "user",
        takes: Takes::One("NAME"),
        default: "",
        help: "whom root becomes once bound: NAME, NAME:GROUP, UID:GID",
        set: |options, text| put(&mut options.user, name(text).map(Some)),
    },
    Spec {
        name: "no-sandbox",
        takes: Takes::Nothing,
        default: "off",
        help: "keep capabilities, and do without Landlock",
        set: |options, text| put(&mut options.sandbox, switch(text).map(|is_set| !is_set)),
    },
    Spec {
        name: "log",
        takes: Takes::One("LEVEL"),
        default: "info",
        help: "error, warn, info or debug",
        set: |options, text| put(&mut options.log, level(text)),
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
    pub fn has_default_doors(&self) -> bool {
        self.listen == Self::defaults().listen
    }

    /// Who may say in whose name they call, as the calls want to know it.
    #[must_use]
    pub fn proxies(&self) -> Proxies {
        Proxies(self.trust_proxy.clone())
    }

    fn defaults() -> Self {
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

    fn forget(&mut self, name: &str) {
        match name {
            "listen" => self.listen.clear(),
            "allow-origin" => self.allow_origin.clear(),
            "trust-proxy" => self.trust_proxy.clear(),
            _ => {}
        }
    }
}

impl Spec {
    /// Sets the option anew, from a list where it takes several.
    fn set_all(&self, options: &mut Options, text: &str) -> Result<(), String> {
        options.forget(self.name);
        match self.takes {
            // Nothing is set where that is the default; whoever gives the option has to give a value.
            Takes::Several(_) | Takes::One(_) if text.is_empty() && self.default.is_empty() => Ok(()),
            Takes::Several(_) => text.split(',').try_for_each(|item| (self.set)(options, item.trim())),
            Takes::Nothing | Takes::One(_) => (self.set)(options, text),
        }
    }

    /// The environment variable that sets it too.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("SPEAK_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }
}

/// Reads the environment, then the command line, which wins. `arguments` are those after the program's name.
///
/// # Errors
///
/// [`BadOption`] for the first thing that is not understood.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, BadOption> {
    let mut options = Options::defaults();
    for spec in SPECS {
        let name = spec.variable();
        let Some(value) = variable(&name).filter(|value| !value.is_empty()) else { continue };
        let text = value.to_str().ok_or_else(|| BadOption(format!("{name} is not UTF-8")))?;
        spec.set_all(&mut options, text).map_err(|fault| BadOption(format!("{name}: {fault}")))?;
    }
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut given: Vec<&str> = Vec::new();
    while let Some(argument) = parser.next().map_err(|error| BadOption(error.to_string()))? {
        use lexopt::Arg::{Long, Short};
        let spec = match argument {
            Long("help") | Short('h') => return Ok(Command::Print(help())),
            Long("version") | Short('V') => return Ok(Command::Print(format!("{VERSION}\n"))),
            Long(name) => SPECS.iter().find(|spec| spec.name == name),
            _ => None,
        };
        let spec = spec.ok_or_else(|| BadOption(argument.unexpected().to_string()))?;
        let fault = |fault: String| BadOption(format!("--{}: {fault}", spec.name));
        if !given.contains(&spec.name) {
            given.push(spec.name);
            options.forget(spec.name);
        }
        let value = match spec.takes {
            Takes::Nothing => "on".into(),
            Takes::One(_) | Takes::Several(_) => parser.value().map_err(|_| fault("needs a value".into()))?,
        };
        let text = value.to_str().ok_or_else(|| fault("is not UTF-8".into()))?;
        (spec.set)(&mut options, text).map_err(fault)?;
    }
    Ok(Command::Run(Box::new(options)))
}

/// `speak` and its version.
pub const VERSION: &str = concat!("speak ", env!("CARGO_PKG_VERSION"));

/// The version alone.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

fn help() -> String {
    let mut text = format!(
        "{VERSION}: a message and chat server for the web\n\nUsage: speak [OPTIONS]\n\n\
         Times are seconds (5, 0.2) or carry a unit (200ms, 5s, 10m, 1h); sizes are bytes or carry k, m, g.\n\
         Each option can be set in the environment too: --poll-timeout is SPEAK_POLL_TIMEOUT.\n\n"
    );
    for spec in SPECS {
        let (value, note) = match spec.takes {
            Takes::Nothing => ("", ""),
            Takes::One(value) => (value, ""),
            Takes::Several(value) => (value, "; repeatable"),
        };
        let left = format!("--{} {value}", spec.name);
        let is_told = spec.takes != Takes::Nothing && !spec.default.is_empty();
        let default = if is_told { format!(" [{}]", spec.default) } else { String::new() };
        writeln!(text, "  {left:<26} {}{note}{default}", spec.help).expect("a String takes everything");
    }
    text.push_str("  --help, --version          print this, or the version\n");
    text
}

fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

fn push<T>(list: &mut Vec<T>, value: Result<T, String>) -> Result<(), String> {
    list.push(value?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn parsed(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Box<Options>, BadOption> {
        let variable =
            |name: &str| environment.iter().find(|(its, _)| *its == name).map(|(_, value)| OsString::from(value));
        match parse(arguments.iter().map(OsString::from), variable)? {
            Command::Run(options) => Ok(options),
            Command::Print(text) => panic!("{text}"),
        }
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let options = parsed(&[], &[]).unwrap();
        let all = |port| Address::Tcp((Ipv6Addr::UNSPECIFIED, port).into());
        assert_eq!(options.listen, [all(8080), all(7732)]);
        assert_eq!(options.poll_timeout, Duration::from_secs(25));
        assert_eq!(options.connection_timeout, Duration::from_secs(5));
        assert_eq!(options.close_grace, Duration::ZERO);
        assert_eq!((options.history, options.max_message, options.max_reply), (100, 65_536, 1 << 20));
        assert_eq!(options.allow_origin(), AllowOrigin::Any);
        assert!(options.demo && options.sandbox && options.user.is_none());
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_empty_is_unset() {
        let environment =
            [("SPEAK_LISTEN", "1,127.0.0.1:2"), ("SPEAK_HISTORY", "7"), ("SPEAK_LOG", ""), ("SPEAK_NO_DEMO", "1")];
        let options = parsed(&[], &environment).unwrap();
        assert_eq!(options.listen.len(), 2);
        assert_eq!((options.history, options.log, options.demo), (7, LevelFilter::Info, false));
        let options = parsed(&["--listen=3", "--history", "8"], &environment).unwrap();
        assert_eq!(options.listen, [Address::Tcp((Ipv6Addr::UNSPECIFIED, 3).into())]);
        assert_eq!(options.history, 8);
    }

    #[test]
    fn a_bad_option_is_named_in_one_line() {
        let cases: &[(&[&str], &str)] = &[
            (&["--nonsense"], "--nonsense"),
            (&["stray"], "stray"),
            (&["-x"], "-x"),
            (&["--history"], "--history"),
            (&["--history", "many"], "--history"),
            (&["--poll-timeout=soon"], "--poll-timeout"),
            (&["--connection-timeout", "0"], "--connection-timeout"),
            (&["--listen", "nowhere"], "--listen"),
            (&["--listen", "127.0.0.1:99999"], "--listen"),
            (&["--listen", "unix:"], "--listen"),
            (&["--log", "loud"], "--log"),
            (&["--allow-origin", "example.org"], "--allow-origin"),
            (&["--allow-origin", "https://a/b"], "--allow-origin"),
            (&["--no-demo=x"], "--no-demo"),
            (&["--no-sandbox=x"], "--no-sandbox"),
            (&["--user", ""], "--user"),
        ];
        for (arguments, named) in cases {
            let BadOption(line) = parsed(arguments, &[]).unwrap_err();
            assert!(line.contains(named) && !line.contains('\n'), "{line}");
        }
        let BadOption(line) = parsed(&[], &[("SPEAK_RETENTION", "x")]).unwrap_err();
        assert!(line.starts_with("SPEAK_RETENTION: "), "{line}");
    }

    #[test]
    fn help_names_every_option() {
        let text = help();
        assert!(SPECS.iter().all(|spec| text.contains(&format!("--{}", spec.name))));
        assert!(text.lines().all(|line| line.len() <= 110), "{text}");
    }
}
