//! The process that takes over from this one.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use minicbor::bytes::ByteSlice;

use super::protocol::{Message, UPGRADE_ENV, UpgradeSocket, malformed};
use crate::hub::{Hub, Now};
use crate::options::ListenAddr;
use crate::server::activation::ACTIVATION_ENV;
use crate::server::systemd::WATCHDOG_PID;
use crate::service::ListenerKind;
use crate::snapshot;

/// Time over which the old process completes its pending reads, so that the clients do not all
/// come back at once.
pub(super) const DRAIN_SPREAD_MS: u64 = 1_000;

/// Additional time in which the last of these responses reaches its client.
const DRAIN_SLACK_MS: u64 = 250;

/// The process that takes over from this one.
pub(super) struct Successor {
    child: Child,
    socket: UpgradeSocket,
}

/// A listener to transfer.
pub(super) struct TransferredListener<'a> {
    pub(super) kind: ListenerKind,
    /// Address, as the operator wrote it.
    pub(super) address: &'a ListenAddr,
    /// Opened by socket activation: no option names it.
    pub(super) is_activated: bool,
    pub(super) fd: BorrowedFd<'a>,
}

/// What the successor continues with, besides the hub.
pub(super) struct Continued<'a> {
    /// State of the log of the cluster, if there is one.
    pub(super) cluster_log: Option<&'a [u8]>,
    /// Keys of the tickets of TLS, if there are certificates. They are secret.
    pub(super) ticket_keys: Option<Vec<u8>>,
}

impl Successor {
    /// Starts the program of this process again, in its present version and with the same
    /// arguments.
    ///
    /// # Errors
    ///
    /// The error of creating the socket or the process.
    pub(super) fn start() -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let socket = UpgradeSocket::with_timeouts(ours)?;
        let mut arguments = env::args_os();
        // The name of the call, not the file of this process: a link may lead to a newer program.
        let program = arguments
            .next()
            .filter(|name| !name.is_empty())
            .map_or_else(env::current_exe, |it| Ok(it.into()))?;
        let arguments: Vec<OsString> = arguments.collect();
        let mut command = Command::new(program);
        // These variables are for this process only.
        for name in ACTIVATION_ENV.into_iter().chain([WATCHDOG_PID]) {
            command.env_remove(name);
        }
        let child = command
            .args(arguments)
            .env(UPGRADE_ENV, "1")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        Ok(Self { child, socket })
    }

    /// Process ID.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether the successor has exited.
    pub(super) fn has_exited(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends all that the successor needs to serve, and waits until it could. To be called once its
    /// socket is readable. Blocks the server meanwhile.
    ///
    /// # Errors
    ///
    /// The reason why the successor cannot take over. It must be killed then.
    pub(super) fn send_state(
        &mut self,
        listeners: &[TransferredListener<'_>],
        continued: &Continued<'_>,
        hub: &Hub,
        now: Now,
    ) -> io::Result<()> {
        let is_hello = |message: Message<'_>, _: &mut _| matches!(message, Message::Hello { .. });
        if !self.socket.recv(is_hello)? {
            return Err(malformed());
        }
        for listener in listeners {
            let message = Message::Listener {
                is_public: listener.kind == ListenerKind::Public,
                address: &listener.address.to_string(),
                is_activated: listener.is_activated,
            };
            self.socket.send(&message, Some(listener.fd))?;
        }
        if let Some(bytes) = continued.cluster_log {
            self.socket.send(&Message::ClusterLog { bytes }, None)?;
        }
        if let Some(bytes) = &continued.ticket_keys {
            self.socket.send(&Message::TicketKeys { bytes }, None)?;
        }
        self.socket.send(&Message::State, None)?;
        let mut out = io::BufWriter::new(&mut self.socket);
        snapshot::write(hub, now, DRAIN_SPREAD_MS + DRAIN_SLACK_MS, &mut out)?;
        drop(out);
        let is_ready = self.socket.recv(|message, _| matches!(message, Message::Ready))?;
        if is_ready { Ok(()) } else { Err(malformed()) }
    }

    /// Lets the successor serve.
    ///
    /// # Errors
    ///
    /// The socket's error: it does not serve, and must be killed.
    pub(super) fn send_go(&mut self) -> io::Result<()> {
        self.socket.send(&Message::Go, None)
    }

    /// Transfers a client that is between two requests. `input` is what arrived of its next one.
    /// `tls` is what its socket has exported, if it speaks TLS.
    ///
    /// # Errors
    ///
    /// The socket's error.
    pub(super) fn send_client(
        &mut self,
        client: BorrowedFd<'_>,
        input: &[u8],
        tls: Option<&[u8]>,
    ) -> io::Result<()> {
        let tls = tls.map(<&ByteSlice>::from);
        self.socket.send(&Message::Client { bytes: input, tls }, Some(client))
    }

    /// Kills the process, which does not serve yet and must not start to.
    pub(super) fn kill(mut self) {
        // Fails only if the process has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl AsFd for Successor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
