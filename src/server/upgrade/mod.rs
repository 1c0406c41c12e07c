//! One process takes over from another, and nobody loses anything by it.
//!
//! The old one starts the new one and serves on until that says hello. Then it stands still, gives away its doors and the
//! state of its hub, and waits for the word that all of it has arrived. Up to there nothing has changed, and if anything fails
//! the old one ends the new one and serves on. With [`Message::Go`] the new one serves; the old one passes on its clients, each as
//! soon as it has its answer. If the old one dies before that word, the new one serves without it.

mod protocol;

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::stdio;

use self::protocol::{Message, Wire, no_message};
use crate::hub::{Config, Hub, Now};
use crate::options::{Address, VERSION};
use crate::server::activation;
use crate::server::systemd::WATCHDOG_PID;
use crate::service::Audience;
use crate::snapshot::{self, Fault};

/// Set for a process that is to take over; its standard input is the line to the one before.
const VARIABLE: &str = "SPEAK_TAKES_OVER";

/// How long either waits for the other to say or to take anything. The server stands still meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take the new process to start.
pub(super) const START_MS: u64 = 10_000;

/// Those who wait are answered over this time, so that they do not all come back at once.
pub(super) const SPREAD_MS: u64 = 1_000;

/// How much later than that an answer may be on its way.
const SLACK_MS: u64 = 250;

/// The process that is to serve instead of this one.
pub(super) struct Successor {
    child: Child,
    wire: Wire,
}

/// A door that changes hands.
pub(super) struct HandedDoor<'a> {
    pub(super) audience: Audience,
    /// As the operator named it.
    pub(super) address: &'a Address,
    /// No option names it.
    pub(super) is_passed: bool,
    pub(super) file: BorrowedFd<'a>,
}

