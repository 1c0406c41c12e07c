//! Landlock: what the kernel bars this process, and all that it starts, from.
//!
//! Everything is handled that the kernel can bar, and only this is left:
//!
//! - to read and execute beneath the directories of what runs here: the executable's own, and those of the C library
//!   where it is linked dynamically. Directories, since an upgrade renames a new file over the old one. A static
//!   binary in a directory of its own leaves nothing else there to execute.
//! - to read `/proc`, which tells the process about itself; all of it, since a new binary has another number there.
//!   What `/proc` has of others that could harm them, such as their memory, is barred by a check of its own.
//! - `/dev/null`, which stands in for a descriptor when they run out
//! - to remove the files of its Unix sockets
//! - to write in the directory of `--state`, in which the file is put together beside the old one
//! - to bind the ports it was told to listen on; connecting to others is never needed
//!
//! What is open already, as all sockets are, stays usable.

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

/// Up to this version of Landlock all is asked for. A later one is asked for nothing that was never tried.
const ABI_TESTED: ABI = ABI::V7;

/// What is done with files by their paths, beside what every server does.
pub(super) struct Paths {
    /// Directories in which it removes files.
    pub(super) unlink_dirs: Vec<PathBuf>,
    /// The directory in which it keeps a file from a stop to the next start.
    pub(super) state_dir: Option<PathBuf>,
}

/// Whether and how far Landlock is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landlock {
    /// As the kernel's version of it allows.
    Version(u32),
    /// The kernel has none, or does not let us have it.
    Absent,
    /// It is there, and refused; the log says why.
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

/// Opens what the rules are about.
pub(super) fn prepare(paths: &Paths, ports: &[u16]) -> Result<RulesetCreated, RulesetError> {
    let run = make_bitflags!(AccessFs::{Execute | ReadFile});
    let look = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let keep = make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile});
    let mut rules: Vec<(PathBuf, BitFlags<AccessFs>)> = vec![
        (PathBuf::from("/proc"), look),
        (PathBuf::from("/dev/null"), make_bitflags!(AccessFs::{ReadFile | WriteFile})),
    ];
    rules.extend(executable_dirs().into_iter().map(|place| (place, run)));
    rules.extend(
        paths.unlink_dirs.iter().map(|directory| (directory.clone(), AccessFs::RemoveFile.into())),
    );
    rules.extend(paths.state_dir.iter().map(|directory| (directory.clone(), keep)));

    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI_TESTED))?
        .handle_access(AccessNet::from_all(ABI_TESTED))?
        .scope(Scope::from_all(ABI_TESTED))?
        .create()?;
    for (path, access) in rules {
        // What is not there, as in a bare container, need not be allowed.
        if let Ok(file) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(file, access))?;
        }
    }
    for port in ports {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
    }
    Ok(ruleset)
}

/// Has the kernel enforce it.
pub(super) fn enter(prepared: Result<RulesetCreated, RulesetError>) -> Landlock {
    // Without new privileges, which were renounced, the kernel asks for no right to do this.
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
            // Each binary that was started by the one before adds a layer, and the kernel takes 16.
            let cause = cause(&error);
            log::warn!(
                "Landlock is not in force, or only that of the process which started this one: {cause}"
            );
            Landlock::Refused
        }
    }
}

/// What the kernel said. The crate has words for all that could be wrong with rules, which here are always the same.
fn cause(error: &RulesetError) -> String {
    match error {
        RulesetError::CreateRuleset(CreateRulesetError::CreateRulesetCall { source, .. })
        | RulesetError::RestrictSelf(RestrictSelfError::RestrictSelfCall { source, .. }) => {
            source.to_string()
        }
        _ => "it does not take our rules".to_owned(),
    }
}

/// The directories of all files that this process executes.
fn executable_dirs() -> Vec<PathBuf> {
    let maps = fs::read("/proc/self/maps").unwrap_or_default();
    let mut places = Vec::new();
    for place in maps.split(|byte| *byte == b'\n').filter_map(executable).map(dir_of_mapping) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// The file of a line such as `55d0c0a6d000-55d0c0b1f000 r-xp 0001c000 fe:00 1234      /usr/bin/speak`, if it is executed.
fn executable(line: &[u8]) -> Option<&Path> {
    let start = line.iter().position(|byte| *byte == b'/')?;
    let rights = line.split(|byte| *byte == b' ').nth(1)?;
    rights.contains(&b'x').then(|| Path::new(OsStr::from_bytes(&line[start..])))
}

/// The directory of a file; what lies in the root directory is allowed alone, or all files would be.
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
    fn what_is_executed_is_found_among_what_is_mapped() {
        let cases: [(&str, Option<&str>); 6] = [
            (
                "55d0c0a6d000-55d0c0b1f000 r-xp 0001c000 fe:00 1234      /usr/bin/speak",
                Some("/usr/bin"),
            ),
            (
                "55d0c0a6d000-55d0c0b1f000 r-xp 0001c000 fe:00 1234 /opt/a b/speak (deleted)",
                Some("/opt/a b"),
            ),
            ("55d0c0a6d000-55d0c0b1f000 r-xp 0001c000 fe:00 1234 /speak", Some("/speak")),
            ("55d0c0a6d000-55d0c0b1f000 r--p 0001c000 fe:00 1234 /usr/bin/speak", None),
            (
                "7ffc1b9e5000-7ffc1b9e7000 r-xp 00000000 00:00 0                          [vdso]",
                None,
            ),
            ("", None),
        ];
        for (line, place) in cases {
            assert_eq!(
                executable(line.as_bytes()).map(dir_of_mapping).as_deref(),
                place.map(Path::new),
                "{line}"
            );
        }
        let own = std::env::current_exe().unwrap();
        assert!(executable_dirs().contains(&own.parent().unwrap().to_owned()));
    }
}
