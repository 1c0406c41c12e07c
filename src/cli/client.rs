//! A small client of HTTP/1.1 that blocks: one request at a time, over a connection that is kept while it can be.

use std::time::{Duration, Instant};

use super::error::ClientError;
use super::http::{Framing, Head, Request, Response};
use super::server_url::ServerUrl;
use super::socket::{ReadResult, Socket};
use super::tls::Verify;

/// How long a connection may take to come about.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// More is no head of anybody's.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// More is no answer of Speak's, whose operator would have had to set `--max-reply` to it.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Whose end ends the waiting for a server too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchOutput {
    Nothing,
    /// That of whoever reads our standard output.
    Output,
}

pub(super) struct Client {
    pub server: ServerUrl,
    trust: Verify,
    pub watch: WatchOutput,
    stream: Option<Socket>,
    received: Vec<u8>,
    framing: Framing,
    /// The connection serves for another request once this answer is through.
    keep_alive: bool,
}

impl Client {
    pub fn new(server: ServerUrl, trust: Verify) -> Self {
        Self {
            server,
            trust,
            watch: WatchOutput::Nothing,
            stream: None,
            received: Vec::new(),
            framing: Framing::Done,
            keep_alive: false,
        }
    }

    /// Asks, and waits for the whole answer, for so long at most from the moment when the connection is there.
    pub fn call(&mut self, ask: &Request, within: Duration) -> Result<Response, ClientError> {
        let answer = self.exchange(ask, within);
        if answer.is_err() {
            self.close();
        }
        answer
    }

    fn exchange(&mut self, ask: &Request, within: Duration) -> Result<Response, ClientError> {
        self.send(ask, within)?;
        let until = Instant::now() + within;
        let head = self.head(ask.method, until)?;
        let mut body = Vec::new();
        while let Some(piece) = self.piece(until)? {
            body.extend_from_slice(&piece);
            if body.len() > BODY_BYTES_MAX {
                return Err(ClientError::TooLarge);
            }
        }
        Ok(Response { head, body })
    }

    /// Sends a request, over the connection before if that is still good.
    pub fn send(&mut self, ask: &Request, within: Duration) -> Result<(), ClientError> {
        let is_fresh = self.framing == Framing::Done && self.keep_alive && self.received.is_empty();
        if !is_fresh || self.stream.as_ref().is_none_or(Socket::is_stale) {
            self.close();
            self.stream =
                Some(Socket::connect(&self.server, self.trust, Instant::now() + CONNECT_TIME)?);
        }
        let Some(stream) = &self.stream else { return Err(ClientError::ClosedBeforeResponse) };
        match stream.send(&ask.bytes(&self.server), Instant::now() + within) {
            // Who refuses a request may close before it has all of it; the answer tells.
            Ok(()) | Err(ClientError::ClosedBeforeResponse) => Ok(()),
            Err(fault) => {
                self.close();
                Err(fault)
            }
        }
    }

