//! What the process gives up once it is bound, and before it serves anybody.
//!
//! In this order: root (`--user`), all capabilities, new privileges (`no_new_privs`), and by Landlock, where the kernel
//! has it, the files and the network that a server has no business with. Unless it was told to become somebody else, what
//! cannot be given up is no reason not to serve. Nothing of it can be taken back, and a new binary that this process
//! starts is confined likewise.

mod capabilities;
mod landlock;
mod user;

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

pub use landlock::Landlock;

use crate::options::{ListenAddr, Options};
use landlock::Paths;
use user::Identity;

/// What will be given up, decided before anything is bound: a wrong `--user` stops the start early.
pub struct Sandbox {
    /// Whom root becomes.
    user: Option<Identity>,
    /// `--no-sandbox` was not given.
    is_wanted: bool,
    /// Files of Unix sockets, which are removed when they are given up.
    sockets: Vec<PathBuf>,
    /// The file in which the hub is kept at a stop.
    state: Option<PathBuf>,
}

/// What is in force from now on. It reads as the rest of a line: `user speak, no new privileges, Landlock ABI 6`.
#[derive(Debug)]
pub struct SandboxStatus {
    /// As whom the process runs.
    pub uid: u32,
    /// By what name it was asked to.
    name: Option<String>,
    /// Whether what it executes can have more rights than itself.
    pub no_new_privs: bool,
    /// What the kernel bars it from; nothing is asked of it with `--no-sandbox`.
    pub landlock: Option<Landlock>,
}

impl fmt::Display for SandboxStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "user {name}")?,
            None => write!(f, "user {}", self.uid)?,
        }
        if self.no_new_privs {
            f.write_str(", no new privileges")?;
        }
        match &self.landlock {
            Some(landlock) => write!(f, ", {landlock}"),
            None => f.write_str(", not confined (--no-sandbox)"),
        }
    }
}

impl Sandbox {
    /// Decides what to give up.
    ///
    /// # Errors
    ///
    /// One line, where there is no such user, or where only root could become that one.
    pub fn plan(options: &Options) -> Result<Self, String> {
        let user = match &options.user {
            Some(asked) => {
                user::resolve_user(asked).map_err(|fault| format!("--user {asked}: {fault}"))?
            }
            None => None,
        };
        let sockets =
            options.listen.iter().chain(&options.admin_listen).filter_map(
                |address| match address {
                    ListenAddr::Unix(path) => Some(path.clone()),
                    ListenAddr::Tcp(_) => None,
                },
            );
        Ok(Self {
            user,
            is_wanted: options.sandbox,
            sockets: sockets.collect(),
            state: options.state.clone(),
        })
    }

    /// Gives it up, for this thread, which has to be the only one. `ports` are those that a binary started by this process
    /// may bind again.
    ///
    /// # Errors
    ///
    /// One line, where it cannot become whom it was told to.
    pub fn enter(self, ports: &[u16]) -> Result<SandboxStatus, String> {
        // Paths are opened before the rights go that may be needed to reach them.
        let domain = self.is_wanted.then(|| landlock::prepare(&self.paths(), ports));
        let name = self.user.as_ref().map(|user| user.name.clone());
        if let Some(user) = &self.user {
            self.sockets.iter().for_each(|path| user.chown_socket(path));
            user.switch_user().map_err(|fault| format!("--user {}: {fault}", user.name))?;
        }
        if self.is_wanted {
            warn_of("give up capabilities", capabilities::drop_capabilities());
            warn_of("renounce new privileges", rustix::thread::set_no_new_privs(true));
        }
        if geteuid().is_root() {
            log::warn!(
                "runs as root: with --user NAME it becomes somebody else once its addresses are bound"
            );
        }
        let in_force = SandboxStatus {
            uid: geteuid().as_raw(),
            name,
            no_new_privs: rustix::thread::no_new_privs().unwrap_or(false),
            landlock: domain.map(landlock::enter),
        };
        log::info!("sandbox: {in_force}");
        Ok(in_force)
    }

    /// The one list of what is still done with files by their paths.
    fn paths(&self) -> Paths {
        Paths {
            unlink_dirs: self.sockets.iter().map(|socket| directory_of(socket)).collect(),
            state_dir: self.state.as_deref().map(directory_of),
        }
    }
}

fn warn_of(what: &str, result: rustix::io::Result<()>) {
    if let Err(error) = result {
        log::warn!("cannot {what}: {error}");
    }
}

fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(directory) if directory != Path::new("") => directory.to_owned(),
        _ => PathBuf::from("."),
    }
}
