//! Landlock: access to files and the network that the kernel denies to this process and to all that
//! it starts.
//!
//! Everything that the kernel can deny is denied, except:
//!
//! - Read and execute below the directories of the running code: that of the executable, and those
//!   of the C library if it is linked dynamically. Directories, since an upgrade renames a new file
//!   over the old one. A static binary in a directory of its own leaves nothing else there to
//!   execute.
//! - Read `/proc`, where the process finds values about itself. All of it, since a successor has
//!   another number there. The kernel protects sensitive files of other processes, such as their
//!   memory, by a check of its own.
//! - Open `/dev/null`, which reserves a descriptor.
//! - Remove the files of the server's Unix sockets.
//! - Write in the directory of `--state`, where the new file is written next to the old one, and in
//!   that of `--journal`.
//! - Read files in the directory of `--acme-challenges`. The directory, since hooks make a new file
//!   for each challenge.
//! - Read files below the directories of `--tls-cert` and `--tls-key`, and below those of the files
//!   that links there lead to.
//! - Bind the ports of the listeners. Outgoing connections are never needed.
//!
//! Files and sockets that are open stay usable.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CreateRulesetError, LandlockStatus, NetPort,
    PathBeneath, PathFd, RestrictSelfError, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};

/// Newest version of Landlock that was tested. With a later kernel, only restrictions of this
/// version are used.
const ABI_TESTED: ABI = ABI::V7;

/// Directories in which this server reads or changes files.
pub(super) struct Paths {
    /// Directories whose files it reads by name.
    pub(super) read: Vec<PathBuf>,
    /// Directories of its Unix sockets, which it removes.
    pub(super) unlink: Vec<PathBuf>,
    /// Directories of the state file and of the journal.
    pub(super) write: Vec<PathBuf>,
}

/// TCP ports to which the process may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutgoingPorts {
    /// These. A server without a cluster connects to none.
    Only(Vec<u16>),
    /// Any: a Sentinel names the address.
    Any,
}

/// Status of Landlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landlock {
    /// Enforced with this version of the kernel's interface.
    Version(u32),
    /// The kernel has no Landlock, or it is disabled or not permitted.
    Absent,
    /// The kernel refused the rules; the log has the reason.
    Refused,
}

impl fmt::Display for Landlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "Landlock ABI {version}"),
            Self::Absent => f.write_str("no Landlock here"),
            Self::Refused => f.write_str("no Landlock"),
        }
    }
}

/// Builds the rules and opens the files that they are about.
pub(super) fn prepare(
    paths: &Paths,
    ports: &[u16],
    outgoing: &OutgoingPorts,
) -> Result<RulesetCreated, RulesetError> {
    let execute = make_bitflags!(AccessFs::{Execute | ReadFile});
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let change = make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | RemoveFile});
    let mut rules: Vec<(PathBuf, BitFlags<AccessFs>)> = vec![
        (PathBuf::from("/proc"), read),
        (PathBuf::from("/dev/null"), make_bitflags!(AccessFs::{ReadFile | WriteFile})),
    ];
    rules.extend(executable_dirs().into_iter().map(|directory| (directory, execute)));
    rules.extend(paths.read.iter().map(|directory| (directory.clone(), AccessFs::ReadFile.into())));
    rules.extend(
        paths.unlink.iter().map(|directory| (directory.clone(), AccessFs::RemoveFile.into())),
    );
    rules.extend(paths.write.iter().map(|directory| (directory.clone(), read | change)));

    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI_TESTED))?
        .handle_access(match outgoing {
            OutgoingPorts::Only(_) => AccessNet::from_all(ABI_TESTED),
            OutgoingPorts::Any => AccessNet::BindTcp.into(),
        })?
        .scope(Scope::from_all(ABI_TESTED))?
        .create()?;
    for (path, access) in rules {
        // A path that does not exist, as in a bare container, needs no rule.
        if let Ok(file) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(file, access))?;
        }
    }
    for port in ports {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
    }
    if let OutgoingPorts::Only(ports) = outgoing {
        for port in ports {
            ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
    }
    Ok(ruleset)
}