    /// Waits for the head of the answer to what was sent.
    pub fn head(&mut self, method: &str, until: Instant) -> Result<Head, ClientError> {
        loop {
            while let Some(length) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                let bytes: Vec<u8> = self.received.drain(..length + 4).collect();
                let head = Head::parse(&bytes)?;
                // A head that only says to go on is none.
                if (100..200).contains(&head.status) && head.status != 101 {
                    continue;
                }
                self.framing = head.framing(method)?;
                let stays = if head.minor == 0 {
                    head.list_contains("connection", "keep-alive")
                } else {
                    !head.list_contains("connection", "close")
                };
                self.keep_alive = stays && self.framing != Framing::ToEnd;
                return Ok(head);
            }
            if self.received.len() > HEAD_BYTES_MAX {
                return Err(ClientError::NotHttp);
            }
            if self.fill(until)? == ReadResult::End {
                let fault = if self.received.is_empty() {
                    ClientError::ClosedBeforeResponse
                } else {
                    ClientError::NotHttp
                };
                let tls = self.stream.as_mut().and_then(|stream| stream.tls.as_mut());
                let fault = match tls {
                    Some(tls) if fault == ClientError::ClosedBeforeResponse => tls.take_error(),
                    _ => fault,
                };
                self.close();
                return Err(fault);
            }
        }
    }

    /// Waits for some more of a body. None at its end.
    pub fn piece(&mut self, until: Instant) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            match self.framing {
                Framing::Done | Framing::Length(0) => {
                    self.framing = Framing::Done;
                    return Ok(None);
                }
                Framing::Length(left) if !self.received.is_empty() => {
                    let piece = self.take(left);
                    self.framing = Framing::Length(left - piece.len());
                    return Ok(Some(piece));
                }
                Framing::ToEnd if !self.received.is_empty() => {
                    return Ok(Some(self.take(usize::MAX)));
                }
                Framing::Chunk(left) if !self.received.is_empty() => {
                    let piece = self.take(left);
                    let left = left - piece.len();
                    self.framing = if left == 0 { Framing::ChunkEnd } else { Framing::Chunk(left) };
                    return Ok(Some(piece));
                }
                Framing::ChunkSize | Framing::ChunkEnd | Framing::Trailers => {
                    if let Some(line) = self.line() {
                        self.framing = self.framing.after_line(&line)?;
                        continue;
                    }
                    if self.received.len() > HEAD_BYTES_MAX {
                        return Err(ClientError::NotHttp);
                    }
                }
                Framing::Length(_) | Framing::ToEnd | Framing::Chunk(_) => {}
            }
            if self.fill(until)? == ReadResult::End {
                let is_whole = self.framing == Framing::ToEnd;
                self.close();
                return if is_whole { Ok(None) } else { Err(ClientError::ClosedMidResponse) };
            }
        }
    }

    /// Waits for bytes behind a head that changed the protocol.
    pub fn raw(&mut self, until: Instant) -> Result<Vec<u8>, ClientError> {
        if self.received.is_empty() && self.fill(until)? == ReadResult::End {
            return Err(ClientError::ClosedMidResponse);
        }
        Ok(std::mem::take(&mut self.received))
    }

    /// Gives back what was too much of that.
    pub fn put_back(&mut self, bytes: Vec<u8>) {
        self.received = bytes;
    }

    /// Sends bytes of another protocol.
    pub fn send_raw(&self, bytes: &[u8], until: Instant) -> Result<(), ClientError> {
        self.stream
            .as_ref()
            .map_or(Err(ClientError::ClosedBeforeResponse), |stream| stream.send(bytes, until))
    }

    /// Closes the connection, whatever is still to come on it.
    pub fn close(&mut self) {
        self.stream = None;
        self.received.clear();
        self.framing = Framing::Done;
        self.keep_alive = false;
    }

    /// Whether the connection is still there and good for another request.
    pub fn is_reusable(&self) -> bool {
        self.keep_alive && self.stream.as_ref().is_some_and(|stream| !stream.is_stale())
    }

    /// The version of TLS in use.
    pub fn tls_version(&mut self) -> Option<String> {
        self.stream.as_mut()?.tls.as_mut()?.version()
    }

    fn fill(&mut self, until: Instant) -> Result<ReadResult, ClientError> {
        let Some(stream) = &self.stream else { return Ok(ReadResult::End) };
        let mut buffer = [0; 16 * 1024];
        let output = std::io::stdout();
        let watched =
            (self.watch == WatchOutput::Output).then(|| std::os::fd::AsFd::as_fd(&output));
        let came = stream.read(&mut buffer, until, watched)?;
        if let ReadResult::Bytes(count) = came {
            self.received.extend_from_slice(&buffer[..count]);
        }
        Ok(came)
    }

    fn take(&mut self, most: usize) -> Vec<u8> {
        let rest = self.received.split_off(most.min(self.received.len()));
        std::mem::replace(&mut self.received, rest)
    }

    /// A whole line, without its end.
    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.received.iter().position(|byte| *byte == b'\n')?;
        let mut line = self.take(end + 1);
        line.truncate(line.trim_ascii_end().len());
        Some(line)
    }
}
