//! Starts the compared servers, each alone on its core, and ends them.

use std::fs::{self, File};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use crate::Result;
use crate::process::{self, Cores, Process};
use crate::wire::Dialect;

const NGINX_CONF: &str = include_str!("../peers/nginx.conf");
const NCHAN_CONF: &str = include_str!("../peers/nchan.conf");
const NCHAN_MODULES: [&str; 2] =
    ["/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/lib64/nginx/modules/ngx_nchan_module.so"];
const NGINX: [&str; 2] = ["/usr/sbin/nginx", "/usr/bin/nginx"];

const START_MAX: Duration = Duration::from_secs(10);
const STOP_MAX: Duration = Duration::from_secs(7);
/// Log lines to print of a server that fails.
const LOG_LINES: usize = 10;
const STEP: Duration = Duration::from_millis(10);

/// The kinds of server.
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
    child: Child,
    /// The process that took over from `child`, or from another heir.
    heir: Option<Pid>,
    /// Whether the process exited with success, once it has exited.
    outcome: Option<bool>,
    folder: PathBuf,
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
        let folder = fresh_folder()?;
        let command = self.command(kind, &folder)?;
        self.spawn(kind, folder, command)
    }

    /// Starts Speak on an address with these options.
    pub(crate) fn start_speak(&self, listen: &str, options: &[&str]) -> Result<Server> {
        let mut command = Command::new(self.speak.as_ref().ok_or("no --speak given")?);
        command.args(["--listen", listen]).args(options);
        self.spawn(Kind::Speak, fresh_folder()?, command)
    }

    fn spawn(&self, kind: Kind, folder: PathBuf, mut command: Command) -> Result<Server> {
        let log = folder.join("log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        // A child begins on its parent's core; pinning it afterwards would miss its start.
        process::pin(self.cores.server)?;
        let spawned = command.spawn();
        process::pin(self.cores.generator)?;
        let mut server = Server {
            target: Target {
                address: SocketAddrV4::new([127, 0, 0, 1].into(), 0),
                dialect: kind.dialect(),
                process: None,
            },
            child: spawned.map_err(|error| format!("cannot start {}: {error}", kind.name()))?,
            heir: None,
            outcome: None,
            folder,
        };
        let started = match kind {
            Kind::Speak | Kind::OtherBuild | Kind::Baseline => server.await_line(&log),
            Kind::Nchan | Kind::Nginx => server.await_worker(),
        };
        started.map_err(|error| {
            format!("{} does not start: {error}\n{}", kind.name(), server.said())
        })?;
        Ok(server)
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

impl Server {
    /// Returns the process id.
    pub(crate) fn id(&self) -> u32 {
        self.heir.map_or(self.child.id(), |heir| heir.as_raw_pid().cast_unsigned())
    }

    /// Asks the process to stop.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal, unless the process has exited.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.outcome.is_none()
            && let Some(pid) = Pid::from_raw(self.id().cast_signed())
        {
            // An error means that the process exited by itself.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Kills the process and waits until it has exited.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL);
        let deadline = Instant::now() + STOP_MAX;
        while self.ended()?.is_none() {
            if Instant::now() > deadline {
                return Err("a server was killed, and is still there".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Returns whether the process exited, and with success.
    pub(crate) fn ended(&mut self) -> Result<Option<bool>> {
        if self.outcome.is_none() {
            self.outcome = match self.heir {
                None => self.child.try_wait()?.map(|status| status.success()),
                // An heir becomes a child of this process only once its parent has exited.
                Some(heir) => match waitpid(Some(heir), WaitOptions::NOHANG) {
                    Ok(ended) => ended.map(|(_, status)| status.exit_status() == Some(0)),
                    Err(_) => None,
                },
            };
        }
        Ok(self.outcome)
    }

    /// Records that the process exited and `heir`, which it started, serves instead. To receive the
    /// heir's exit, this process must be the subreaper of orphans (`PR_SET_CHILD_SUBREAPER`).
    pub(crate) fn succeeded_by(&mut self, heir: Pid) {
        (self.heir, self.outcome) = (Some(heir), None);
        self.target.process = Some(Process::new(self.id()));
    }

    /// Returns all log output of the process and its predecessors.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Returns the last log lines.
    pub(crate) fn said(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Waits for the line that names the address.
    fn await_line(&mut self, log: &Path) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let said = fs::read_to_string(log)?;
            let address = said.lines().find_map(|line| {
                let (_, address) = line.split_once(" listening on http://")?;
                address.trim().parse().ok()
            });
            if let Some(address) = address {
                self.target.address = address;
                self.target.process = Some(Process::new(self.child.id()));
                return Ok(());
            }
            self.check_start(deadline)?;
        }
    }

    /// Waits until nginx accepts, and finds the worker, which does the work.
    fn await_worker(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        let port = fs::read_to_string(self.folder.join("port"))?.parse()?;
        self.target.address.set_port(port);
        loop {
            let workers = Process::new(self.child.id()).children()?;
            if let [worker] = workers[..]
                && TcpStream::connect(self.target.address).is_ok()
            {
                self.target.process = Some(Process::new(worker));
                return Ok(());
            }
            self.check_start(deadline)?;
        }
    }

    fn check_start(&mut self, deadline: Instant) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("it ended with {status}").into());
        }
        if Instant::now() > deadline {
            return Err("it takes too long".into());
        }
        std::thread::sleep(STEP);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A process that was waited for has no process id any more.
        if let Ok(None) = self.ended() {
            self.terminate();
        }
        let deadline = Instant::now() + STOP_MAX;
        while let Ok(None) = self.ended() {
            if Instant::now() > deadline {
                eprintln!("a server does not end when asked; it is killed");
                let _ = self.kill();
                break;
            }
            std::thread::sleep(STEP);
        }
        // A leftover folder does no harm.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn first_file(paths: &[&'static str]) -> Option<&'static str> {
    paths.iter().copied().find(|path| Path::new(path).exists())
}

fn fresh_folder() -> Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("speak-bench-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    fs::create_dir(&folder)?;
    Ok(folder)
}
