//! What to do about a start that fails: by whom a port is taken, which right is missing, which limit is too low.

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::options::ListenAddr;

/// The state of a listening socket in `/proc/net/tcp` (`proc_net_tcp.txt` of the kernel's documentation).
const TCP_LISTEN_HEX: &str = "0A";

/// Why it cannot listen there, and what to do about it, in one line.
pub(super) fn explain_bind_error(address: &ListenAddr, error: &io::Error) -> String {
    let errno = Errno::from_io_error(error);
    let advice = match (address, errno) {
        (ListenAddr::Tcp(address), Some(Errno::ADDRINUSE)) => {
            let port = address.port();
            let by = port_owner(port).map_or_else(
                || format!("`ss -ltnp 'sport = :{port}'`, as root, tells by whom"),
                |who| format!("by {who}: stop it"),
            );
            format!("{by}, or choose another port with --listen")
        }
        (ListenAddr::Tcp(address), Some(Errno::ACCESS)) if address.port() < 1024 => {
            let program = std::env::current_exe().map_or_else(|_| "speak".into(), |path| path.display().to_string());
            format!(
                "ports below 1024 are root's: give the program the right with `setcap cap_net_bind_service=+ep {program}`, as root, \
                 or start it as root with --user"
            )
        }
        (ListenAddr::Tcp(_), Some(Errno::ADDRNOTAVAIL)) => {
            "this machine has no such address: `ip address` lists those it has".into()
        }
        (ListenAddr::Unix(_), Some(Errno::ADDRINUSE)) => {
            "another server listens there, or the file is something else: stop it, or choose another path with --listen"
                .into()
        }
        (ListenAddr::Unix(path), Some(Errno::ACCESS | Errno::NOENT | Errno::ROFS)) => {
            format!("its folder, {}, has to be there and to be writable", parent_dir(path))
        }
        (_, Some(Errno::MFILE)) => return format!("cannot listen on {address}: {}", explain_fd_limit(error)),
        _ => return format!("cannot listen on {address}: {error}"),
    };
    format!("cannot listen on {address}: {error}: {advice}")
}

/// What to do about a limit on open files that does not even let it start.
pub(super) fn explain_fd_limit(error: &io::Error) -> String {
    if Errno::from_io_error(error) == Some(Errno::MFILE) {
        let limit = super::rlimit::open_file_limit();
        format!(
            "{error}: the limit on open files is {limit}: set `ulimit -n 20000`, or LimitNOFILE= in the unit"
        )
    } else {
        error.to_string()
    }
}

fn parent_dir(path: &Path) -> String {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).display().to_string()
}

/// The program that listens on a port, as far as this process may see: root sees all, others see their own.
fn port_owner(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"]
        .map(|table| fs::read_to_string(table).unwrap_or_default());
    let inode = tables
        .iter()
        .flat_map(|table| table.lines())
        .find_map(|line| inode_of_listener(line, port))?;
    let link = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find_map(
        |process| {
            let mut files = fs::read_dir(format!("/proc/{process}/fd")).ok()?.flatten();
            files.find(|file| {
                fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == link.as_str())
            })?;
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            Some(format!("{} (process {process})", name.trim_end()))
        },
    )
}

/// The inode in a line of `/proc/net/tcp`, if it is of a socket that listens on this port.
fn inode_of_listener(line: &str, port: u16) -> Option<&str> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, state) = (fields.next()?, fields.nth(1)?);
    let (_, its_port) = local.rsplit_once(':')?;
    if state != TCP_LISTEN_HEX || u16::from_str_radix(its_port, 16) != Ok(port) {
        return None;
    }
    fields.nth(5)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn whoever_has_a_port_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let error = TcpListener::bind(address).unwrap_err();
        let line = explain_bind_error(&ListenAddr::Tcp(address), &error);
        assert!(line.contains(&format!("(process {})", std::process::id())), "{line}");
        assert!(line.contains("--listen") && !line.contains('\n'), "{line}");
    }

    #[test]
    fn a_line_of_the_kernels_table_is_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41287 1 0 100 0 0 10 0";
        assert_eq!(inode_of_listener(line, 8080), Some("41287"));
        assert_eq!(inode_of_listener(line, 8081), None);
        assert_eq!(inode_of_listener(&line.replace(" 0A ", " 01 "), 8080), None);
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(inode_of_listener(head, 0), None);
    }
}
