//! Diagnosis of a failed start: the process that has the port, the missing right, the low limit.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::options::ListenAddr;

/// State of a listening socket in `/proc/net/tcp` (`proc_net_tcp.rst` of the kernel's
/// documentation).
const TCP_LISTEN_HEX: &str = "0A";

/// Flags of a listening socket in `/proc/net/unix` (`__SO_ACCEPTCON`, `proc_pid_net(5)`).
const UNIX_LISTEN_FLAGS: &str = "00010000";

/// Explains in one line why the server cannot listen on an address, and what to do about it.
pub(super) fn explain_bind_error(address: &ListenAddr, error: &io::Error) -> String {
    let errno = Errno::from_io_error(error);
    if errno == Some(Errno::MFILE) {
        return format!("cannot listen on {address}: {}", explain_fd_limit(error));
    }
    let advice = match address {
        ListenAddr::Tcp(address) | ListenAddr::Tls(address) => tcp_advice(address.port(), errno),
        ListenAddr::Unix(path) => unix_advice(path, errno),
    };
    match advice {
        Some(advice) => format!("cannot listen on {address}: {error}: {advice}"),
        None => format!("cannot listen on {address}: {error}"),
    }
}

fn tcp_advice(port: u16, errno: Option<Errno>) -> Option<String> {
    match errno? {
        Errno::ADDRINUSE => {
            let owner = port_owners(port).into_iter().flatten().next();
            let owner = owner.map_or_else(
                || format!("find its process with `ss -ltnp 'sport = :{port}'`, as root"),
                |owner| format!("stop {owner}"),
            );
            Some(format!("{owner}, or choose another port with --listen"))
        }
        Errno::ACCESS if port < 1024 => {
            let program = std::env::current_exe()
                .map_or_else(|_| "speak".into(), |path| path.display().to_string());
            Some(format!(
                "only root may use ports below 1024: allow it with \
                 `setcap cap_net_bind_service=+ep {program}`, as root, \
                 or start as root with --user"
            ))
        }
        Errno::ADDRNOTAVAIL => Some(
            "this machine has no such address: choose one of those that `ip address` lists".into(),
        ),
        _ => None,
    }
}

fn unix_advice(path: &Path, errno: Option<Errno>) -> Option<String> {
    match errno? {
        Errno::ADDRINUSE => Some(
            "another server listens there, or the file is no socket: \
             stop that server, or choose another path with --listen"
                .into(),
        ),
        errno => folder_advice(path, errno)
            .map(|advice| format!("{advice}, or choose another path with --listen")),
    }
}

/// Explains why a file cannot be created in its folder. `None` if the folder is not the cause.
pub(super) fn folder_advice(path: &Path, errno: Errno) -> Option<String> {
    let folder = parent_dir(path);
    match errno {
        Errno::NOENT => Some(format!("its folder, {folder}, has to be there: create it")),
        Errno::NOTDIR => Some(format!("{folder} is no folder: correct the path")),
        Errno::ACCESS | Errno::PERM => {
            Some(format!("its folder, {folder}, has to be writable: change its permissions"))
        }
        Errno::ROFS => Some(format!("its folder, {folder}, is on a read-only file system")),
        _ => None,
    }
}

/// Returns the error as text, with advice if the limit on open files is too low to start.
pub(super) fn explain_fd_limit(error: &io::Error) -> String {
    if Errno::from_io_error(error) == Some(Errno::MFILE) {
        let limit = super::rlimit::open_file_limit();
        format!(
            "{error}: the limit on open files is {limit}: \
             raise it with `ulimit -n 20000`, or LimitNOFILE= in the unit"
        )
    } else {
        error.to_string()
    }
}

fn parent_dir(path: &Path) -> String {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).display().to_string()
}

/// Process that has a socket.
pub(super) struct SocketOwner {
    process: u32,
    /// Name of its program. The kernel cuts it to 15 bytes.
    name: String,
}

impl SocketOwner {
    /// Returns whether this is a Speak, whatever its build: `speak`, `speak-small`.
    pub(super) fn is_speak(&self) -> bool {
        self.name.starts_with("speak")
    }
}

impl fmt::Display for SocketOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.name, self.process)
    }
}

/// Returns the running Speak that listens on an address. `None` if a process of another program,
/// or one that this user cannot see, listens there.
pub(super) fn running_speak(address: &ListenAddr) -> Option<SocketOwner> {
    let owners = match address {
        ListenAddr::Tcp(address) | ListenAddr::Tls(address) => port_owners(address.port()),
        ListenAddr::Unix(path) => unix_owners(path),
    };
    // With an unknown one among them, nothing is certain.
    let owners: Option<Vec<_>> = owners.into_iter().collect();
    owners.filter(|owners| owners.iter().all(SocketOwner::is_speak))?.into_iter().next()
}

