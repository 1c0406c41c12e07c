//! The user of `--user`, from `/etc/passwd` and `/etc/group`. Read without the C library, which has
//! no other sources in a static binary either.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::process::{Gid, Uid, getegid, geteuid, getgid, getuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::capabilities;
use crate::journal;

/// User and groups of a process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Name, as `--user` has it.
    pub(super) name: String,
    uid: Uid,
    gid: Gid,
    /// All groups, `gid` first.
    groups: Vec<Gid>,
}

/// Resolves the value of `--user`. `None` if the process runs as that user already.
///
/// # Errors
///
/// The reason why the process cannot switch to that user.
pub(super) fn resolve_user(asked: &str) -> Result<Option<Identity>, String> {
    let own = geteuid();
    let [passwd, group] = match ["/etc/passwd", "/etc/group"].map(read) {
        [Ok(passwd), Ok(group)] => [passwd, group],
        // The successor of a server in its sandbox cannot read the files. It has dropped its
        // privileges already.
        [Err((_, error)), _] | [_, Err((_, error))]
            if error.kind() == ErrorKind::PermissionDenied && !own.is_root() =>
        {
            return Ok(None);
        }
        [Err((path, error)), _] | [_, Err((path, error))] => {
            return Err(format!("cannot read {path}: {error}"));
        }
    };
    let identity = find(asked, &passwd, &group)?;
    if own.is_root() {
        Ok(Some(identity))
    } else if identity.uid == own {
        Ok(None)
    } else {
        Err(format!("only root can switch users, and this process is user {}", own.as_raw()))
    }
}

/// Reads a file. Empty if it does not exist, as in a container with nothing but a binary.
fn read(path: &'static str) -> Result<String, (&'static str, io::Error)> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err((path, error)),
    }
}

/// Finds `USER` or `USER:GROUP`, each a name or else a number.
fn find(asked: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    let (user, group_name) = match asked.split_once(':') {
        Some((user, group_name)) => (user, Some(group_name)),
        None => (asked, None),
    };
    let entries = || passwd.lines().filter_map(User::parse);
    let entry = entries().find(|entry| entry.name == user);
    let entry =
        entry.or_else(|| parse_id(user).and_then(|uid| entries().find(|entry| entry.uid == uid)));
    let uid = entry.as_ref().map(|entry| entry.uid).or_else(|| parse_id(user));
    let uid = uid.ok_or("no such user in /etc/passwd; choose another, or use UID:GID")?;
    if uid == 0 {
        return Err("this user is root; choose another".into());
    }
    let gid = match (group_name, &entry) {
        (Some(name), _) => find_group(name, group).ok_or_else(|| {
            format!("no group {name} in /etc/group; choose another, or use its number")
        })?,
        (None, Some(entry)) => entry.gid,
        (None, None) => {
            return Err(format!("/etc/passwd has no group for it; use {user}:GID"));
        }
    };
    let mut groups = vec![gid];
    if let Some(entry) = entry {
        let all = group.lines().filter_map(Group::parse);
        for gid in all.filter(|group| group.has(entry.name)).map(|group| group.gid) {
            if !groups.contains(&gid) {
                groups.push(gid);
            }
        }
    }
    Ok(Identity {
        name: asked.to_owned(),
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        groups: groups.into_iter().map(Gid::from_raw).collect(),
    })
}

fn find_group(name: &str, group: &str) -> Option<u32> {
    let found = group.lines().filter_map(Group::parse).find(|group| group.name == name);
    found.map(|group| group.gid).or_else(|| parse_id(name))
}

/// Parses a user or group ID. The highest number is none: for the kernel it means "unchanged".
fn parse_id(text: &str) -> Option<u32> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| is_number && *id != u32::MAX)
}

/// A line of `/etc/passwd`: `name:password:uid:gid:...`.
struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

impl<'a> User<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = parse_id(fields.nth(1)?)?;
        Some(Self { name, uid, gid: parse_id(fields.next()?)? })
    }
}

/// A line of `/etc/group`: `name:password:gid:member,member`.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = parse_id(fields.nth(1)?)?;
        Some(Self { name, gid, members: fields.next().unwrap_or_default() })
    }

    fn has(&self, user: &str) -> bool {
        self.members.split(',').any(|member| member == user)
    }
}

impl Identity {
    /// Makes this user the owner of a socket file that root has just created, so that it can remove
    /// the file. On failure the file remains at the end.
    pub(super) fn chown_socket(&self, path: &Path) {
        if let Err(error) = self.try_chown(path, FileType::Socket) {
            log::warn!("cannot change the owner of a socket path={}: {error}", path.display());
        }
    }

    /// Makes this user the owner of a journal that root has just created, and of the lock that root
    /// has created in a journal of this user. A directory with other files stays as it is. On
    /// failure the journal cannot be written, which is an error of its own.
    pub(super) fn chown_journal(&self, path: &Path) {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        if !names.iter().all(|name| journal::is_journal_file(name)) {
            log::warn!("owner unchanged, other files in the journal path={}", path.display());
            return;
        }
        let files = names.iter().map(|name| (path.join(name), FileType::RegularFile));
        for (path, kind) in files.chain([(path.to_owned(), FileType::Directory)]) {
            // What is not root's own has its owner already.
            if let Err(error) = self.try_chown(&path, kind) {
                log::debug!("owner unchanged path={}: {error}", path.display());
            }
        }
    }

