//! One client with TLS: its handshake, then its records, with what is on its way in both
//! directions. Calls get the socket below as an argument.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::rc::Rc;

use super::alert::Alert;
use super::batch::{Batch, Fault, KEY_UPDATES_MAX, Sender, open_all, seal_all, send_alert};
use super::context::{Outcome, TlsContext};
use super::handshake::{Failure, Handshake, Kind, Progress};
use super::record::{
    CLOSE_NOTIFY_BYTES, HEADER_BYTES, OVERHEAD_BYTES, RECORD_BYTES_MAX, Traffic, record_length,
};
use super::unsent::{Unsent, write};

/// Records that cost one step of a turn's budget, of 5 µs: one costs 0.4 µs, measured with ring.
const RECORDS_PER_STEP: usize = 12;

/// Steps of a `KeyUpdate`, which derives a secret, a key and an IV, and a key for sending later.
const KEY_UPDATE_STEPS: usize = 1;

/// Memory of a handshake besides the buffers: the state of rustls while it lasts.
const HANDSHAKE_BYTES: usize = 4 * 1024;

thread_local! {
    /// See [`take_steps`].
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

/// Returns the steps of the turn's budget, of 5 µs each, that all sessions have used for
/// handshakes and records since the last call.
pub(super) fn take_steps() -> usize {
    STEPS.take()
}

/// Charges records that were opened, and the `KeyUpdate`s among them.
fn charge(records: usize, key_updates: usize) {
    let steps = records / RECORDS_PER_STEP + key_updates * KEY_UPDATE_STEPS;
    STEPS.set(STEPS.get() + steps);
}

/// State of a client with TLS. A waiting reader has nothing else.
///
/// Its functions are not inlined: their frames would cost each call of a plain client 30
/// instructions.
pub(super) enum Session {
    Handshaking(Box<Handshaking>),
    /// Between records in both directions.
    Idle(Traffic),
    Busy(Box<Busy>),
    /// The client was told what is wrong. What it sends is discarded.
    Failed,
    /// The client has told an error, or another process has the connection. Nothing is read or sent
    /// any more.
    Over,
}

pub(super) struct Handshaking {
    handshake: Handshake,
    context: Rc<TlsContext>,
    unsent: Unsent,
}

/// A connection with something on its way.
pub(super) struct Busy {
    traffic: Traffic,
    /// Part of a record that the client has begun.
    input: Vec<u8>,
    unsent: Unsent,
    /// Last byte of the plaintext in `unsent`. The caller has to learn that there is something to
    /// send, so this byte was reported as unsent. The next write begins with it.
    held: Option<u8>,
    /// The last write has sent a part of `unsent`, and accepted nothing.
    has_progressed: bool,
    /// The last read has filled its buffer, so the socket may have more.
    may_have_more: bool,
    /// The client sends nothing more.
    is_read_closed: bool,
    /// The client was told that nothing more is sent.
    is_write_closed: bool,
}

impl Session {
    /// Begins with a handshake. `None` if the kernel gives no random bytes.
    pub(super) fn accept(context: &Rc<TlsContext>) -> Option<Self> {
        let handshake = context.start_handshake()?;
        let (context, unsent) = (Rc::clone(context), Unsent::default());
        Some(Self::Handshaking(Box::new(Handshaking { handshake, context, unsent })))
    }

    /// Continues with what [`Session::export`] has returned. `None` if it is something else.
    pub(super) fn import(state: &[u8]) -> Option<Self> {
        let (length, rest) = state.split_first_chunk::<2>()?;
        let (traffic, input) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        let mut session = Self::Idle(Traffic::import(traffic)?);
        if !input.is_empty() {
            // What is complete was opened. So this is the part of a record.
            let length = record_length(input).ok()?.unwrap_or(HEADER_BYTES);
            if input.len() >= length {
                return None;
            }
            session.make_busy()?.input = input.to_vec();
        }
        Some(session)
    }

    /// Takes the state of a client between two requests: the traffic, and the part of a record that
    /// has come. Empty if no byte has come. `None` if the client is in its handshake, or still has
    /// to be sent something. From then on, this session neither reads nor writes.
    #[inline(never)]
    pub(super) fn export(&mut self) -> Option<Vec<u8>> {
        let (traffic, input) = match mem::replace(self, Self::Over) {
            Self::Idle(traffic) => (traffic, Vec::new()),
            Self::Busy(busy) if busy.has_only_input() => (busy.traffic, busy.input),
            Self::Handshaking(handshaking) if !handshaking.handshake.has_begun() => {
                return Some(Vec::new());
            }
            other => {
                *self = other;
                return None;
            }
        };
        let traffic = traffic.export();
        let length = u16::try_from(traffic.len()).expect("a hundred bytes").to_be_bytes();
        Some([&length[..], &traffic, &input].concat())
    }

    pub(super) fn is_handshaking(&self) -> bool {
        matches!(self, Self::Handshaking(_))
    }

    /// Returns whether the next record, which was not read, is `close_notify`.
    #[inline(never)]
    pub(super) fn is_close_notify(&mut self, record: [u8; CLOSE_NOTIFY_BYTES]) -> bool {
        let traffic = match self {
            Self::Idle(traffic) => traffic,
            Self::Busy(busy) if busy.input.is_empty() => &mut busy.traffic,
            _ => return false,
        };
        if !matches!(record_length(&record), Ok(Some(CLOSE_NOTIFY_BYTES))) {
            return false;
        }
        STEPS.set(STEPS.get() + 1);
        traffic.is_close_notify(record)
    }

    /// Returns whether a read returns something although no event will say so.
    pub(super) fn has_input(&self) -> bool {
        matches!(self, Self::Busy(busy) if busy.may_have_more)
    }

    /// Returns whether the last write has sent something although it has accepted nothing.
    pub(super) fn has_progressed(&self) -> bool {
        matches!(self, Self::Busy(busy) if busy.has_progressed)
    }

    /// Returns the memory in bytes that a waiting reader does not have.
    #[inline(never)]
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Handshaking(handshaking) => {
                let Handshaking { handshake, unsent, .. } = &**handshaking;
                HANDSHAKE_BYTES + handshake.buffer_bytes() + unsent.bytes.capacity()
            }
            Self::Busy(busy) => {
                size_of::<Busy>() + busy.input.capacity() + busy.unsent.bytes.capacity()
            }
            Self::Idle(_) | Self::Failed | Self::Over => 0,
        }
    }

    /// Makes room for something that is on its way. `None` unless the handshake is over.
    fn make_busy(&mut self) -> Option<&mut Busy> {
        if matches!(self, Self::Idle(_))
            && let Self::Idle(traffic) = mem::replace(self, Self::Over)
        {
            *self = Self::Busy(Box::new(Busy::new(traffic)));
        }
        match self {
            Self::Busy(busy) => Some(busy),
            _ => None,
        }
    }

    /// Frees that room if nothing is on its way.
    fn relax(&mut self) {
        if matches!(self, Self::Busy(busy) if busy.is_idle())
            && let Self::Busy(busy) = mem::replace(self, Self::Over)
        {
            *self = Self::Idle(busy.traffic);
        }
    }

    /// Reads plaintext, as [`Socket`](crate::service::Socket) says. `buffer` has
    /// [`RECORD_BYTES_MAX`] at least.
    ///
    /// # Errors
    ///
    /// In addition to those of the socket: `InvalidData` if the client breaks the protocol, of
    /// which it was told: later reads discard its bytes, so that a reset does not overtake that.
    /// `UnexpectedEof` if it has closed the connection without saying so in TLS, `ConnectionReset`
    /// if it has sent an alert. `Interrupted` if only a part of the input was handled.
    #[inline(never)]
    pub(super) fn read(
        &mut self,
        socket: &mut (impl Read + Write),
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        assert!(buffer.len() >= RECORD_BYTES_MAX, "no room for a record");
        match self {
            Self::Handshaking(_) => self.read_handshake(socket, buffer),
            Self::Busy(busy) if busy.is_read_closed => {
                busy.may_have_more = false;
                Ok(0)
            }
            Self::Busy(busy) => {
                let kept = busy.input.len();
                busy.may_have_more = false;
                buffer[..kept].copy_from_slice(&busy.input);
                self.read_records(socket, buffer, kept)
            }
            Self::Idle(_) => self.read_records(socket, buffer, 0),
            Self::Failed => match socket.read(buffer)? {
                0 => Ok(0),
                length => Err(nothing(length == buffer.len())),
            },
            Self::Over => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Reads and advances the handshake. If it is complete, opens the records that follow.
    fn read_handshake(
        &mut self,
        socket: &mut (impl Read + Write),
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        let Self::Handshaking(handshaking) = self else { return Err(broken()) };
        let length = read_some(socket, buffer)?;
        let Handshaking { handshake, context, unsent } = &mut **handshaking;
        let (used, result) = handshake.advance(&buffer[..length], &mut unsent.bytes);
        STEPS.set(STEPS.get() + handshake.take_steps());
        let flushed = unsent.flush(socket);
        match result {
            Ok(progress) => {
                if let Err(error) = flushed
                    && error.kind() != ErrorKind::WouldBlock
                {
                    return Err(error);
                }
                if let Progress::Complete(kind) = progress {
                    self.end_handshake(kind)?;
                }
            }
            Err(failure) => {
                context.note(failure.into());
                if failure == Failure::PlainText {
                    let _ = write(socket, &context.plain_reply());
                }
                *self = Self::Failed;
                return Err(broken());
            }
        }
        let is_filled = length == buffer.len();
        if self.is_handshaking() {
            return Err(nothing(is_filled));
        }
        buffer.copy_within(used..length, 0);
        self.open_records(socket, &mut buffer[..length - used], is_filled)
    }

    /// Replaces the handshake by the traffic that follows.
    fn end_handshake(&mut self, kind: Kind) -> io::Result<()> {
        let Self::Handshaking(handshaking) = mem::replace(self, Self::Over) else {
            return Err(broken());
        };
        let Handshaking { handshake, context, unsent } = *handshaking;
        let Some(traffic) = handshake.finish() else {
            context.note(Outcome::Refused);
            return Err(broken());
        };
        context.note(kind.into());
        let mut busy = Busy::new(traffic);
        busy.unsent = unsent;
        *self = Self::Busy(Box::new(busy));
        Ok(())
    }

    /// Reads records after the `kept` bytes of one that are already in `buffer`.
    fn read_records(
        &mut self,
        socket: &mut (impl Read + Write),
        buffer: &mut [u8],
        kept: usize,
    ) -> io::Result<usize> {
        // An end that TLS does not tell may be made by an attacker (RFC 8446, section 6.1), so it
        // is an error here.
        let length = match read_some(socket, &mut buffer[kept..]) {
            Ok(length) => length,
            Err(error) => {
                self.relax();
                return Err(error);
            }
        };
        let is_filled = kept + length == buffer.len();
        self.open_records(socket, &mut buffer[..kept + length], is_filled)
    }

    /// Opens the records at the start of `bytes`, moves their plaintext to its front, and keeps the
    /// part of a record at the end.
    fn open_records(
        &mut self,
        socket: &mut impl Write,
        bytes: &mut [u8],
        is_filled: bool,
    ) -> io::Result<usize> {
        let traffic = match self {
            Self::Idle(traffic) => traffic,
            Self::Busy(busy) => {
                busy.input = Vec::new();
                &mut busy.traffic
            }
            Self::Handshaking(_) | Self::Failed | Self::Over => return Err(broken()),
        };
        let batch = match open_all(traffic, bytes, Sender::Client) {
            Ok(batch) => batch,
            Err(fault) => {
                // At most as many records were opened before the one at fault.
                charge(bytes.len() / OVERHEAD_BYTES, KEY_UPDATES_MAX);
                return Err(self.fail(socket, fault));
            }
        };
        charge(batch.records, batch.key_updates);
        let Batch { plaintext, used, is_closed, .. } = batch;
        // The usual case is whole records, and a buffer that they do not fill.
        if used < bytes.len() || is_filled || is_closed {
            let Some(busy) = self.make_busy() else { return Err(broken()) };
            busy.is_read_closed = is_closed;
            busy.may_have_more = is_filled || is_closed && plaintext > 0;
            // Nothing counts after `close_notify` (RFC 8446, section 6.1).
            busy.input = if is_closed { Vec::new() } else { bytes[used..].to_vec() };
        }
        self.relax();
        match plaintext {
            0 if is_closed => Ok(0),
            0 => Err(nothing(is_filled)),
            _ => Ok(plaintext),
        }
    }

    /// Ends the connection with an error.
    fn fail(&mut self, socket: &mut impl Write, fault: Fault) -> io::Error {
        match fault {
            Fault::Ours(alert) => {
                if let Some(busy) = self.make_busy() {
                    busy.send_alert(socket, alert);
                }
                *self = Self::Failed;
                broken()
            }
            Fault::Theirs(_) => {
                *self = Self::Over;
                ErrorKind::ConnectionReset.into()
            }
        }
    }

    /// Writes plaintext, as [`Socket`](crate::service::Socket) says. If less than all is accepted,
    /// the next write has to begin with the rest.
    ///
    /// # Errors
    ///
    /// In addition to those of the socket: `NotConnected` before the end of the handshake and after
    /// an error, `BrokenPipe` after [`Session::close`], `InvalidInput` if the bytes do not begin
    /// with the rest.
    #[inline(never)]
    pub(super) fn write(&mut self, socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
        let Some(&first) = bytes.first() else { return Ok(0) };
        let mut accepted = 0;
        let traffic = match self {
            Self::Idle(traffic) => traffic,
            Self::Busy(busy) if busy.is_write_closed => return Err(ErrorKind::BrokenPipe.into()),
            Self::Busy(busy) => {
                let unsent = busy.unsent.rest();
                let flushed = busy.unsent.flush(socket);
                busy.has_progressed = flushed.is_err() && busy.unsent.rest() < unsent;
                flushed?;
                if let Some(held) = busy.held.take() {
                    if first != held {
                        return Err(ErrorKind::InvalidInput.into());
                    }
                    accepted = 1;
                }
                &mut busy.traffic
            }
            Self::Handshaking(_) | Self::Failed | Self::Over => {
                return Err(ErrorKind::NotConnected.into());
            }
        };
        let unsent = seal_all(traffic, socket, bytes, &mut accepted)?;
        if let Some(unsent) = unsent {
            let Some(busy) = self.make_busy() else { return Err(broken()) };
            busy.unsent = unsent;
            accepted -= 1;
            busy.held = Some(bytes[accepted]);
        }
        self.relax();
        if accepted == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(accepted) }
    }

    /// Sends the ciphertext that the socket did not take before.
    ///
    /// # Errors
    ///
    /// Those of the socket, `WouldBlock` if it takes less than all.
    #[inline(never)]
    pub(super) fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Handshaking(handshaking) => handshaking.unsent.flush(socket)?,
            Self::Busy(busy) => busy.unsent.flush(socket)?,
            Self::Idle(_) | Self::Failed | Self::Over => {}
        }
        self.relax();
        Ok(())
    }

    /// Tells the client that nothing more is sent. If the socket does not take that, or the rest of
    /// a record, the client sees an end that TLS does not tell.
    #[inline(never)]
    pub(super) fn close(&mut self, socket: &mut impl Write) {
        if let Some(busy) = self.make_busy() {
            busy.send_alert(socket, Alert::CloseNotify);
        }
    }

    /// Notes that the client is gone.
    pub(super) fn note_end(&self) {
        if let Self::Handshaking(handshaking) = self {
            handshaking.context.note(Outcome::Abandoned);
        }
    }
}

