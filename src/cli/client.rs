//! A small blocking client for HTTP/1.1. It makes one request at a time, and reuses its connection
//! if possible.

use std::time::{Duration, Instant};

use super::error::ClientError;
use super::http::{Framing, Head, Request, Response};
use super::server_url::ServerUrl;
use super::socket::{ReadResult, Socket};
use super::tls::Verify;

/// Time for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest head, and longest line of chunked coding. A longer one is not HTTP.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Longest body. Speak sends a longer one only if its `--max-reply` is that large.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

pub(super) struct Client {
    pub server: ServerUrl,
    verify: Verify,
    /// Stop waiting for the server when standard output is closed.
    pub watches_output: bool,
    socket: Option<Socket>,
    /// Bytes that have arrived and were not returned yet.
    received: Vec<u8>,
    /// Framing of the rest of the present response.
    framing: Framing,
    /// The connection can be reused after the present response.
    keep_alive: bool,
}

impl Client {
    pub fn new(server: ServerUrl, verify: Verify) -> Self {
        Self {
            server,
            verify,
            watches_output: false,
            socket: None,
            received: Vec::new(),
            framing: Framing::Done,
            keep_alive: false,
        }
    }

    /// Sends a request and waits for the whole response. The time `within` begins when the client
    /// is connected.
    pub fn call(&mut self, request: &Request, within: Duration) -> Result<Response, ClientError> {
        let response = self.exchange(request, within);
        if response.is_err() {
            self.close();
        }
        response
    }

    fn exchange(&mut self, request: &Request, within: Duration) -> Result<Response, ClientError> {
        self.send(request, within)?;
        let until = Instant::now() + within;
        let head = self.read_head(request.method, until)?;
        let mut body = Vec::new();
        while let Some(chunk) = self.next_chunk(until)? {
            body.extend_from_slice(&chunk);
            if body.len() > BODY_BYTES_MAX {
                return Err(ClientError::TooLarge);
            }
        }
        Ok(Response { head, body })
    }

    /// Sends a request. Reuses the connection if possible, and connects otherwise.
    pub fn send(&mut self, request: &Request, within: Duration) -> Result<(), ClientError> {
        let is_fresh = self.framing == Framing::Done && self.keep_alive && self.received.is_empty();
        if !is_fresh || self.socket.as_ref().is_none_or(Socket::is_stale) {
            self.close();
            self.socket =
                Some(Socket::connect(&self.server, self.verify, Instant::now() + CONNECT_TIMEOUT)?);
        }
        let Some(socket) = &self.socket else { return Err(ClientError::ClosedBeforeResponse) };
        match socket.send(&request.bytes(&self.server), Instant::now() + within) {
            // A server that rejects a request may close early. Its response can still be read.
            Ok(()) | Err(ClientError::ClosedBeforeResponse) => Ok(()),
            Err(error) => {
                self.close();
                Err(error)
            }
        }
    }

