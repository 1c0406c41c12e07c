//! Listeners of the kernel: bind, inherit, accept, and remove the file of a Unix socket.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::activation::{not_a_listener, unix_with_tls};
use super::os_socket::OsSocket;
use super::tls::{ClientSocket, TlsAcceptor};
use crate::options::ListenAddr;
use crate::service::{Listener, ListenerKind};

/// Connections that the kernel completes before they are accepted. The kernel reduces it to
/// `somaxconn`.
const BACKLOG: i32 = 4096;

/// Keepalive of TCP (`TCP_KEEPIDLE`, `TCP_KEEPINTVL`) detects a peer that vanished: the first probe
/// is sent after 30 s of silence. The connection is dropped if neither a probe nor data is
/// acknowledged for as long again.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Largest `TCP_USER_TIMEOUT` that Linux accepts, in milliseconds: 24 days.
const USER_TIMEOUT_MS_MAX: u32 = i32::MAX.cast_unsigned();

/// Delay before a Unix socket that refuses connections counts as stale. A process that has bound
/// its socket listens on it much sooner.
const LISTEN_RETRY_DELAY: Duration = Duration::from_millis(50);

enum Binding {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// File of a Unix socket. The ID tells it from another file that took its name.
struct SocketFile {
    path: PathBuf,
    /// `None` for a file that is not to be removed.
    id: Option<FileId>,
}

impl SocketFile {
    /// The file that has this path now.
    fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), id: file_id(path) }
    }
}

/// Device and inode. Unique as long as the file, or a socket bound to it, exists.
type FileId = (u64, u64);

/// Listener of the kernel.
pub(super) struct OsListener {
    /// Address, as the operator wrote it.
    address: ListenAddr,
    binding: Binding,
    kind: ListenerKind,
    /// `None` for clients that speak plain HTTP.
    tls: Option<TlsAcceptor>,
    /// Opened by socket activation, for this process or a predecessor.
    is_activated: bool,
    /// A successor listens here: the file of a Unix socket stays.
    is_transferred: bool,
}

/// Writes the address as the first lines of the output show it.
impl fmt::Display for OsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.binding {
            Binding::Tcp(listener) => match listener.local_addr() {
                Ok(address) => {
                    let scheme = if self.tls.is_some() { "https" } else { "http" };
                    write!(f, "{scheme}://{address}")
                }
                Err(error) => write!(f, "an unknown address ({error})"),
            },
            Binding::Unix(_, file) => write!(f, "unix:{}", file.path.display()),
        }
    }
}

impl OsListener {
    /// Binds and listens. The kernel drops a client that acknowledges nothing for
    /// `response_timeout`.
    ///
    /// # Errors
    ///
    /// The kernel's error, for instance that the address is in use.
    pub(super) fn bind(
        address: &ListenAddr,
        kind: ListenerKind,
        response_timeout: Duration,
    ) -> io::Result<Self> {
        let binding = match address {
            ListenAddr::Tcp(address) | ListenAddr::Tls(address) => {
                Binding::Tcp(TcpListener::from_std(listen_tcp(*address, response_timeout)?.into()))
            }
            ListenAddr::Unix(path) => {
                let listener = UnixListener::from_std(listen_unix(path)?.into());
                Binding::Unix(listener, SocketFile::at(path))
            }
        };
        Ok(Self {
            address: address.clone(),
            binding,
            kind,
            tls: None,
            is_activated: false,
            is_transferred: false,
        })
    }

    /// Checks that the address could be bound. Leaves nothing behind: no client can connect, and no
    /// file is created.
    ///
    /// # Errors
    ///
    /// The error of [`OsListener::bind`].
    pub(super) fn check(address: &ListenAddr, response_timeout: Duration) -> io::Result<()> {
        match address {
            ListenAddr::Tcp(address) | ListenAddr::Tls(address) => {
                bind_tcp(*address, response_timeout).map(drop)
            }
            ListenAddr::Unix(path) => check_unix(path),
        }
    }

    /// Continues with a predecessor's socket at this address.
    pub(super) fn inherit(address: &ListenAddr, kind: ListenerKind, listener: OwnedFd) -> Self {
        let binding = match address {
            ListenAddr::Tcp(_) | ListenAddr::Tls(_) => {
                Binding::Tcp(TcpListener::from_std(listener.into()))
            }
            ListenAddr::Unix(path) => {
                Binding::Unix(UnixListener::from_std(listener.into()), SocketFile::at(path))
            }
        };
        Self {
            address: address.clone(),
            binding,
            kind,
            tls: None,
            is_activated: false,
            is_transferred: false,
        }
    }

