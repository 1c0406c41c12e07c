//! The kinds of servers, and a running one as the generator sees it.

use std::net::SocketAddrV4;

use support::process::Process;

use crate::dialect::Dialect;
use crate::result::Result;

/// Kind of a server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    Speak,
    /// Another build of Speak.
    OtherBuild,
    Baseline,
    Nchan,
    Nginx,
    Ws,
    SocketIo,
    Pushpin,
}

impl Kind {
    pub(crate) const ALL: [Kind; 8] = [
        Kind::Speak,
        Kind::OtherBuild,
        Kind::Baseline,
        Kind::Nchan,
        Kind::Nginx,
        Kind::Ws,
        Kind::SocketIo,
        Kind::Pushpin,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Speak => "speak",
            Kind::OtherBuild => "against",
            Kind::Baseline => "baseline",
            Kind::Nchan => "nchan",
            Kind::Nginx => "nginx",
            Kind::Ws => "ws",
            Kind::SocketIo => "socket.io",
            Kind::Pushpin => "pushpin",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| format!("no such target: {name}").into())
    }

    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Kind::Speak | Kind::OtherBuild | Kind::Baseline => Dialect::Speak,
            Kind::Nchan => Dialect::Nchan,
            Kind::Nginx => Dialect::Fixed,
            Kind::Ws => Dialect::Ws,
            Kind::SocketIo => Dialect::SocketIo,
            Kind::Pushpin => Dialect::Pushpin,
        }
    }
}

/// A server as the generator sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddrV4,
    pub(crate) dialect: Dialect,
    /// The process whose CPU time counts, if known.
    pub(crate) process: Option<Process>,
    /// Its further processes, whose CPU time counts too.
    pub(crate) helpers: &'static [Process],
    /// Whether its clients speak TLS.
    pub(crate) is_tls: bool,
    /// Address of the writes, if it is another one.
    pub(crate) publish: Option<SocketAddrV4>,
    /// Redis of the server, on the generator's core.
    pub(crate) redis: Option<Process>,
}

impl Target {
    /// Returns a server without TLS, whose processes are unknown.
    pub(crate) fn new(address: SocketAddrV4, dialect: Dialect) -> Self {
        let (process, helpers) = (None, &[][..]);
        Self { address, dialect, process, helpers, is_tls: false, publish: None, redis: None }
    }

    /// Returns all its known processes.
    pub(crate) fn processes(&self) -> impl Iterator<Item = Process> {
        self.process.into_iter().chain(self.helpers.iter().copied())
    }
}
