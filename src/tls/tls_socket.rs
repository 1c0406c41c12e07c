//! A socket that speaks TLS, around another one: its reads and writes are plaintext.

use std::io::{self, Read, Write};
use std::rc::Rc;

use super::context::TlsContext;
use super::record::CLOSE_NOTIFY_BYTES;
use super::session::{Session, take_steps};
use super::session_table::SessionHandle;
use crate::service::Socket;

/// A client's socket: plain, or with TLS around it.
///
/// The first reads of a client with TLS advance its handshake. The caller reads at each event, as
/// it does for a plain client, and calls `flush` if the socket has become writable.
pub struct TlsSocket<S: Socket> {
    inner: S,
    /// `None` if this socket is plain.
    session: Option<SessionHandle>,
}

impl<S: Socket> TlsSocket<S> {
    /// Wraps a socket that stays plain.
    pub fn plain(inner: S) -> Self {
        Self { inner, session: None }
    }

    /// Wraps a socket whose client begins with a handshake. `None` if the kernel gives no random
    /// bytes.
    pub fn accept(inner: S, context: &Rc<TlsContext>) -> Option<Self> {
        let session = Some(SessionHandle::new(Session::accept(context)?));
        Some(Self { inner, session })
    }

    /// Wraps a socket with the state that another process has exported. `None` if `state` is
    /// something else.
    pub fn import(inner: S, state: &[u8]) -> Option<Self> {
        let session = Some(SessionHandle::new(Session::import(state)?));
        Some(Self { inner, session })
    }

    /// Takes the state of a client between two requests, for another process: the secrets, the
    /// numbers of the next records, and the part of a record that has come. Some hundred bytes,
    /// 17 KB at most. They are secret.
    ///
    /// Empty if no byte of the client has come: the other process calls [`TlsSocket::accept`].
    /// `None` if the client is plain, in its handshake, or still has to be sent something. From
    /// then on, this socket neither reads nor writes, and says nothing when it is dropped.
    pub fn export(&mut self) -> Option<Vec<u8>> {
        self.session.as_mut()?.with_mut(Session::export)
    }

    /// Returns the socket below.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Returns the socket below, for instance to register it with a poll.
    pub fn inner_mut(&mut self) -> &mut S {
        &mut self.inner
    }
}

impl<S: Socket> Read for TlsSocket<S> {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.session {
            None => self.inner.read(buffer),
            Some(session) => session.with_mut(|it| it.read(&mut self.inner, buffer)),
        }
    }
}

impl<S: Socket> Write for TlsSocket<S> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.session {
            None => self.inner.write(bytes),
            Some(session) => session.with_mut(|it| it.write(&mut self.inner, bytes)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.session {
            None => self.inner.flush(),
            Some(session) => session.with_mut(|it| it.flush(&mut self.inner)),
        }
    }
}

impl<S: Socket> Socket for TlsSocket<S> {
    fn is_tls(&self) -> bool {
        self.session.is_some()
    }

    fn is_handshaking(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.with(Session::is_handshaking))
    }

    fn shut_down_writing(&mut self) -> io::Result<()> {
        if let Some(session) = &mut self.session {
            session.with_mut(|it| it.close(&mut self.inner));
        }
        self.inner.shut_down_writing()
    }

    fn has_ended(&mut self) -> bool {
        let Some(session) = &mut self.session else { return false };
        let mut record = [0; CLOSE_NOTIFY_BYTES];
        let is_whole = self.inner.peek(&mut record).is_ok_and(|length| length == record.len());
        is_whole && session.with_mut(|it| it.is_close_notify(record))
    }

    fn has_input(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.with(Session::has_input))
    }

    fn has_progressed(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.with(Session::has_progressed))
    }

    fn memory(&self) -> usize {
        self.session.as_ref().map_or(0, |session| session.with(Session::memory))
    }

    fn take_steps(&mut self) -> usize {
        if self.session.is_some() { take_steps() } else { 0 }
    }
}

impl<S: Socket> Drop for TlsSocket<S> {
    /// Tells the client that the end is no attacker's: a response may end with the connection.
    fn drop(&mut self) {
        if let Some(session) = &mut self.session {
            session.with_mut(|it| {
                it.note_end();
                it.close(&mut self.inner);
            });
        }
    }
}