    /// Listens at a socket of socket activation, to clients that speak TLS if `is_tls`.
    /// `response_timeout` as for [`OsListener::bind`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a socket that does not listen or is no TCP socket for TLS, else the
    /// kernel's error.
    pub(super) fn from_activation(
        kind: ListenerKind,
        is_tls: bool,
        listener: OwnedFd,
        response_timeout: Duration,
    ) -> io::Result<Self> {
        if sockopt::socket_type(&listener)? != SocketType::STREAM
            || !sockopt::socket_acceptconn(&listener)?
        {
            return Err(not_a_listener());
        }
        let is_unix = sockopt::socket_domain(&listener)? == AddressFamily::UNIX;
        if is_unix && is_tls {
            return Err(unix_with_tls());
        }
        rustix::io::ioctl_fionbio(&listener, true)?;
        let (address, binding) = if is_unix {
            let listener = UnixListener::from_std(listener.into());
            let path =
                listener.local_addr()?.as_pathname().map_or_else(PathBuf::new, Path::to_path_buf);
            // The program that made the file removes it.
            (ListenAddr::Unix(path.clone()), Binding::Unix(listener, SocketFile { path, id: None }))
        } else {
            set_up_tcp(&listener, response_timeout)?;
            let listener = TcpListener::from_std(listener.into());
            let address = listener.local_addr()?;
            let address = if is_tls { ListenAddr::Tls(address) } else { ListenAddr::Tcp(address) };
            (address, Binding::Tcp(listener))
        };
        Ok(Self { address, binding, kind, tls: None, is_activated: true, is_transferred: false })
    }

    /// Returns whether the clients of this listener speak TLS.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self.address, ListenAddr::Tls(_))
    }

    /// Makes clients that are accepted from now on speak TLS.
    pub(super) fn set_tls(&mut self, acceptor: TlsAcceptor) {
        self.tls = Some(acceptor);
    }

    /// Returns whether socket activation opened this listener.
    pub(super) fn is_activated(&self) -> bool {
        self.is_activated
    }

    /// Address, as the operator wrote it.
    pub(super) fn address(&self) -> &ListenAddr {
        &self.address
    }

    /// Notes that a successor listens here from now on.
    pub(super) fn mark_transferred(&mut self) {
        self.is_transferred = true;
    }

    /// Port of a TCP listener.
    pub(super) fn port(&self) -> Option<u16> {
        match &self.binding {
            Binding::Tcp(listener) => listener.local_addr().ok().map(|address| address.port()),
            Binding::Unix(..) => None,
        }
    }

    /// File to register with the poll.
    pub(super) fn source(&mut self) -> &mut dyn Source {
        match &mut self.binding {
            Binding::Tcp(listener) => listener,
            Binding::Unix(listener, _) => listener,
        }
    }
}

impl Listener for OsListener {
    type Socket = ClientSocket;
    type Reserve = File;

    fn accept(&mut self) -> io::Result<(ClientSocket, Option<IpAddr>)> {
        let (socket, address) = match &self.binding {
            Binding::Tcp(listener) => {
                listener.accept().map(|(socket, peer)| (OsSocket::Tcp(socket), Some(peer.ip())))
            }
            Binding::Unix(listener, _) => {
                listener.accept().map(|(socket, _)| (OsSocket::Unix(socket), None))
            }
        }?;
        let socket = match &self.tls {
            Some(acceptor) => acceptor.accept(socket)?,
            None => ClientSocket::plain(socket),
        };
        Ok((socket, address))
    }

    fn reserve_fd(&mut self) -> Option<File> {
        File::open("/dev/null").ok()
    }

    fn kind(&self) -> ListenerKind {
        self.kind
    }
}

impl AsFd for OsListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.binding {
            Binding::Tcp(listener) => listener.as_fd(),
            Binding::Unix(listener, _) => listener.as_fd(),
        }
    }
}

/// Removes the file of a Unix socket, if it is still the one that this listener made.
impl Drop for OsListener {
    fn drop(&mut self) {
        if let Binding::Unix(_, file) = &self.binding
            && !self.is_transferred
            && file.id.is_some()
            && file.id == file_id(&file.path)
        {
            // Fails if another program has just removed the file.
            let _ = fs::remove_file(&file.path);
        }
    }
}

fn listen_tcp(address: SocketAddr, response_timeout: Duration) -> io::Result<OwnedFd> {
    let socket = bind_tcp(address, response_timeout)?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Binds a socket that does not listen yet.
fn bind_tcp(address: SocketAddr, response_timeout: Duration) -> io::Result<OwnedFd> {
    match bind_exactly(address, response_timeout) {
        // On a machine without IPv6, `[::]` means all IPv4 addresses.
        Err(error) if address.ip().is_unspecified() && address.is_ipv6() && lacks_ipv6(&error) => {
            let all = IpAddr::from(Ipv4Addr::UNSPECIFIED);
            bind_exactly((all, address.port()).into(), response_timeout)
        }
        result => result,
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL))
}

fn bind_exactly(address: SocketAddr, response_timeout: Duration) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket(family)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    sockopt::set_socket_reuseaddr(&socket, true)?;
    set_up_tcp(&socket, response_timeout)?;
    net::bind(&socket, &address)?;
    Ok(socket)
}

