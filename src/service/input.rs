//! The receive path of one client: from its socket to the requests or frames in its bytes.

use std::io;
use std::mem;

use super::client::{AfterResponse, Input, ReadBuffer, State};
use super::client_io::ClientIo;
use super::http::Pause;
use super::limits::ClientLimits;
use super::listener::Listener;
use super::service::Service;
use super::socket::Socket;
use super::write_queue::Flush;
use crate::http::Progress;
use crate::hub::Key;

impl<L: Listener> Service<L> {
    /// Reads and handles input of a client, if its state allows it.
    pub(super) fn process_input(&mut self, key: Key) {
        let Some(client) = self.io.clients.get_mut(key) else { return };
        client.is_scheduled = false;
        match client.state() {
            _ if client.is_flush_cut() => self.continue_flush(key),
            State::Reading if client.is_handshaking => self.advance_handshake(key),
            // Another process has the hub: it will handle the requests.
            State::Reading | State::Streaming(_) if self.phase.is_draining() => {}
            // Responses would queue after the deferred send, as if the peer were slow to read.
            State::Streaming(_) if client.is_deferred => self.io.clients.schedule(key),
            State::Reading | State::Streaming(_) => self.process_requests(key),
            State::Lingering => self.discard_input(key),
            State::Committing | State::LongPolling { .. } | State::Writing(_) | State::Closing => {}
        }
    }

    /// Continues a flush that was cut, and handles input if there is nothing more to send.
    #[cold]
    fn continue_flush(&mut self, key: Key) {
        self.flush_write_queue(key);
        if !self.io.clients.expect_mut(key).is_flush_cut() {
            self.process_input(key);
        }
    }

    /// Advances the handshake of a client, unless it has to wait for a turn with budget for
    /// handshakes. The plaintext that may follow in the same read is stored as the begin of a
    /// request: in an upgrade, the next process handles it.
    #[cold]
    fn advance_handshake(&mut self, key: Key) {
        let ClientIo { clients, limits, now, read_buf, .. } = &mut self.io;
        if !clients.budget.has_handshake_budget() {
            return clients.schedule(key);
        }
        clients.budget.begin_client();
        let client = clients.expect_mut(key);
        if !client.is_readable {
            return;
        }
        let result = client.read(read_buf);
        let steps = client.socket.take_steps();
        clients.budget.charge_handshake(steps);
        let client = clients.expect_mut(key);
        let input = match result {
            Ok(input) => input,
            Err(error) => return self.fail_socket(key, &error),
        };
        if let Input::Bytes(length) = input {
            let bytes = read_buf[..length].to_vec();
            client.input = Some(Box::new(ReadBuffer { bytes, progress: Progress::default() }));
        }
        if client.socket.is_handshaking() {
            if client.is_readable {
                clients.schedule(key);
            } else if client.is_read_closed {
                self.close(key);
            }
            return;
        }
        let ClientLimits { keep_alive_ms, request_timeout_ms, .. } = *limits;
        let ms = if client.input.is_some() { request_timeout_ms } else { keep_alive_ms };
        clients.set_deadline(key, now.mono.after(ms));
        clients.end_handshake(key);
        self.process_input(key);
    }

    /// Ends a client after an error of its socket. If the peer was told of the error, the client
    /// lingers: a close with unread bytes sends a reset, which may overtake that.
    #[cold]
    fn fail_socket(&mut self, key: Key, error: &io::Error) {
        let client = self.io.clients.expect_mut(key);
        if error.kind() != io::ErrorKind::InvalidData || !matches!(client.state(), State::Reading) {
            return self.close(key);
        }
        client.input = None;
        self.io.clients.end_handshake(key);
        self.io.finish_response(key, AfterResponse::Linger, Flush::Complete);
    }

    /// Reads and discards input of a lingering client.
    fn discard_input(&mut self, key: Key) {
        let client = self.io.clients.expect_mut(key);
        let result = if client.is_readable {
            client.read(&mut self.io.read_buf)
        } else {
            Ok(Input::Nothing)
        };
        // What it cost to open is not for the next client to pay.
        if client.socket.is_tls() {
            let steps = client.socket.take_steps();
            self.io.clients.budget.charge_socket(steps);
        }
        let client = self.io.clients.expect_mut(key);
        let is_over = client.is_read_closed && !client.is_readable;
        match result {
            Ok(input) if !is_over => {
                if let Input::Bytes(length) = input {
                    self.io.clients.budget.charge_request(length);
                }
                if self.io.clients.expect_mut(key).is_readable {
                    self.io.clients.schedule(key);
                }
            }
            _ => self.close(key),
        }
    }

