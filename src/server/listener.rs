//! A listening address: bind it, accept from it, give it up.

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
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::activation::not_a_listener;
use crate::options::ListenAddr;
use crate::server::os_socket::OsSocket;
use crate::service::{Listener, ListenerKind};

/// Connections that the kernel completes before we accept them; it cuts this to its own `somaxconn`.
const BACKLOG: i32 = 4096;

/// A peer that vanished without a word is noticed after this much silence: first asked after 30 s, and
/// given up when neither that nor data was acknowledged for as long again.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A process that has bound its socket listens on it within this time, by far.
const LISTEN_RETRY_DELAY: Duration = Duration::from_millis(50);

enum Binding {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket, known by more than its name: under that, somebody may have put another one.
struct SocketFile {
    path: PathBuf,
    id: Option<FileId>,
}

impl SocketFile {
    /// The one that is there now.
    fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), id: file_id(path) }
    }
}

/// Device and inode: nothing else has them for as long as the file, or a socket bound to it, is there.
type FileId = (u64, u64);

/// A listening socket.
pub(super) struct OsListener {
    address: ListenAddr,
    binding: Binding,
    audience: ListenerKind,
    /// Somebody else opened it for this process, or for one before it.
    is_activated: bool,
    /// Another process listens there from now on.
    is_transferred: bool,
}

/// Where a door is, as the first lines tell it.
impl fmt::Display for OsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.binding {
            Binding::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "http://{address}"),
                Err(error) => write!(f, "an address that the kernel does not tell ({error})"),
            },
            Binding::Unix(_, file) => write!(f, "unix:{}", file.path.display()),
        }
    }
}

impl OsListener {
    /// Binds and listens. An answer to one of its clients may make no progress for `answer_timeout`.
    ///
    /// # Errors
    ///
    /// What the kernel says, for instance that the address is in use.
    pub(super) fn open(
        address: &ListenAddr,
        audience: ListenerKind,
        answer_timeout: Duration,
    ) -> io::Result<Self> {
        let binding = match address {
            ListenAddr::Tcp(address) => {
                Binding::Tcp(TcpListener::from_std(listen_tcp(*address, answer_timeout)?.into()))
            }
            ListenAddr::Unix(path) => {
                let listener = UnixListener::from_std(listen_unix(path)?.into());
                Binding::Unix(listener, SocketFile::at(path))
            }
        };
        Ok(Self {
            address: address.clone(),
            binding,
            audience,
            is_activated: false,
            is_transferred: false,
        })
    }

    /// Goes on with a socket that another process opened at this address.
    pub(super) fn inherit(address: &ListenAddr, audience: ListenerKind, listener: OwnedFd) -> Self {
        let binding = match address {
            ListenAddr::Tcp(_) => Binding::Tcp(TcpListener::from_std(listener.into())),
            ListenAddr::Unix(path) => {
                Binding::Unix(UnixListener::from_std(listener.into()), SocketFile::at(path))
            }
        };
        Self {
            address: address.clone(),
            binding,
            audience,
            is_activated: false,
            is_transferred: false,
        }
    }

    /// Serves at a socket that somebody else opened. `answer_timeout` as for [`Door::open`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` for what does not listen, or what the kernel says.
    pub(super) fn from_activation(
        audience: ListenerKind,
        listener: OwnedFd,
        answer_timeout: Duration,
    ) -> io::Result<Self> {
        if sockopt::socket_type(&listener)? != SocketType::STREAM
            || !sockopt::socket_acceptconn(&listener)?
        {
            return Err(not_a_listener());
        }
        rustix::io::ioctl_fionbio(&listener, true)?;
        let (address, binding) = if sockopt::socket_domain(&listener)? == AddressFamily::UNIX {
            let listener = UnixListener::from_std(listener.into());
            let path =
                listener.local_addr()?.as_pathname().map_or_else(PathBuf::new, Path::to_path_buf);
            // Whoever made its file will remove it.
            (ListenAddr::Unix(path.clone()), Binding::Unix(listener, SocketFile { path, id: None }))
        } else {
            set_up_tcp(&listener, answer_timeout)?;
            let listener = TcpListener::from_std(listener.into());
            (ListenAddr::Tcp(listener.local_addr()?), Binding::Tcp(listener))
        };
        Ok(Self { address, binding, audience, is_activated: true, is_transferred: false })
    }

    /// Whether somebody else opened it.
    pub(super) fn is_activated(&self) -> bool {
        self.is_activated
    }

    /// Where it was told to be.
    pub(super) fn address(&self) -> &ListenAddr {
        &self.address
    }

