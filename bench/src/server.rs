//! Starts the compared servers, each alone on its core, and ends them.

use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use support::process::{Cores, Process, Running, START_MAX, fresh_folder};

use crate::peers::{self, NGINX, first_file};
use crate::result::Result;
pub(crate) use crate::target::{Kind, Target};

const NGINX_CONF: &str = include_str!("../peers/nginx.conf");
const NCHAN_CONF: &str = include_str!("../peers/nchan.conf");
const TLS_CONF: &str = include_str!("../peers/nchan-tls.conf");
const NCHAN_MODULES: [&str; 2] =
    ["/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/lib64/nginx/modules/ngx_nchan_module.so"];

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
    /// The backend of Pushpin.
    pub(crate) _backend: Option<Running>,
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
            Kind::Nchan | Kind::Nginx | Kind::Pushpin if first_file(&NGINX).is_none() => {
                Some("install nginx")
            }
            _ => peers::missing(kind),
        }
    }

    /// Starts a server on a free port and waits until it serves.
    pub(crate) fn start(&self, kind: Kind, is_tls: bool) -> Result<Server> {
        if kind == Kind::Pushpin {
            let (target, running, backend) = peers::start_pushpin(self.cores)?;
            return Ok(Server { target, running, _backend: Some(backend) });
        }
        let (folder, port) = (fresh_folder("speak-bench")?, peers::free_port()?);
        let command = self.command(kind, &folder, port, is_tls)?;
        let running = Running::spawn(command, self.cores, folder);
        let mut running =
            running.map_err(|error| format!("cannot start {}: {error}", kind.name()))?;
        let started = match kind {
            Kind::Speak | Kind::OtherBuild | Kind::Baseline if !is_tls => {
                let address = running.await_address();
                address.map(|address| (address, running.process())).map_err(Into::into)
            }
            Kind::Nchan | Kind::Nginx => await_worker(&mut running, port),
            _ => {
                peers::await_port(&mut running, port).map(|()| (peers::at(port), running.process()))
            }
        };
        let (address, process) = started.map_err(|error| {
            format!("{} does not start: {error}\n{}", kind.name(), running.log_end())
        })?;
        let process = Some(process);
        let target = Target { process, is_tls, ..Target::new(address, kind.dialect()) };
        Ok(Server { target, running, _backend: None })
    }

    fn command(&self, kind: Kind, folder: &Path, port: u16, is_tls: bool) -> Result<Command> {
        Ok(match kind {
            Kind::Speak | Kind::OtherBuild => {
                let program = if kind == Kind::Speak { &self.speak } else { &self.against };
                let mut command = Command::new(program.as_ref().ok_or("no such program given")?);
                // No read may time out while a slow peer's turn is prepared.
                command.args(["--poll-timeout", "10m", "--listen"]);
                if is_tls {
                    command.arg(format!("tls:{}", peers::at(port)));
                    command.args(["--tls-cert", peers::CERTIFICATE, "--tls-key", peers::KEY]);
                } else {
                    command.arg("127.0.0.1:0");
                }
                command
            }
            Kind::Baseline => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("baseline");
                command
            }
            Kind::Nchan | Kind::Nginx => {
                let conf = folder.join("nginx.conf");
                fs::write(&conf, nginx_conf(kind, folder, port, is_tls))?;
                let mut command = Command::new(first_file(&NGINX).ok_or("no nginx")?);
                command.arg("-p").arg(folder).arg("-c").arg(conf);
                command
            }
            Kind::Ws | Kind::SocketIo => peers::node(kind, port, is_tls)?,
            Kind::Pushpin => return Err("Pushpin is started with its backend".into()),
        })
    }
}

fn nginx_conf(kind: Kind, folder: &Path, port: u16, is_tls: bool) -> String {
    let mut text = if kind == Kind::Nchan { NCHAN_CONF } else { NGINX_CONF }.to_owned();
    if is_tls {
        text = text.replace("        listen 127.0.0.1:@PORT@ backlog=4096;\n", TLS_CONF);
    }
    text.replace("@PORT@", &port.to_string())
        .replace("@FOLDER@", &folder.to_string_lossy())
        .replace("@NCHAN@", first_file(&NCHAN_MODULES).unwrap_or_default())
        .replace("@CERTIFICATE@", peers::CERTIFICATE)
        .replace("@KEY@", peers::KEY)
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
fn await_worker(running: &mut Running, port: u16) -> Result<(SocketAddrV4, Process)> {
    let deadline = Instant::now() + START_MAX;
    peers::await_port(running, port)?;
    loop {
        if let [worker] = running.process().children()?[..] {
            return Ok((peers::at(port), Process(worker)));
        }
        running.check_start(deadline)?;
    }
}
