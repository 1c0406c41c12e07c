//! Sandbox: the privileges that the process drops after binding and before it serves.
//!
//! In this order: root (`--user`), all capabilities, new privileges (`no_new_privs`), and, if the
//! kernel has Landlock, access to files and the network that the server does not need. Only a
//! failure of `--user` stops the start; other failures are logged. Nothing can be regained, and a
//! new program that this process starts is confined in the same way.

mod capabilities;
mod landlock;
mod user;

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

pub use landlock::{Landlock, OutgoingPorts};

use crate::options::{ListenAddr, Options};
use landlock::Paths;
use user::Identity;

/// Privileges to drop. Decided before anything is bound, so that a wrong `--user` stops the start
/// early.
pub struct Sandbox {
    /// User to switch to. `None` to stay the same user.
    user: Option<Identity>,
    /// False with `--no-sandbox`.
    is_enabled: bool,
    /// Files of the Unix sockets, which are removed at the end.
    sockets: Vec<PathBuf>,
    /// The state file.
    state: Option<PathBuf>,
    /// Directory of the journal.
    journal: Option<PathBuf>,
    /// Directory of the responses to challenges.
    challenges: Option<PathBuf>,
    /// Files of certificates and keys, which are read again: by this process, or by a successor.
    certificates: Vec<PathBuf>,
}

/// Status of the sandbox. Its text is for instance `user speak, no new privileges, Landlock ABI 6`.
#[derive(Debug)]
pub struct SandboxStatus {
    /// Effective user of the process.
    pub uid: u32,
    /// User as `--user` names it.
    name: Option<String>,
    /// True if no program that this process executes can gain privileges.
    pub no_new_privs: bool,
    /// `None` with `--no-sandbox`.
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
    /// Decides which privileges to drop.
    ///
    /// # Errors
    ///
    /// One line, if the user does not exist, or if only root could switch to it.
    pub fn plan(options: &Options) -> Result<Self, String> {
        let user = match &options.user {
            Some(asked) => {
                user::resolve_user(asked).map_err(|error| format!("--user {asked}: {error}"))?
            }
            None => None,
        };
        let sockets =
            options.listen.iter().chain(&options.admin_listen).filter_map(
                |address| match address {
                    ListenAddr::Unix(path) => Some(path.clone()),
                    ListenAddr::Tcp(_) | ListenAddr::Tls(_) => None,
                },
            );
        Ok(Self {
            user,
            is_enabled: options.sandbox,
            sockets: sockets.collect(),
            state: options.state.clone(),
            journal: options.journal.clone(),
            challenges: options.acme_challenges.clone(),
            certificates: [&options.tls_cert[..], &options.tls_key, options.cluster_ca.as_slice()]
                .concat(),
        })
    }

    /// Gives the files that root has just created to the user of `--user`, then drops the
    /// privileges as [`Sandbox::drop_privileges`] does.
    ///
    /// # Errors
    ///
    /// One line, if the process cannot switch to the user.
    pub fn enter(self, ports: &[u16], outgoing: &OutgoingPorts) -> Result<SandboxStatus, String> {
        if let Some(user) = &self.user {
            self.sockets.iter().for_each(|path| user.chown_socket(path));
            self.journal.iter().for_each(|path| user.chown_journal(path));
        }
        self.drop_privileges(ports, outgoing)
    }

    /// Drops the privileges of this thread, which has to be the only one. A successor may bind
    /// `ports` again, and this process may connect to the `outgoing` ones.
    ///
    /// # Errors
    ///
    /// One line, if the process cannot switch to the user.
    pub fn drop_privileges(
        self,
        ports: &[u16],
        outgoing: &OutgoingPorts,
    ) -> Result<SandboxStatus, String> {
        // The files of the rules are opened before the rights are dropped that this may need.
        let ruleset = self.is_enabled.then(|| landlock::prepare(&self.paths(), ports, outgoing));
        let name = self.user.as_ref().map(|user| user.name.clone());
        if let Some(user) = &self.user {
            user.switch_user().map_err(|error| format!("--user {}: {error}", user.name))?;
        }
        if self.is_enabled {
            warn_on_error("drop capabilities", capabilities::drop_capabilities());
            warn_on_error("set no_new_privs", rustix::thread::set_no_new_privs(true));
        }
        if geteuid().is_root() {
            log::warn!("running as root; use --user NAME to drop privileges after binding");
        }
        let status = SandboxStatus {
            uid: geteuid().as_raw(),
            name,
            no_new_privs: rustix::thread::no_new_privs().unwrap_or(false),
            landlock: ruleset.map(landlock::enter),
        };
        log::info!("sandbox: {status}");
        Ok(status)
    }

    /// Directories in which certificates are replaced: that of each file, and if it is a link, that
    /// of its target. Certbot puts a new certificate next to the old one, and changes the link.
    fn certificate_dirs(&self) -> impl Iterator<Item = PathBuf> {
        let targets = self.certificates.iter().filter_map(|file| file.canonicalize().ok());
        self.certificates.iter().cloned().chain(targets).map(|file| directory_of(&file))
    }

    /// Directories in which the server still reads or changes files: the only list of them.
    fn paths(&self) -> Paths {
        Paths {
            read: self.challenges.iter().cloned().chain(self.certificate_dirs()).collect(),
            unlink: self.sockets.iter().map(|socket| directory_of(socket)).collect(),
            write: self
                .state
                .as_deref()
                .map(directory_of)
                .into_iter()
                .chain(self.journal.clone())
                .collect(),
        }
    }
}

fn warn_on_error(action: &str, result: rustix::io::Result<()>) {
    if let Err(error) = result {
        log::warn!("cannot {action}: {error}");
    }
}

fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(directory) if directory != Path::new("") => directory.to_owned(),
        _ => PathBuf::from("."),
    }
}