impl Successor {
    /// Starts the program of this process anew, as it is now, with the same arguments.
    ///
    /// # Errors
    ///
    /// What keeps it from starting.
    pub(super) fn start() -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(PATIENCE))?;
        ours.set_write_timeout(Some(PATIENCE))?;
        let mut arguments = env::args_os();
        // By the name by which it was called: behind a link there may be another program by now.
        let program =
            arguments.next().filter(|name| !name.is_empty()).map_or_else(env::current_exe, |it| Ok(it.into()))?;
        let arguments: Vec<OsString> = arguments.collect();
        let mut command = Command::new(program);
        // What was said to this process alone.
        for name in activation::VARIABLES.into_iter().chain([WATCHDOG_PID]) {
            command.env_remove(name);
        }
        let child = command.args(arguments).env(VARIABLE, "1").stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        Ok(Self { child, wire: Wire::new(ours) })
    }

    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// It has said something, or is gone: gives it all that it needs to serve, and has it begin.
    ///
    /// # Errors
    ///
    /// Where it did not take over. It is to be given up then.
    pub(super) fn hand_over(&mut self, doors: &[HandedDoor<'_>], hub: &Hub, now: Now) -> io::Result<()> {
        let hello = |message: Message<'_>, _: &mut _| matches!(message, Message::Hello { .. });
        if !self.wire.wait_for(hello)? {
            return Err(no_message());
        }
        for door in doors {
            let is_public = door.audience == Audience::Public;
            let message = Message::Door { is_public, address: &door.address.to_string(), is_passed: door.is_passed };
            self.wire.send(&message, Some(door.file))?;
        }
        self.wire.send(&Message::State, None)?;
        let mut out = io::BufWriter::new(&mut self.wire);
        snapshot::write(hub, now, SPREAD_MS + SLACK_MS, &mut out)?;
        drop(out);
        let is_ready = self.wire.wait_for(|message, _| matches!(message, Message::Ready))?;
        if is_ready { self.wire.send(&Message::Go, None) } else { Err(no_message()) }
    }

    /// Passes on a client that is between two requests, with what came of the next.
    ///
    /// # Errors
    ///
    /// What the socket says.
    pub(super) fn pass_on(&mut self, client: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
        self.wire.send(&Message::Client { bytes }, Some(client))
    }

    /// Ends it: it has not begun to serve, and must not.
    pub(super) fn give_up(mut self) {
        // Fails only where it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl AsFd for Successor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}

/// The process that served until now.
pub(super) struct Predecessor {
    wire: Wire,
    doors: Vec<InheritedDoor>,
}

/// A listening socket that another process opened.
struct InheritedDoor {
    is_public: bool,
    address: String,
    is_passed: bool,
    file: OwnedFd,
}

/// What came from the process before.
enum Came {
    Door(InheritedDoor),
    State,
    Client(OwnedFd, Vec<u8>),
    Go,
    Nonsense,
}

impl Came {
    fn of(message: Message<'_>, files: &mut std::collections::VecDeque<OwnedFd>) -> Self {
        match (message, files) {
            (Message::State, _) => Self::State,
            (Message::Go, _) => Self::Go,
            (Message::Door { is_public, address, is_passed }, files) => {
                files.pop_front().map_or(Self::Nonsense, |file| {
                    Self::Door(InheritedDoor { is_public, address: address.to_owned(), is_passed, file })
                })
            }
            (Message::Client { bytes }, files) => {
                files.pop_front().map_or(Self::Nonsense, |file| Self::Client(file, bytes.to_vec()))
            }
            (Message::Hello { .. } | Message::Ready, _) => Self::Nonsense,
        }
    }
}

impl Predecessor {
    /// The one from which this process is to take over, if it is.
    ///
    /// # Errors
    ///
    /// Where the line to it is none.
    pub(super) fn find() -> io::Result<Option<Self>> {
        if env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let socket = UnixStream::from(stdio::stdin().try_clone_to_owned()?);
        stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Some(Self { wire: Wire::new(socket), doors: Vec::new() }))
    }

    /// Says hello, and takes its doors and the hub. It is `unix_ms` since 1970 now.
    ///
    /// # Errors
    ///
    /// Where it is gone, or gave something that is not understood.
    pub(super) fn take_hub(&mut self, config: &Config, unix_ms: u64) -> io::Result<(Hub, Now)> {
        self.wire.send(&Message::Hello { version: VERSION }, None)?;
        loop {
            match self.wire.wait_for(Came::of)? {
                Came::Door(door) => self.doors.push(door),
                Came::State => break,
                Came::Client(..) | Came::Go | Came::Nonsense => return Err(no_message()),
            }
        }
        snapshot::read(config, unix_ms, &mut self.wire).map_err(|fault| match fault {
            Fault::Io(error) => error,
            Fault::CutShort => io::ErrorKind::UnexpectedEof.into(),
            fault => io::Error::other(fault.to_string()),
        })
    }

    /// The door that it had at this address, if it had one.
    pub(super) fn take_door(&mut self, audience: Audience, address: &Address) -> Option<OwnedFd> {
        let (is_public, address) = (audience == Audience::Public, address.to_string());
        let place = self.doors.iter().position(|door| door.is_public == is_public && door.address == address)?;
        Some(self.doors.swap_remove(place).file)
    }

    /// The doors that were passed to it, or to one before it.
    pub(super) fn take_passed(&mut self) -> Vec<(Audience, OwnedFd)> {
        let audience = |door: &InheritedDoor| if door.is_public { Audience::Public } else { Audience::Operator };
        self.doors.extract_if(.., |door| door.is_passed).map(|door| (audience(&door), door.file)).collect()
    }

    /// Says that this process could serve, and waits for the word to. It comes also when the other one is gone.
    ///
    /// # Errors
    ///
    /// Where it says something else.
    pub(super) fn wait_for_go(&mut self) -> io::Result<()> {
        if self.wire.is_over() {
            return Ok(());
        }
        let result = self.wire.send(&Message::Ready, None).and_then(|()| self.wire.wait_for(Came::of));
        match result {
            Ok(Came::Go) => {}
            Ok(_) => return Err(no_message()),
            Err(error) if is_gone(&error) => log::warn!("the process before ended while this one took over"),
            Err(error) => return Err(error),
        }
        self.doors.clear();
        self.wire.socket().set_nonblocking(true)
    }

    /// Takes the clients that it has passed on. Tells whether there will be more.
    pub(super) fn take_clients(&mut self, mut admit: impl FnMut(OwnedFd, Vec<u8>)) -> Clients {
        loop {
            while let Ok(Some(came)) = self.wire.take(Came::of) {
                if let Came::Client(socket, bytes) = came {
                    admit(socket, bytes);
                }
            }
            match self.wire.receive() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Clients::MoreToCome,
                Ok(()) if !self.wire.is_over() => {}
                _ => return Clients::AllHere,
            }
        }
    }
}

/// Whether the process before has clients yet to pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clients {
    MoreToCome,
    AllHere,
}

/// Whether the other process has ended.
pub(super) fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | BrokenPipe | ConnectionReset)
}

impl AsFd for Predecessor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}