    /// Changes the owner, by descriptor and only of a root-owned file of this kind, with a single
    /// name. Other users with write access to the directory may have replaced the file, or linked
    /// another one.
    fn try_chown(&self, path: &Path, kind: FileType) -> io::Result<()> {
        let file = rustix::fs::open(
            path,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let stat = rustix::fs::fstat(&file)?;
        let is_kind = FileType::from_raw_mode(stat.st_mode) == kind;
        let has_one_name = stat.st_nlink == 1 || kind == FileType::Directory;
        if !is_kind || stat.st_uid != 0 || !has_one_name {
            return Err(io::Error::other("the file was replaced since it was created"));
        }
        rustix::fs::chownat(&file, "", Some(self.uid), Some(self.gid), AtFlags::EMPTY_PATH)?;
        Ok(())
    }

    /// Switches to this user permanently.
    ///
    /// # Errors
    ///
    /// The kernel's error, for instance in a user namespace without this user. The process must not
    /// continue then.
    pub(super) fn switch_user(&self) -> Result<(), String> {
        // The calls are for this thread only. Another thread would stay root.
        if fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
            return Err("the process has more than one thread".into());
        }
        let cannot = |action: &'static str| {
            move |error: rustix::io::Errno| format!("cannot {action}: {error}")
        };
        // Matters only with --no-sandbox: otherwise no_new_privs has the same effect.
        if let Err(error) = capabilities::drop_bounding_set(CapabilitySet::empty()) {
            log::debug!("cannot drop the capability bounding set: {error}");
        }
        set_thread_groups(&self.groups).map_err(cannot("set its groups"))?;
        set_thread_res_gid(self.gid, self.gid, self.gid).map_err(cannot("switch to its group"))?;
        set_thread_res_uid(self.uid, self.uid, self.uid).map_err(cannot("switch to it"))?;
        // The kernel has dropped them already, unless the "secure bits" forbid that.
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, sets).map_err(cannot("drop capabilities"))?;
        let is_it =
            [getuid(), geteuid()] == [self.uid; 2] && [getgid(), getegid()] == [self.gid; 2];
        let can_return = set_thread_res_uid(None::<Uid>, Uid::ROOT, None::<Uid>).is_ok()
            || (!self.gid.is_root()
                && set_thread_res_gid(None::<Gid>, Gid::ROOT, None::<Gid>).is_ok());
        if is_it && !can_return {
            Ok(())
        } else {
            Err("the kernel did not switch to it permanently".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        broken\n\
        +::::::\n\
        nouid:x::5::/:/bin/sh\n\
        speak:x:990:991:Speak:/nonexistent:/usr/sbin/nologin\n\
        1001:x:2002:2003::/:/bin/sh\n\
        toor:x:0:0::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\n\
        speak:x:991:\n\
        tls:*:50:other,speak\n\
        not:x:51:speaker,speak2\n\
        broken:x\n\
        doubly:x:991:speak\n\
        www:x:33:speak\n";

    fn found(asked: &str) -> Result<(u32, u32, Vec<u32>), String> {
        let found = find(asked, PASSWD, GROUP)?;
        Ok((
            found.uid.as_raw(),
            found.gid.as_raw(),
            found.groups.iter().map(|gid| gid.as_raw()).collect(),
        ))
    }

    #[test]
    fn users_are_found_by_name_and_by_number() {
        for (asked, uid, gid, groups) in [
            ("speak", 990, 991, &[991, 50, 33][..]),
            ("990", 990, 991, &[991, 50, 33]),
            ("speak:root", 990, 0, &[0, 50, 991, 33]),
            ("speak:50", 990, 50, &[50, 991, 33]),
            ("990:tls", 990, 50, &[50, 991, 33]),
            // A name that is a number takes precedence over the number.
            ("1001", 2002, 2003, &[2003]),
            ("2002", 2002, 2003, &[2003]),
            // Numbers need no files.
            ("7:8", 7, 8, &[8]),
        ] {
            assert_eq!(found(asked), Ok((uid, gid, groups.to_vec())), "{asked}");
        }
    }

    #[test]
    fn a_missing_user_and_root_are_rejected_with_the_reason() {
        for (asked, reason) in [
            ("nobody", "no such user"),
            ("", "no such user"),
            ("broken", "no such user"),
            ("nouid", "no such user"),
            ("-1", "no such user"),
            ("4294967295:8", "no such user"),
            ("4294967296:8", "no such user"),
            ("7", "use 7:GID"),
            ("speak:nowhere", "no group nowhere"),
            ("speak:", "no group"),
            ("7:4294967295", "no group"),
            ("7:8:9", "no group"),
            ("root", "is root"),
            ("toor", "is root"),
            ("0:8", "is root"),
        ] {
            let error = found(asked).unwrap_err();
            assert!(error.contains(reason), "{asked}: {error}");
        }
    }
}