    /// Another process listens there from now on.
    pub(super) fn mark_transferred(&mut self) {
        self.is_transferred = true;
    }

    /// Its port, if it is a TCP one.
    pub(super) fn port(&self) -> Option<u16> {
        match &self.binding {
            Binding::Tcp(listener) => listener.local_addr().ok().map(|address| address.port()),
            Binding::Unix(..) => None,
        }
    }

    /// For the poll to watch.
    pub(super) fn source(&mut self) -> &mut dyn Source {
        match &mut self.binding {
            Binding::Tcp(listener) => listener,
            Binding::Unix(listener, _) => listener,
        }
    }
}

impl Listener for OsListener {
    type Socket = OsSocket;
    type Reserve = File;

    fn accept(&mut self) -> io::Result<(OsSocket, Option<IpAddr>)> {
        match &self.binding {
            Binding::Tcp(listener) => {
                listener.accept().map(|(socket, peer)| (OsSocket::Tcp(socket), Some(peer.ip())))
            }
            Binding::Unix(listener, _) => {
                listener.accept().map(|(socket, _)| (OsSocket::Unix(socket), None))
            }
        }
    }

    fn reserve_fd(&mut self) -> Option<File> {
        File::open("/dev/null").ok()
    }

    fn kind(&self) -> ListenerKind {
        self.audience
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

/// A Unix socket's file goes with its door, if it is still the one that the door made.
impl Drop for OsListener {
    fn drop(&mut self) {
        if let Binding::Unix(_, file) = &self.binding
            && !self.is_transferred
            && file.id.is_some()
            && file.id == file_id(&file.path)
        {
            // Somebody may have removed it just now; nothing depends on it.
            let _ = fs::remove_file(&file.path);
        }
    }
}

fn listen_tcp(address: SocketAddr, answer_timeout: Duration) -> io::Result<OwnedFd> {
    match bind_tcp(address, answer_timeout) {
        // A machine without IPv6: `[::]` is then everything that IPv4 reaches.
        Err(error) if address.ip().is_unspecified() && address.is_ipv6() && lacks_ipv6(&error) => {
            bind_tcp((IpAddr::from(Ipv4Addr::UNSPECIFIED), address.port()).into(), answer_timeout)
        }
        result => result,
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL))
}

fn bind_tcp(address: SocketAddr, answer_timeout: Duration) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket(family)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    sockopt::set_socket_reuseaddr(&socket, true)?;
    set_up_tcp(&socket, answer_timeout)?;
    net::bind(&socket, &address)?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Set here once: on Linux, accepted sockets inherit all of them.
fn set_up_tcp(listener: &OwnedFd, answer_timeout: Duration) -> io::Result<()> {
    sockopt::set_tcp_nodelay(listener, true)?;
    sockopt::set_socket_keepalive(listener, true)?;
    sockopt::set_tcp_keepidle(listener, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(listener, KEEPALIVE_INTERVAL)?;
    // Linux counts the time in which a peer has no room for more as well.
    let unacknowledged = KEEPALIVE_IDLE.max(answer_timeout);
    sockopt::set_tcp_user_timeout(
        listener,
        u32::try_from(unacknowledged.as_millis()).unwrap_or(u32::MAX),
    )?;
    Ok(())
}

/// The kernel makes the file with the rights that the process's umask leaves, in one step with the name: there is no
/// moment in which it is open to more than it is to be.
fn listen_unix(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = socket(AddressFamily::UNIX)?;
    match net::bind(&socket, &address) {
        Err(rustix::io::Errno::ADDRINUSE) if remove_stale(path)? => net::bind(&socket, &address)?,
        result => result?,
    }
    net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Removes a socket on which nobody listens. False, and nothing removed, if it is anything else: a link too, wherever
/// that leads.
fn remove_stale(path: &Path) -> io::Result<bool> {
    let Some(id) = file_id(path) else { return Ok(false) };
    for _ in 0..2 {
        if !UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            return Ok(false);
        }
        // One that was bound a moment ago refuses as well, until its process listens.
        thread::sleep(LISTEN_RETRY_DELAY);
    }
    // Another start may have put its own there meanwhile.
    if file_id(path) != Some(id) {
        return Ok(false);
    }
    fs::remove_file(path).map(|()| true)
}

/// What identifies the socket of this name, if it is one.
fn file_id(path: &Path) -> Option<FileId> {
    let file = fs::symlink_metadata(path).ok()?;
    file.file_type().is_socket().then(|| (file.dev(), file.ino()))
}

fn socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socket_with(family, SocketType::STREAM, flags, None)?)
}