    /// Handles requests or frames of a client: first those in its buffer, then those of one read.
    /// Sends the responses.
    fn process_requests(&mut self, key: Key) {
        self.io.clients.budget.begin_client();
        let mut client = self.io.clients.expect_mut(key);
        if matches!(client.state(), State::Streaming(_)) {
            if !self.may_handle_frames(key) {
                return;
            }
            client = self.io.clients.expect_mut(key);
        }
        let mut input = client.input.take();
        let was_incomplete = input.is_some();
        let (mut handled, mut pause) = match &mut input {
            Some(input) => self.process_buffered(key, input),
            None => (0, Pause::NeedData),
        };
        if matches!(pause, Pause::NeedData) {
            let mut read_buf = mem::take(&mut self.io.read_buf);
            let result = self.read_requests(key, &mut read_buf, &mut input);
            self.io.read_buf = read_buf;
            let (handled_now, pause_now) = match result {
                Ok(handled) => handled,
                Err(error) => {
                    self.io.response.clear();
                    self.io.api.take_insertions();
                    return self.fail_socket(key, &error);
                }
            };
            handled += handled_now;
            pause = pause_now;
        }
        let input = input.filter(|input| !input.bytes.is_empty());
        let is_incomplete = input.is_some();
        let weight = self.io.clients.budget.client_weight();
        let client = self.io.clients.expect_mut(key);
        client.input = input;
        client.weight = weight.unwrap_or(client.weight);
        let has_read = matches!(client.state(), State::LongPolling { .. } | State::Streaming(_));
        let is_committing = matches!(client.state(), State::Committing);
        if !has_read && (handled > 0 || was_incomplete != is_incomplete) {
            let ClientLimits { keep_alive_ms, request_timeout_ms, .. } = self.io.limits;
            let ms = if is_incomplete { request_timeout_ms } else { keep_alive_ms };
            self.io.clients.set_deadline(key, self.io.now.mono.after(ms));
        }
        if is_committing && self.io.response.is_empty() {
            // A call waits for the log, and there is nothing to send before its response.
            return;
        }
        self.flush_responses(key, &pause);
    }

    /// If the socket may hold bytes, reads once and handles the requests that are complete; the
    /// rest is left in `input`. Returns the number of bytes handled.
    fn read_requests(
        &mut self,
        key: Key,
        read_buf: &mut [u8],
        input: &mut Option<Box<ReadBuffer>>,
    ) -> io::Result<(usize, Pause)> {
        let client = self.io.clients.expect_mut(key);
        if !client.is_readable {
            return Ok((0, Pause::NeedData));
        }
        let result = client.read(read_buf);
        let is_streaming = matches!(client.state(), State::Streaming(_));
        if client.socket.is_tls() {
            let steps = client.socket.take_steps();
            self.io.clients.budget.charge_socket(steps);
        }
        let Input::Bytes(length) = result? else {
            return Ok((0, Pause::NeedData));
        };
        if is_streaming {
            self.io.on_stream_input(key);
        }
        self.io.clients.budget.charge_read(length);
        let bytes = &mut read_buf[..length];
        if let Some(input) = input {
            input.bytes.extend_from_slice(bytes);
            return Ok(self.process_buffered(key, input));
        }
        // The usual case: complete requests, handled in the buffer that they were read into.
        let mut progress = Progress::default();
        let (handled, pause) = self.process_bytes(key, bytes, &mut progress);
        if handled < length {
            let mut rest = Box::new(ReadBuffer { bytes: bytes[handled..].to_vec(), progress });
            rest.consume(0);
            *input = Some(rest);
        }
        Ok((handled, pause))
    }

    fn process_buffered(&mut self, key: Key, input: &mut ReadBuffer) -> (usize, Pause) {
        let (handled, pause) = self.process_bytes(key, &mut input.bytes, &mut input.progress);
        input.consume(handled);
        (handled, pause)
    }

    fn process_bytes(
        &mut self,
        key: Key,
        bytes: &mut [u8],
        progress: &mut Progress,
    ) -> (usize, Pause) {
        match self.io.clients.expect_mut(key).state() {
            State::Streaming(_) => self.handle_frames(key, bytes),
            _ => self.handle_requests(key, bytes, progress),
        }
    }
}