impl Busy {
    fn new(traffic: Traffic) -> Self {
        Self {
            traffic,
            input: Vec::new(),
            unsent: Unsent::default(),
            held: None,
            has_progressed: false,
            may_have_more: false,
            is_read_closed: false,
            is_write_closed: false,
        }
    }

    fn has_only_input(&self) -> bool {
        let is_closed = self.is_read_closed || self.is_write_closed;
        self.unsent.is_empty() && self.held.is_none() && !is_closed
    }

    fn is_idle(&self) -> bool {
        self.has_only_input() && self.input.is_empty() && !self.may_have_more
    }

    /// Tries to send an alert, once. Nothing is sent after it. If the rest of a record waits, the
    /// client could not read the alert.
    fn send_alert(&mut self, socket: &mut impl Write, alert: Alert) {
        if !self.is_write_closed && self.unsent.is_empty() {
            send_alert(&mut self.traffic, socket, alert);
        }
        self.is_write_closed = true;
    }
}

fn broken() -> io::Error {
    ErrorKind::InvalidData.into()
}

/// The result of a read that has led to no plaintext. If there may be more input, no event will
/// say so: the caller tries again, as after a signal.
fn nothing(may_have_more: bool) -> io::Error {
    if may_have_more { ErrorKind::Interrupted.into() } else { ErrorKind::WouldBlock.into() }
}

/// Reads once. An end is an error.
fn read_some(socket: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    match socket.read(buffer)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        length => Ok(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_reader_has_a_small_state() {
        assert!(size_of::<Session>() <= 128, "{}", size_of::<Session>());
    }
}
