//! The server of a run, and how it is started.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value;
use support::fault::Fault;
use support::http;
use support::incoming::Cutter;
use support::process::{Cores, Running, fresh_folder};

use crate::tls::{Tls, server_options};

/// `--poll-timeout`.
pub(crate) const POLL_TIMEOUT: Duration = Duration::from_secs(3);
/// `--history`.
pub(crate) const HISTORY: u64 = 32;
/// `--connection-timeout`.
pub(crate) const CONNECTION_TIMEOUT_MS: u64 = 2_000;
const OPTIONS: &str = "--history 32 --poll-timeout 3s --connection-timeout 2s --request-timeout 2s \
     --heartbeat 2s --max-backlog 64k --log info";

pub(crate) struct Launcher {
    pub(crate) speak: PathBuf,
    pub(crate) cores: Cores,
    /// `--state`.
    pub(crate) state_file: Option<PathBuf>,
    pub(crate) journal: Option<Journal>,
    /// URL of the Redis that all nodes share.
    pub(crate) cluster: Option<String>,
    /// The servers speak TLS.
    pub(crate) tls: Option<Tls>,
}

/// A value of `--journal-sync`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum JournalSync {
    Always,
    Os,
}

impl FromStr for JournalSync {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "always" => Ok(Self::Always),
            "os" => Ok(Self::Os),
            _ => Err("use always or os"),
        }
    }
}

/// `--journal`, of all servers of a run.
#[derive(Clone)]
pub(crate) struct Journal {
    /// Holds the directory of the journal.
    pub(crate) folder: PathBuf,
    sync: JournalSync,
}

impl Journal {
    pub(crate) fn new(sync: JournalSync) -> io::Result<Self> {
        Ok(Self { folder: fresh_folder("speak-stress-journal")?, sync })
    }
}

pub(crate) struct Server {
    pub(crate) running: Running,
    pub(crate) address: SocketAddrV4,
    pub(crate) tls: Option<Tls>,
}

impl Launcher {
    pub(crate) fn start(&self, address: SocketAddrV4) -> Result<Server, Fault> {
        let mut running = self.spawn(address)?;
        running.await_address().map_err(|error| {
            Fault::new(format!("speak does not start: {error}\n{}", running.log_end()))
        })?;
        Ok(Server { running, address, tls: self.tls.clone() })
    }

    /// Starts a server, and does not wait until it serves.
    pub(crate) fn spawn(&self, address: SocketAddrV4) -> Result<Running, Fault> {
        let mut command = Command::new(&self.speak);
        let scheme = if self.tls.is_some() { "tls:" } else { "" };
        command.args(["--listen", &format!("{scheme}{address}")]).args(OPTIONS.split(' '));
        if self.tls.is_some() {
            for (name, file) in server_options() {
                command.arg(name).arg(file);
            }
        }
        if let Some(file) = &self.state_file {
            command.arg("--state").arg(file);
        }
        if let Some(Journal { folder, sync }) = &self.journal {
            command.arg("--journal").arg(folder.join("journal"));
            command
                .args(["--journal-sync", if *sync == JournalSync::Os { "os" } else { "always" }]);
        }
        if let Some(url) = &self.cluster {
            command.args(["--cluster", url]);
        }
        Ok(Running::spawn(command, self.cores, fresh_folder("speak-stress")?)?)
    }
}

/// Returns a free address by its number, since a successor may have to bind it again. The kernel
/// gives clients no port of this IP address: none takes the server's, or connects to itself.
pub(crate) fn free_address() -> Result<SocketAddrV4, Fault> {
    let ip = Ipv4Addr::new(127, 1, 1, 1);
    Ok(SocketAddrV4::new(ip, TcpListener::bind((ip, 0))?.local_addr()?.port()))
}

impl Server {
    /// Makes a call on a connection of its own, and waits for the JSON of its response.
    pub(crate) fn call(&self, target: &str) -> Result<Value, Fault> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let bytes = match &self.tls {
            Some(tls) => exchange(tls.stream(stream)?, target)?,
            None => exchange(stream, target)?,
        };
        let item = Cutter::default().next(&bytes)?.ok_or_else(|| Fault::new("half a response"))?;
        Ok(serde_json::from_slice(item.body())?)
    }
}

/// Sends a request, and receives the response with the end of the connection.
fn exchange(mut stream: impl Read + Write, target: &str) -> io::Result<Vec<u8>> {
    stream.write_all(&http::request("GET", target, &[("Connection", "close")], None))?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}