/// Makes the kernel enforce the rules.
pub(super) fn enter(prepared: Result<RulesetCreated, RulesetError>) -> Landlock {
    // The process has set no_new_privs, so it needs no capability for this.
    match prepared.and_then(|ruleset| ruleset.no_new_privs(false).restrict_self()) {
        Ok(status) => match status.landlock {
            LandlockStatus::Available { effective_abi, .. }
                if status.ruleset != RulesetStatus::NotEnforced =>
            {
                Landlock::Version(effective_abi as u32)
            }
            _ => Landlock::Absent,
        },
        Err(error) => {
            // Each upgrade adds a layer, and the kernel accepts 16 of them.
            let cause = cause(&error);
            log::warn!(
                "cannot enforce Landlock; only rules of earlier processes apply, if any: {cause}"
            );
            Landlock::Refused
        }
    }
}

/// Returns the kernel's error as text. The crate's own errors are about wrong rules, and the rules
/// here are always the same.
fn cause(error: &RulesetError) -> String {
    match error {
        RulesetError::CreateRuleset(CreateRulesetError::CreateRulesetCall { source, .. })
        | RulesetError::RestrictSelf(RestrictSelfError::RestrictSelfCall { source, .. }) => {
            source.to_string()
        }
        _ => "the rules are not accepted".to_owned(),
    }
}

/// Directories of all files that this process executes.
fn executable_dirs() -> Vec<PathBuf> {
    let maps = fs::read("/proc/self/maps").unwrap_or_default();
    let mut directories = Vec::new();
    for line in maps.split(|byte| *byte == b'\n') {
        let directory = executable(line).map(dir_of_mapping);
        directories.extend(directory.filter(|directory| !directories.contains(directory)));
    }
    directories
}

/// Returns the file of a line of `/proc/self/maps`, if it is mapped executable. A line is for
/// instance `55d0c0a6d000-55d0c0b1f000 r-xp 0001c000 fe:00 1234      /usr/bin/speak`.
fn executable(line: &[u8]) -> Option<&Path> {
    let start = line.iter().position(|byte| *byte == b'/')?;
    let rights = line.split(|byte| *byte == b' ').nth(1)?;
    rights.contains(&b'x').then(|| Path::new(OsStr::from_bytes(&line[start..])))
}

/// Returns the directory of a file, or the file itself if it is in the root directory: a rule for
/// that would allow all files.
fn dir_of_mapping(file: &Path) -> PathBuf {
    match file.parent() {
        Some(directory) if directory != Path::new("/") => directory.to_owned(),
        _ => file.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_executed_files_are_found_among_the_mappings() {
        let cases: [(&str, Option<&str>); 6] = [
            (
                "55d0c0a6d000-55d0c0b1f000 r-xp 0001c000 fe:00 1234   /usr/bin/speak",
                Some("/usr/bin"),
            ),
            (
                "55d0c0a6d000-55d0c0b1f000 r-xp 0001c000 fe:00 1234 /opt/a b/speak (deleted)",
                Some("/opt/a b"),
            ),
            ("55d0c0a6d000-55d0c0b1f000 r-xp 0001c000 fe:00 1234 /speak", Some("/speak")),
            ("55d0c0a6d000-55d0c0b1f000 r--p 0001c000 fe:00 1234 /usr/bin/speak", None),
            ("7ffc1b9e5000-7ffc1b9e7000 r-xp 00000000 00:00 0                       [vdso]", None),
            ("", None),
        ];
        for (line, expected) in cases {
            let directory = executable(line.as_bytes()).map(dir_of_mapping);
            assert_eq!(directory.as_deref(), expected.map(Path::new), "{line}");
        }
        let own = std::env::current_exe().unwrap();
        assert!(executable_dirs().contains(&own.parent().unwrap().to_owned()));
    }
}
