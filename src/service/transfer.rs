//! Transfer of clients from one process to its successor: both sides.

use std::io;
use std::net::IpAddr;

use super::client::{ReadBuffer, State};
use super::listener::Listener;
use super::service::Service;
use crate::api::Error;
use crate::http::Progress;
use crate::hub::Key;

/// Error for a client whose request arrives during an upgrade.
const DRAINING: Error =
    Error::OverCapacity("the server is being replaced by a new process; retry at once");

/// Outcome of handing over one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// The other process has it, or it is lost.
    Done,
    /// It is in the handshake of TLS, or has to be sent the rest of a record.
    Later,
}

impl<L: Listener> Service<L> {
    /// Hands over the clients that are between two requests. Calls `transfer` with the socket of
    /// each client, and the bytes of its next request that were already read. A client for which it
    /// returns [`Transfer::Later`] stays until the next call: its socket has something to do
    /// before.
    pub fn transfer_clients(
        &mut self,
        mut transfer: impl FnMut(&mut L::Socket, &[u8]) -> Transfer,
    ) {
        for key in self.io.clients.keys() {
            let client = self.io.clients.expect_mut(key);
            match (client.state(), &client.input) {
                // The successor could not tell that the client came by the admin listener.
                (State::Reading, _) if client.is_admin => drop(self.io.clients.remove(key)),
                // Its chunks were decoded in place, so its bytes are no longer a request.
                (State::Reading, Some(input))
                    if matches!(input.progress, Progress::Chunked { .. }) =>
                {
                    self.fail_request(key, DRAINING);
                }
                (State::Reading, input) => {
                    let input = input.as_ref().map_or(&[][..], |input| &input.bytes);
                    if transfer(&mut client.socket, input) == Transfer::Done {
                        self.io.clients.remove(key);
                    }
                }
                _ => {}
            }
        }
    }

    /// Adds a client that the predecessor has transferred, with the bytes of its next request that
    /// were already read. `register` is as for [`Service::end_turn`].
    pub fn adopt_client(
        &mut self,
        socket: L::Socket,
        address: Option<IpAddr>,
        bytes: Vec<u8>,
        register: impl FnOnce(&mut L::Socket, Key) -> io::Result<()>,
    ) {
        let key = self.io.admit(socket, address);
        if !bytes.is_empty() {
            let input = ReadBuffer { bytes, progress: Progress::default() };
            let deadline = self.io.now.mono.after(self.io.limits.request_timeout_ms);
            self.io.clients.expect_mut(key).input = Some(Box::new(input));
            self.io.clients.schedule(key);
            self.io.clients.set_deadline(key, deadline);
        }
        if let Err(error) = register(&mut self.io.clients.expect_mut(key).socket, key) {
            log::warn!("cannot register transferred client: {error}");
            self.close(key);
        }
    }
}