    /// Waits for the head of the response to the request that was sent.
    pub fn read_head(&mut self, method: &str, until: Instant) -> Result<Head, ClientError> {
        loop {
            while let Some(length) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                let bytes: Vec<u8> = self.received.drain(..length + 4).collect();
                let head = Head::parse(&bytes)?;
                // An interim response, such as 100, precedes the response.
                if (100..200).contains(&head.status) && head.status != 101 {
                    continue;
                }
                self.framing = head.framing(method)?;
                self.keep_alive = head.keeps_alive() && self.framing != Framing::ToEnd;
                return Ok(head);
            }
            if self.received.len() > HEAD_BYTES_MAX {
                return Err(ClientError::NotHttp);
            }
            if self.fill(until)? == ReadResult::End {
                let error = self.end_error();
                self.close();
                return Err(error);
            }
        }
    }

    /// Returns the error for a connection that ended before the head of a response was complete.
    fn end_error(&mut self) -> ClientError {
        if !self.received.is_empty() {
            return ClientError::NotHttp;
        }
        match self.socket.as_mut().and_then(|socket| socket.tls.as_mut()) {
            Some(tls) => tls.take_error(),
            None => ClientError::ClosedBeforeResponse,
        }
    }

    /// Waits for the next bytes of the body. Returns None at the end of the body.
    pub fn next_chunk(&mut self, until: Instant) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            match self.framing {
                Framing::Done | Framing::Length(0) => {
                    self.framing = Framing::Done;
                    return Ok(None);
                }
                Framing::Length(left) if !self.received.is_empty() => {
                    let chunk = self.take_bytes(left);
                    self.framing = Framing::Length(left - chunk.len());
                    return Ok(Some(chunk));
                }
                Framing::ToEnd if !self.received.is_empty() => {
                    return Ok(Some(self.take_bytes(usize::MAX)));
                }
                Framing::Chunk(left) if !self.received.is_empty() => {
                    let chunk = self.take_bytes(left);
                    let left = left - chunk.len();
                    self.framing = if left == 0 { Framing::ChunkEnd } else { Framing::Chunk(left) };
                    return Ok(Some(chunk));
                }
                Framing::ChunkSize | Framing::ChunkEnd | Framing::Trailers => {
                    if let Some(line) = self.take_line() {
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

    /// Waits for bytes after a head that changed the protocol.
    pub fn read_raw(&mut self, until: Instant) -> Result<Vec<u8>, ClientError> {
        if self.received.is_empty() && self.fill(until)? == ReadResult::End {
            return Err(ClientError::ClosedMidResponse);
        }
        Ok(std::mem::take(&mut self.received))
    }

    /// Puts back unused bytes of [`Client::read_raw`].
    pub fn unread(&mut self, bytes: Vec<u8>) {
        self.received = bytes;
    }

    /// Sends bytes of another protocol.
    pub fn send_raw(&self, bytes: &[u8], until: Instant) -> Result<(), ClientError> {
        self.socket
            .as_ref()
            .map_or(Err(ClientError::ClosedBeforeResponse), |socket| socket.send(bytes, until))
    }

    /// Closes the connection, and drops the rest of a response.
    pub fn close(&mut self) {
        self.socket = None;
        self.received.clear();
        self.framing = Framing::Done;
        self.keep_alive = false;
    }

    /// Returns whether the connection is open and can be reused.
    pub fn is_reusable(&self) -> bool {
        self.keep_alive && self.socket.as_ref().is_some_and(|socket| !socket.is_stale())
    }

    /// Returns the version of TLS in use. None without TLS.
    pub fn tls_version(&mut self) -> Option<String> {
        self.socket.as_mut()?.tls.as_mut()?.version()
    }

    /// Waits for input and adds it to `received`.
    fn fill(&mut self, until: Instant) -> Result<ReadResult, ClientError> {
        let Some(socket) = &self.socket else { return Ok(ReadResult::End) };
        let mut buffer = [0; 16 * 1024];
        let output = std::io::stdout();
        let watched = self.watches_output.then(|| std::os::fd::AsFd::as_fd(&output));
        let result = socket.read(&mut buffer, until, watched)?;
        if let ReadResult::Bytes(count) = result {
            self.received.extend_from_slice(&buffer[..count]);
        }
        Ok(result)
    }

    /// Removes up to `most` bytes from `received`.
    fn take_bytes(&mut self, most: usize) -> Vec<u8> {
        let rest = self.received.split_off(most.min(self.received.len()));
        std::mem::replace(&mut self.received, rest)
    }

    /// Removes a line from `received`, and returns it without its line break. Returns None if no
    /// line is complete.
    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = self.received.iter().position(|byte| *byte == b'\n')?;
        let mut line = self.take_bytes(end + 1);
        line.truncate(line.trim_ascii_end().len());
        Some(line)
    }
}