/// Returns the processes that listen on a port. `None` for one that this user cannot see: root sees
/// the processes of all users, others only their own.
fn port_owners(port: u16) -> Vec<Option<SocketOwner>> {
    owners_in(&["tcp", "tcp6"], &|line| inode_of_listener(line, port))
}

/// Returns the processes that listen on a Unix socket, like [`port_owners`].
fn unix_owners(path: &Path) -> Vec<Option<SocketOwner>> {
    owners_in(&["unix"], &|line| inode_of_unix_listener(line, path))
}

/// Returns the processes that have the sockets of these tables. `inode` returns that of a line.
// Not inlined, as the next function, so that the binary holds it once.
#[inline(never)]
fn owners_in(tables: &[&str], inode: &dyn Fn(&str) -> Option<&str>) -> Vec<Option<SocketOwner>> {
    let mut owners = Vec::new();
    for table in tables {
        // Not `/proc/net`, which a unit with `ProcSubset=pid` does not have.
        let table = fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
        for inode in table.lines().filter_map(inode) {
            owners.push(socket_owner(inode));
        }
    }
    owners
}

/// Returns a process that has the socket with this inode.
#[inline(never)]
fn socket_owner(inode: &str) -> Option<SocketOwner> {
    let link = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find_map(
        |process| {
            let mut files = fs::read_dir(format!("/proc/{process}/fd")).ok()?.flatten();
            files.find(|file| {
                fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == link.as_str())
            })?;
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            Some(SocketOwner { process, name: name.trim_end().to_owned() })
        },
    )
}

/// Returns the inode in a line of `/proc/net/unix`, if that socket listens at this path.
fn inode_of_unix_listener<'a>(line: &'a str, path: &Path) -> Option<&'a str> {
    let mut fields = line.split_ascii_whitespace();
    let (flags, inode) = (fields.nth(3)?, fields.nth(2)?);
    let is_listener = flags == UNIX_LISTEN_FLAGS && path.to_str()? == fields.next()?;
    is_listener.then_some(inode)
}

/// Returns the inode in a line of `/proc/net/tcp`, if that socket listens on this port.
fn inode_of_listener(line: &str, port: u16) -> Option<&str> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, state) = (fields.next()?, fields.nth(1)?);
    let (_, local_port) = local.rsplit_once(':')?;
    if state != TCP_LISTEN_HEX || u16::from_str_radix(local_port, 16) != Ok(port) {
        return None;
    }
    fields.nth(5)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_process_that_has_the_port_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let error = TcpListener::bind(address).unwrap_err();
        let line = explain_bind_error(&ListenAddr::Tcp(address), &error);
        assert!(line.contains(&format!("(process {})", std::process::id())), "{line}");
        assert!(line.contains("--listen") && !line.contains('\n'), "{line}");
    }

    #[test]
    fn the_advice_for_a_folder_fits_the_error() {
        let advice = |errno| folder_advice(Path::new("/folder/file"), errno);
        for (errno, words) in [
            (Errno::NOENT, "/folder, has to be there"),
            (Errno::NOTDIR, "/folder is no folder"),
            (Errno::ACCESS, "/folder, has to be writable"),
            (Errno::ROFS, "/folder, is on a read-only"),
        ] {
            let advice = advice(errno).expect("an advice");
            assert!(advice.contains(words), "{advice}");
            assert_eq!(advice.contains("permissions"), errno == Errno::ACCESS, "{advice}");
        }
        assert_eq!(advice(Errno::NOSPC), None);
    }

    #[test]
    fn a_line_of_the_kernels_table_is_parsed() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  \
            1000        0 41287 1 0 100 0 0 10 0";
        assert_eq!(inode_of_listener(line, 8080), Some("41287"));
        assert_eq!(inode_of_listener(line, 8081), None);
        assert_eq!(inode_of_listener(&line.replace(" 0A ", " 01 "), 8080), None);
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   \
            uid  timeout inode";
        assert_eq!(inode_of_listener(head, 0), None);
    }

    #[test]
    fn a_line_of_the_kernels_table_of_unix_sockets_is_parsed() {
        let line = "0000000000000000: 00000002 00000000 00010000 0001 01 23517 /run/speak/socket";
        let path = Path::new("/run/speak/socket");
        let inode = |line: &str| inode_of_unix_listener(line, path).map(str::to_owned);
        assert_eq!(inode(line).as_deref(), Some("23517"));
        assert_eq!(inode(&line.replace("00010000", "00000000")), None);
        assert_eq!(inode(&line.replace("/socket", "/other")), None);
        assert_eq!(inode("0000000000000000: 00000002 00000000 00010000 0001 01 23517"), None);
        assert_eq!(inode("Num       RefCount Protocol Flags    Type St Inode Path"), None);
    }
}
