//! Whom root becomes: found in `/etc/passwd` and `/etc/group` without the C library, which in a static binary knows
//! no other sources either.

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

/// A user with all that belongs to one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// As it was asked for.
    pub(super) name: String,
    uid: Uid,
    gid: Gid,
    /// All groups, `gid` first.
    groups: Vec<Gid>,
}

/// Whom to become: nobody else where the process is that user already.
///
/// # Errors
///
/// Why that cannot be.
pub(super) fn resolve_user(asked: &str) -> Result<Option<Identity>, String> {
    let own = geteuid();
    let [passwd, group] = match ["/etc/passwd", "/etc/group"].map(read) {
        [Ok(passwd), Ok(group)] => [passwd, group],
        // A server that another one started, in the sandbox of that one: who may not look need not give anything up.
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
        Err(format!(
            "only root can become somebody else, and this process is user {}",
            own.as_raw()
        ))
    }
}

/// A file that need not be there, as in a container with nothing but a binary.
fn read(path: &'static str) -> Result<String, (&'static str, io::Error)> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err((path, error)),
    }
}

/// Finds `USER` or `USER:GROUP`, each a name or else a number.
fn find(asked: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    let (user, its_group) = match asked.split_once(':') {
        Some((user, its_group)) => (user, Some(its_group)),
        None => (asked, None),
    };
    let entries = || passwd.lines().filter_map(User::parse);
    let entry = entries().find(|entry| entry.name == user);
    let entry =
        entry.or_else(|| number(user).and_then(|uid| entries().find(|entry| entry.uid == uid)));
    let uid = entry.as_ref().map(|entry| entry.uid).or_else(|| number(user));
    let uid =
        uid.ok_or_else(|| "there is no such user in /etc/passwd; UID:GID needs none".to_owned())?;
    if uid == 0 {
        return Err("that is root again".into());
    }
    let gid = match (its_group, &entry) {
        (Some(name), _) => find_group(name, group)
            .ok_or_else(|| format!("there is no group {name} in /etc/group"))?,
        (None, Some(entry)) => entry.gid,
        (None, None) => {
            return Err(format!("/etc/passwd does not tell its group; give it, as {user}:GID"));
        }
    };
    let mut groups = vec![gid];
    if let Some(entry) = entry {
        for its in group.lines().filter_map(Group::parse).filter(|group| group.has(entry.name)) {
            if !groups.contains(&its.gid) {
                groups.push(its.gid);
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
    found.map(|group| group.gid).or_else(|| number(name))
}

/// An id. The highest number is none: the kernel takes it for "as it was".
fn number(text: &str) -> Option<u32> {
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
        let uid = number(fields.nth(1)?)?;
        Some(Self { name, uid, gid: number(fields.next()?)? })
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
        let gid = number(fields.nth(1)?)?;
        Some(Self { name, gid, members: fields.next().unwrap_or_default() })
    }

    fn has(&self, user: &str) -> bool {
        self.members.split(',').any(|member| member == user)
    }
}

impl Identity {
    /// Gives the file of a socket that root has just made to this user, who may have to remove it. Where it fails, the
    /// file merely stays behind at the end.
    pub(super) fn chown_socket(&self, path: &Path) {
        if let Err(error) = self.try_chown(path) {
            log::warn!("the socket {} stays root's: {error}", path.display());
        }
    }

    /// Whoever may write to the directory could have put another file there meanwhile, or a second name of one: only a
    /// socket of root's with a single name is given away, and by its descriptor.
    fn try_chown(&self, path: &Path) -> io::Result<()> {
        let file = rustix::fs::open(
            path,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let facts = rustix::fs::fstat(&file)?;
        let is_socket = FileType::from_raw_mode(facts.st_mode) == FileType::Socket;
        if !is_socket || facts.st_uid != 0 || facts.st_nlink != 1 {
            return Err(io::Error::other("it is not what was made there"));
        }
        rustix::fs::chownat(&file, "", Some(self.uid), Some(self.gid), AtFlags::EMPTY_PATH)?;
        Ok(())
    }

    /// Becomes this user for good.
    ///
    /// # Errors
    ///
    /// What the kernel says, as in a user namespace that lacks the user; then it must not go on.
    pub(super) fn switch_user(&self) -> Result<(), String> {
        // The calls are this thread's; another one would stay root.
        if fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
            return Err("the process has more than one thread".into());
        }
        let cannot =
            |what: &'static str| move |error: rustix::io::Errno| format!("cannot {what}: {error}");
        // Nothing depends on it once new privileges are renounced, which they are not with --no-sandbox.
        if let Err(error) = capabilities::drop_bounding_set(CapabilitySet::empty()) {
            log::debug!("the bounding set stays: {error}");
        }
        set_thread_groups(&self.groups).map_err(cannot("set its groups"))?;
        set_thread_res_gid(self.gid, self.gid, self.gid).map_err(cannot("become its group"))?;
        set_thread_res_uid(self.uid, self.uid, self.uid).map_err(cannot("become it"))?;
        // The kernel has done so already, unless it was told by "secure bits" not to.
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, sets).map_err(cannot("give up capabilities"))?;
        let is_it =
            [getuid(), geteuid()] == [self.uid; 2] && [getgid(), getegid()] == [self.gid; 2];
        let can_return = set_thread_res_uid(None::<Uid>, Uid::ROOT, None::<Uid>).is_ok()
            || (!self.gid.is_root()
                && set_thread_res_gid(None::<Gid>, Gid::ROOT, None::<Gid>).is_ok());
        if is_it && !can_return { Ok(()) } else { Err("the kernel does not keep to it".into()) }
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
            // A name that is a number goes before the number.
            ("1001", 2002, 2003, &[2003]),
            ("2002", 2002, 2003, &[2003]),
            // Numbers need no files.
            ("7:8", 7, 8, &[8]),
        ] {
            assert_eq!(found(asked), Ok((uid, gid, groups.to_vec())), "{asked}");
        }
    }

    #[test]
    fn who_is_not_there_or_is_root_is_refused_with_the_reason() {
        for (asked, reason) in [
            ("nobody", "no such user"),
            ("", "no such user"),
            ("broken", "no such user"),
            ("nouid", "no such user"),
            ("-1", "no such user"),
            ("4294967295:8", "no such user"),
            ("4294967296:8", "no such user"),
            ("7", "give it, as 7:GID"),
            ("speak:nowhere", "no group nowhere"),
            ("speak:", "no group"),
            ("7:4294967295", "no group"),
            ("7:8:9", "no group"),
            ("root", "root again"),
            ("toor", "root again"),
            ("0:8", "root again"),
        ] {
            let fault = found(asked).unwrap_err();
            assert!(fault.contains(reason), "{asked}: {fault}");
        }
    }
}
