//! One TCP connection, with the bytes that came and were not asked for yet.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, sockopt};

use super::{GUARD, Params, Response, secrets};

pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

/// What a read of the socket brought.
enum Came {
    Bytes,
    End,
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connecting to the server");
        stream.set_nodelay(true).expect("no delay on a new socket");
        stream.set_write_timeout(Some(GUARD)).expect("a time-out of writes");
        Self { stream, received: Vec::new() }
    }

    /// A client with little room for what it does not read.
    #[track_caller]
    pub fn connect_narrow(address: SocketAddr) -> Self {
        let socket =
            rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        sockopt::set_socket_recv_buffer_size(&socket, 4096).expect("a small buffer");
        rustix::net::connect(&socket, &address).expect("connecting to the server");
        let stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(GUARD)).expect("a time-out of writes");
        Self { stream, received: Vec::new() }
    }

    /// A client that comes from this address, which has to be one of the machine's.
    #[track_caller]
    pub fn connect_from(from: [u8; 4], address: SocketAddr) -> Self {
        let socket =
            rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        rustix::net::bind(&socket, &SocketAddr::from((from, 0))).expect("an address of ours");
        rustix::net::connect(&socket, &address).expect("connecting to the server");
        let stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(GUARD)).expect("a time-out of writes");
        Self { stream, received: Vec::new() }
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        secrets::keep_request(bytes.as_ref());
        self.stream.write_all(bytes.as_ref()).expect("sending a request");
    }

    /// Sends to a server that may have closed already.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        secrets::keep_request(bytes.as_ref());
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    #[track_caller]
    pub fn send_get(&mut self, path: &str, params: &Params) {
        self.send(request("GET", &target(path, params), &[], None));
    }

    #[track_caller]
    pub fn get(&mut self, path: &str, params: &Params) -> Response {
        self.send_get(path, params);
        self.response()
    }

    #[track_caller]
    pub fn get_with(&mut self, path: &str, params: &Params, headers: &[(&str, &str)]) -> Response {
        self.send(request("GET", &target(path, params), headers, None));
        self.response()
    }

    /// Posts `body` with its type to a path with a query.
    #[track_caller]
    pub fn post(&mut self, target: &str, content_type: &str, body: impl AsRef<[u8]>) -> Response {
        let headers = [("Content-Type", content_type)];
        self.send(request("POST", target, &headers, Some(body.as_ref())));
        self.response()
    }

    /// Posts parameters as a form.
    #[track_caller]
    pub fn post_form(&mut self, target: &str, params: &Params) -> Response {
        self.post(target, "application/x-www-form-urlencoded", encoded(params))
    }

    /// Sends bytes and reads one answer.
    #[track_caller]
    pub fn call(&mut self, bytes: impl AsRef<[u8]>) -> Response {
        self.send(bytes);
        self.response()
    }

    /// Reads exactly one answer.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        let mut response = self.head();
        if response.status >= 200 && response.status != 204 {
            let length = response.header("content-length");
            let length = length.unwrap_or_else(|| panic!("no Content-Length: {response:?}"));
            let length = length.parse().expect("a length");
            self.fill("a body", |received| received.len() >= length);
            response.body = self.received.drain(..length).collect();
            secrets::keep_json(&response.body);
        }
        response
    }

    /// The answer that something brings about.
    #[track_caller]
    pub fn response_after<T>(&mut self, cause: impl FnOnce() -> T) -> Response {
        cause();
        self.response()
    }

    /// Reads a head alone: the answer to HEAD, or the beginning of another.
    #[track_caller]
    pub fn head(&mut self) -> Response {
        let end = |received: &[u8]| received.windows(4).position(|four| four == b"\r\n\r\n");
        self.fill("a head", |received| end(received).is_some());
        let length = end(&self.received).expect("its end has come") + 4;
        let head: Vec<u8> = self.received.drain(..length).collect();
        Response::parse_head(&head)
    }

    /// Reads exactly so many bytes. None if the server closes first.
    #[track_caller]
    pub fn take_maybe(&mut self, length: usize) -> Option<Vec<u8>> {
        let deadline = Instant::now() + GUARD;
        while self.received.len() < length {
            match self.receive(deadline) {
                Some(Came::Bytes) => {}
                Some(Came::End) => return None,
                None => panic!("waited in vain for {length} bytes: {}", self.so_far()),
            }
        }
        Some(self.split(length))
    }

    /// Reads up to the first of these ends; the end is not among what it returns. None if the server closes first.
    #[track_caller]
    pub fn take_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let deadline = Instant::now() + GUARD;
        let mut seen = 0;
        loop {
            let found = memchr::memmem::find(&self.received[seen..], end);
            if let Some(place) = found.map(|place| seen + place) {
                let mut taken = self.split(place + end.len());
                taken.truncate(place);
                return Some(taken);
            }
            seen = (self.received.len() + 1).saturating_sub(end.len());
            match self.receive(deadline) {
                Some(Came::Bytes) => {}
                Some(Came::End) => return None,
                None => panic!("waited in vain for {end:?} behind {}", self.so_far()),
            }
        }
    }

    /// Takes what came first. Whole blocks are moved: byte by byte is slow in a build for tests.
    fn split(&mut self, length: usize) -> Vec<u8> {
        let rest = self.received.split_off(length);
        std::mem::replace(&mut self.received, rest)
    }

    #[track_caller]
    fn fill(&mut self, what: &str, enough: impl Fn(&[u8]) -> bool) {
        let deadline = Instant::now() + GUARD;
        while !enough(&self.received) {
            match self.receive(deadline) {
                Some(Came::Bytes) => {}
                Some(Came::End) => panic!("closed before {what} came: {}", self.so_far()),
                None => panic!("waited in vain for {what}: {}", self.so_far()),
            }
        }
    }

    /// Reads once; a reset is an end. None when the deadline has passed.
    fn receive(&mut self, deadline: Instant) -> Option<Came> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Some(left.max(Duration::from_millis(1)));
            self.stream.set_read_timeout(left).expect("a time-out of reads");
            match self.stream.read(&mut buffer) {
                Ok(0) => return Some(Came::End),
                Ok(length) => {
                    self.received.extend_from_slice(&buffer[..length]);
                    return Some(Came::Bytes);
                }
                Err(error) => match error.kind() {
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return Some(Came::End),
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        if Instant::now() >= deadline {
                            return None;
                        }
                    }
                    _ => panic!("reading from the server: {error}"),
                },
            }
        }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }

    /// Claims that the server closes and has nothing more to say.
    #[track_caller]
    pub fn is_closed(&mut self) {
        let deadline = Instant::now() + GUARD;
        assert_eq!(self.so_far(), "", "more than was asked for");
        match self.receive(deadline) {
            Some(Came::End) => {}
            Some(Came::Bytes) => panic!("not closed, but sent {}", self.so_far()),
            None => panic!("the server does not close"),
        }
    }

    /// Whether something has come that was not read yet, without waiting for it.
    #[track_caller]
    pub fn has_something(&self) -> bool {
        let mut byte = [0];
        self.stream.set_nonblocking(true).expect("a socket that does not block");
        let peeked = self.stream.peek(&mut byte);
        self.stream.set_nonblocking(false).expect("a socket that blocks");
        !self.received.is_empty() || !matches!(peeked, Err(e) if e.kind() == ErrorKind::WouldBlock)
    }

    /// Says that nothing more will be sent, and goes on listening.
    #[track_caller]
    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shutting down a half");
    }

    /// Closes with a reset, as a crashed or cut-off client does.
    #[track_caller]
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))
            .expect("setting SO_LINGER");
    }

    /// A second handle on the socket, for a thread that sends meanwhile.
    #[track_caller]
    pub fn second_handle(&self) -> TcpStream {
        self.stream.try_clone().expect("a second handle")
    }
}

/// The bytes of one request; a body brings its Content-Length along.
pub fn request(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> Vec<u8> {
    let mut lines = vec![format!("{method} {target} HTTP/1.1"), "Host: speak.test".to_owned()];
    lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
    lines.extend(body.map(|body| format!("Content-Length: {}", body.len())));
    let head = lines.join("\r\n") + "\r\n\r\n";
    [head.as_bytes(), body.unwrap_or_default()].concat()
}

/// A path with its parameters as a query.
pub fn target(path: &str, params: &Params) -> String {
    if params.is_empty() { path.to_owned() } else { format!("{path}?{}", encoded(params)) }
}

fn encoded(params: &Params) -> String {
    let pairs = params.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Percent-encodes all but what never needs it.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("a String takes everything");
        }
    }
    escaped
}
