//! Starts the compared servers, each alone on its core, and ends them.

use std::fs;
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use support::process::{Cores, Process, Running, START_MAX, fresh_folder};

use crate::result::Result;
use crate::wire::Dialect;

const NGINX_CONF: &str = include_str!("../peers/nginx.conf");
const NCHAN_CONF: &str = include_str!("../peers/nchan.conf");
const NCHAN_MODULES: [&str; 2] =
    ["/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/lib64/nginx/modules/ngx_nchan_module.so"];
const NGINX: [&str; 2] = ["/usr/sbin/nginx", "/usr/bin/nginx"];

/// Kind of a server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    Speak,
    /// Another build of Speak.
    OtherBuild,
    Baseline,
    Nchan,
    Nginx,
}

impl Kind {
    pub(crate) const ALL: [Kind; 5] =
        [Kind::Speak, Kind::OtherBuild, Kind::Baseline, Kind::Nchan, Kind::Nginx];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Speak => "speak",
            Kind::OtherBuild => "against",
            Kind::Baseline => "baseline",
            Kind::Nchan => "nchan",
            Kind::Nginx => "nginx",
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
    /// Redis of the server, on the generator's core.
    pub(crate) redis: Option<Process>,
}

/// Paths of the servers' programs.
pub(crate) struct Programs {
    pub(crate) speak: Option<PathBuf>,
    pub(crate) against: Option<PathBuf>,
    pub(crate) cores: Cores,
}

/// A running server. Dropping it ends the process.
pub(crate) struct Server {
    pub(crate) target: Target,
    pub(crate) running: Running,
}

impl Programs {
    /// Returns why servers of a kind cannot be started here.
    pub(crate) fn missing(&self, kind: Kind) -> Option<&'static str> {
        match kind {
            Kind::Speak if self.speak.is_none() => Some("no --speak given"),
            Kind::OtherBuild if self.against.is_none() => Some("no --against given"),
            Kind::Nchan if first_file(&NCHAN_MODULES).is_none() => {
                Some("install libnginx-mod-nchan")
            }
            Kind::Nchan | Kind::Nginx if first_file(&NGINX).is_none() => Some("install nginx"),
            _ => None,
        }
    }

    /// Starts a server on a free port and waits until it serves.
    pub(crate) fn start(&self, kind: Kind) -> Result<Server> {
        let folder = fresh_folder("speak-bench")?;
        let command = self.command(kind, &folder)?;
        let running = Running::spawn(command, self.cores, folder.clone());
        let mut running =
            running.map_err(|error| format!("cannot start {}: {error}", kind.name()))?;
        let started = match kind {
            Kind::Speak | Kind::OtherBuild | Kind::Baseline => running
                .await_address()
                .map(|address| (address, running.process()))
                .map_err(Into::into),
            Kind::Nchan | Kind::Nginx => await_worker(&mut running, &folder),
        };
        let (address, process) = started.map_err(|error| {
            format!("{} does not start: {error}\n{}", kind.name(), running.log_end())
        })?;
        let process = Some(process);
        let target = Target { address, dialect: kind.dialect(), process, redis: None };
        Ok(Server { target, running })
    }

    fn command(&self, kind: Kind, folder: &Path) -> Result<Command> {
        Ok(match kind {
            Kind::Speak | Kind::OtherBuild => {
                let program = if kind == Kind::Speak { &self.speak } else { &self.against };
                let mut command = Command::new(program.as_ref().ok_or("no such program given")?);
                // No read may time out while a slow peer's turn is prepared.
                command.args(["--listen", "127.0.0.1:0", "--poll-timeout", "10m"]);
                command
            }
            Kind::Baseline => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("baseline");
                command
            }
            Kind::Nchan | Kind::Nginx => {
                let text = if kind == Kind::Nchan { NCHAN_CONF } else { NGINX_CONF };
                let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
                let module = first_file(&NCHAN_MODULES).unwrap_or_default();
                let text = text
                    .replace("@PORT@", &port.to_string())
                    .replace("@FOLDER@", &folder.to_string_lossy())
                    .replace("@NCHAN@", module);
                let conf = folder.join("nginx.conf");
                fs::write(&conf, text)?;
                fs::write(folder.join("port"), port.to_string())?;
                let mut command = Command::new(first_file(&NGINX).ok_or("no nginx")?);
                command.arg("-p").arg(folder).arg("-c").arg(conf);
                command
            }
        })
    }
}

/// Starts Speak with an admin listener. Returns its addresses, that of the admin listener last.
pub(crate) fn start_with_admin(
    command: Command,
    cores: Cores,
) -> Result<(Running, SocketAddrV4, SocketAddrV4)> {
    let mut running = Running::spawn(command, cores, fresh_folder("speak-bench")?)?;
    let started = running.await_address();
    let address = started
        .map_err(|error| format!("the server does not start: {error}\n{}", running.log_end()))?;
    let deadline = Instant::now() + START_MAX;
    let admin_in = |line: &str| {
        line.strip_suffix(" (admin)")?.split_once(" listening on http://")?.1.parse().ok()
    };
    loop {
        if let Some(admin) = running.log().lines().find_map(admin_in) {
            return Ok((running, address, admin));
        }
        running.check_start(deadline)?;
    }
}

/// Waits until nginx accepts, and finds the worker, which does the work.
fn await_worker(running: &mut Running, folder: &Path) -> Result<(SocketAddrV4, Process)> {
    let deadline = Instant::now() + START_MAX;
    let port = fs::read_to_string(folder.join("port"))?.parse()?;
    let address = SocketAddrV4::new([127, 0, 0, 1].into(), port);
    loop {
        let workers = running.process().children()?;
        if let [worker] = workers[..]
            && TcpStream::connect(address).is_ok()
        {
            return Ok((address, Process(worker)));
        }
        running.check_start(deadline)?;
    }
}

fn first_file(paths: &[&'static str]) -> Option<&'static str> {
    paths.iter().copied().find(|path| Path::new(path).exists())
}