/// Sets the options of a listener. On Linux accepted sockets inherit all of them.
fn set_up_tcp(listener: &OwnedFd, response_timeout: Duration) -> io::Result<()> {
    sockopt::set_tcp_nodelay(listener, true)?;
    sockopt::set_socket_keepalive(listener, true)?;
    sockopt::set_tcp_keepidle(listener, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(listener, KEEPALIVE_INTERVAL)?;
    // Linux also counts the time in which the peer's receive window is full.
    let unacknowledged_ms = KEEPALIVE_IDLE.max(response_timeout).as_millis();
    let user_timeout_ms = u32::try_from(unacknowledged_ms).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(listener, user_timeout_ms.min(USER_TIMEOUT_MS_MAX))?;
    Ok(())
}

/// Listens at a path. The kernel creates the file with the rights that the umask leaves, in one
/// step with its name: at no moment has it more rights.
fn listen_unix(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = socket(AddressFamily::UNIX)?;
    match net::bind(&socket, &address) {
        Err(rustix::io::Errno::ADDRINUSE)
            if remove_stale(path, || thread::sleep(LISTEN_RETRY_DELAY))? =>
        {
            net::bind(&socket, &address)?;
        }
        result => result?,
    }
    net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Checks that [`listen_unix`] could listen at a path. Creates no file.
fn check_unix(path: &Path) -> io::Result<()> {
    SocketAddrUnix::new(path)?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(_) if is_stale(path, || thread::sleep(LISTEN_RETRY_DELAY)) => {}
        Ok(_) => return Err(rustix::io::Errno::ADDRINUSE.into()),
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    Ok(accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?)
}

/// Removes a socket on which no process listens. Removes nothing else, not even a link to such a
/// socket, and returns false then. `wait` waits for [`LISTEN_RETRY_DELAY`].
fn remove_stale(path: &Path, wait: impl FnMut()) -> io::Result<bool> {
    if is_stale(path, wait) { fs::remove_file(path).map(|()| true) } else { Ok(false) }
}

/// Returns whether this is a socket on which no process listens. `wait` waits for
/// [`LISTEN_RETRY_DELAY`].
fn is_stale(path: &Path, mut wait: impl FnMut()) -> bool {
    let Some(id) = file_id(path) else { return false };
    for _ in 0..2 {
        if !UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            return false;
        }
        // A socket that was just bound also refuses connections, until its process listens.
        wait();
    }
    // Another server that is starting may have replaced the file meanwhile.
    file_id(path) == Some(id)
}

/// ID of the socket at this path. `None` if there is no socket.
fn file_id(path: &Path) -> Option<FileId> {
    let file = fs::symlink_metadata(path).ok()?;
    file.file_type().is_socket().then(|| (file.dev(), file.ino()))
}

fn socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socket_with(family, SocketType::STREAM, flags, None)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    /// A path for one socket. Removes the file in the end.
    struct SocketPath(PathBuf);

    impl SocketPath {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("speak-{name}-{}", std::process::id()));
            Self(path)
        }

        /// Binds a socket that does not listen.
        fn bind(&self) -> OwnedFd {
            let bound = socket(AddressFamily::UNIX).unwrap();
            net::bind(&bound, &SocketAddrUnix::new(&self.0).unwrap()).unwrap();
            bound
        }
    }

    impl Drop for SocketPath {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn only_a_socket_on_which_no_process_listens_is_removed() {
        let path = SocketPath::new("stale");
        assert!(!remove_stale(&path.0, || unreachable!("no file")).unwrap());
        drop(path.bind());
        assert!(remove_stale(&path.0, || ()).unwrap());
        assert!(!path.0.exists());

        // A socket of another type refuses connections too.
        let datagrams = UnixDatagram::bind(&path.0).unwrap();
        assert!(!remove_stale(&path.0, || ()).unwrap());
        assert!(path.0.exists());
        drop(datagrams);
        fs::remove_file(&path.0).unwrap();

        let listener = UnixListener::bind(&path.0).unwrap();
        assert!(!remove_stale(&path.0, || unreachable!("it listens")).unwrap());
        assert!(path.0.exists());
        drop(listener);
    }

    #[test]
    fn a_socket_of_a_process_that_is_starting_is_not_removed() {
        let path = SocketPath::new("starting");
        let bound = path.bind();
        assert!(!remove_stale(&path.0, || net::listen(&bound, 1).unwrap()).unwrap());
        assert!(path.0.exists());
        drop(bound);

        // Another process replaces the file, and does not listen yet.
        let mut other = None;
        let replace = || {
            fs::remove_file(&path.0).unwrap();
            other = Some(path.bind());
        };
        assert!(!remove_stale(&path.0, replace).unwrap());
        assert!(path.0.exists());
    }
}
