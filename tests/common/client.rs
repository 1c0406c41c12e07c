//! One TCP connection, with the bytes that came and were not asked for yet.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Stream};
use support::http::{Head, Params, form, request, target};

use super::response::{Response, framing_of};
use super::secrets;
use super::tls::config_for;
use super::wait::GUARD;

pub struct Client {
    stream: TcpStream,
    /// `None` for plain HTTP.
    tls: Option<Box<ClientConnection>>,
    received: Vec<u8>,
}

/// Outcome of a read of the socket.
enum Came {
    Bytes,
    End,
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connecting to the server");
        stream.set_nodelay(true).expect("no delay on a new socket");
        Self::over(stream)
    }

    /// Connects a client with little room for what it does not read.
    #[track_caller]
    pub fn connect_narrow(address: SocketAddr) -> Self {
        Self::over(narrow_stream([127, 0, 0, 1], address))
    }

    /// Connects from this address, which has to be one of the machine's.
    #[track_caller]
    pub fn connect_from(from: [u8; 4], address: SocketAddr) -> Self {
        Self::over(stream_from(from, None, address))
    }

    /// Connects with TLS to a server of this name. The handshake begins with the first bytes.
    #[track_caller]
    pub fn connect_tls(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Self {
        Self::connect(address).with_tls(config, name)
    }

    /// Begins to speak TLS.
    #[track_caller]
    pub fn with_tls(self, config: &Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let tls = ClientConnection::new(Arc::clone(config), name).expect("a configuration");
        Self { tls: Some(Box::new(tls)), ..self }
    }

    /// Completes the handshake.
    #[track_caller]
    pub fn shake_hands(&mut self) {
        let error = self.try_shake_hands().err();
        assert!(error.is_none(), "a handshake: {error:?}");
    }

    /// Completes the handshake, unless the server refuses it.
    pub fn try_shake_hands(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(GUARD)).expect("a timeout of reads");
        let tls = self.tls.as_mut().expect("a client with TLS");
        while tls.is_handshaking() {
            tls.complete_io(&mut self.stream)?;
        }
        Ok(())
    }

    pub fn tls(&mut self) -> &mut ClientConnection {
        self.tls.as_mut().expect("a client with TLS")
    }

    /// Says by TLS that nothing more is sent, and continues to read.
    #[track_caller]
    pub fn half_close_by_tls(&mut self) {
        let tls = self.tls.as_mut().expect("a client with TLS");
        tls.send_close_notify();
        while tls.wants_write() {
            tls.write_tls(&mut self.stream).expect("a record is sent");
        }
    }

    /// Gives up the connection for its socket.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_write_timeout(Some(GUARD)).expect("a timeout of writes");
        let config = stream.peer_addr().ok().and_then(config_for);
        let plain = Self { stream, tls: None, received: Vec::new() };
        match config {
            Some(config) => plain.with_tls(config, "127.0.0.1"),
            None => plain,
        }
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(self.try_send(bytes), "sending a request");
    }

    /// Sends to a server that may have closed already.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        secrets::keep_request(bytes.as_ref());
        match &mut self.tls {
            None => self.stream.write_all(bytes.as_ref()).is_ok(),
            Some(tls) => {
                Stream::new(&mut **tls, &mut self.stream).write_all(bytes.as_ref()).is_ok()
            }
        }
    }

    #[track_caller]
    pub fn send_get(&mut self, path: &str, params: &Params) {
        self.send(request("GET", &target(path, params), &[], None));
    }

    #[track_caller]
    pub fn get(&mut self, path: &str, params: &Params) -> Response {
        self.get_with(path, params, &[])
    }

    #[track_caller]
    pub fn get_with(&mut self, path: &str, params: &Params, headers: &[(&str, &str)]) -> Response {
        self.call(request("GET", &target(path, params), headers, None))
    }

    /// Posts `body` with its type to a path with a query.
    #[track_caller]
    pub fn post(&mut self, target: &str, content_type: &str, body: impl AsRef<[u8]>) -> Response {
        let headers = [("Content-Type", content_type)];
        self.call(request("POST", target, &headers, Some(body.as_ref())))
    }

    /// Posts parameters as a form.
    #[track_caller]
    pub fn post_form(&mut self, target: &str, params: &Params) -> Response {
        self.post(target, "application/x-www-form-urlencoded", form(params))
    }

    /// Sends bytes and reads one response.
    #[track_caller]
    pub fn call(&mut self, bytes: impl AsRef<[u8]>) -> Response {
        self.send(bytes);
        self.response()
    }

    /// Reads exactly one response.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        let head = self.whole_head();
        let framing = framing_of(&head);
        let mut response = Response::from_head(head);
        response.body = self.take("a body", |received| {
            let body = framing.take(received, false).expect("a body");
            body.map(|(body, length)| (body.into_owned(), length))
        });
        secrets::keep_json(&response.body);
        response
    }

    /// Reads the response that `cause` brings about.
    #[track_caller]
    pub fn response_after<T>(&mut self, cause: impl FnOnce() -> T) -> Response {
        cause();
        self.response()
    }

    /// Reads a head alone: the response to HEAD, or the beginning of another.
    #[track_caller]
    pub fn head(&mut self) -> Response {
        Response::from_head(self.whole_head())
    }

    #[track_caller]
    fn whole_head(&mut self) -> Head {
        self.take("a head", |received| Head::parse(received).expect("a head"))
    }

    /// Reads exactly so many bytes. `None` if the server closes first.
    #[track_caller]
    pub fn take_maybe(&mut self, length: usize) -> Option<Vec<u8>> {
        let what = format!("{length} bytes");
        self.take_or_end(&what, |received| received.get(..length).map(|it| (it.to_vec(), length)))
    }

    /// Reads up to the first of these ends, which is not returned. `None` if the server closes
    /// first.
    #[track_caller]
    pub fn take_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let mut seen = 0;
        self.take_or_end(&format!("{end:?}"), |received| {
            let found = memchr::memmem::find(&received[seen..], end).map(|at| seen + at);
            seen = (received.len() + 1).saturating_sub(end.len());
            found.map(|at| (received[..at].to_vec(), at + end.len()))
        })
    }

    #[track_caller]
    fn take<T>(&mut self, what: &str, parse: impl FnMut(&[u8]) -> Option<(T, usize)>) -> T {
        let taken = self.take_or_end(what, parse);
        taken.unwrap_or_else(|| panic!("closed before {what} came: {}", self.so_far()))
    }

    /// Reads until `parse` finds something, and takes as many bytes as it says.
    /// `None` if the server closes first.
    #[track_caller]
    pub fn take_or_end<T>(
        &mut self,
        what: &str,
        mut parse: impl FnMut(&[u8]) -> Option<(T, usize)>,
    ) -> Option<T> {
        let deadline = Instant::now() + GUARD;
        loop {
            if let Some((found, length)) = parse(&self.received) {
                // Whole blocks are moved: byte by byte is slow in a build for tests.
                self.received = self.received.split_off(length);
                return Some(found);
            }
            match self.receive(deadline) {
                Some(Came::Bytes) => {}
                Some(Came::End) => return None,
                None => panic!("waited in vain for {what}: {}", self.so_far()),
            }
        }
    }

    /// Reads once; a reset is an end. `None` when the deadline has passed.
    fn receive(&mut self, deadline: Instant) -> Option<Came> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Some(left.max(Duration::from_millis(1)));
            self.stream.set_read_timeout(left).expect("a timeout of reads");
            let result = match &mut self.tls {
                None => self.stream.read(&mut buffer),
                Some(tls) => Stream::new(&mut **tls, &mut self.stream).read(&mut buffer),
            };
            match result {
                Ok(0) => return Some(Came::End),
                Ok(length) => {
                    self.received.extend_from_slice(&buffer[..length]);
                    return Some(Came::Bytes);
                }
                Err(error) => match error.kind() {
                    // The last one: an end that TLS does not tell.
                    ErrorKind::ConnectionReset
                    | ErrorKind::BrokenPipe
                    | ErrorKind::UnexpectedEof => return Some(Came::End),
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut if Instant::now() < deadline => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return None,
                    _ => panic!("reading from the server: {error}"),
                },
            }
        }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }

    /// Claims that the server closes and sends nothing more.
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

    /// Claims that the server ends the connection with a `close_notify`.
    #[track_caller]
    pub fn is_closed_by_tls(&mut self) {
        self.stream.set_read_timeout(Some(GUARD)).expect("a timeout of reads");
        let tls = self.tls.as_mut().expect("a client with TLS");
        let end = Stream::new(&mut **tls, &mut self.stream).read(&mut [0]);
        assert_eq!(end.expect("an end that TLS tells"), 0);
    }

    /// Says whether something has come that was not read yet, without waiting for it.
    #[track_caller]
    pub fn has_something(&self) -> bool {
        let mut byte = [0];
        self.stream.set_nonblocking(true).expect("a socket that does not block");
        let peeked = self.stream.peek(&mut byte);
        self.stream.set_nonblocking(false).expect("a socket that blocks");
        !self.received.is_empty() || !matches!(peeked, Err(e) if e.kind() == ErrorKind::WouldBlock)
    }

    /// Shuts down sending, and continues to read.
    #[track_caller]
    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shutting down a half");
    }

    /// Closes with a reset, as a crashed or cut-off client does.
    #[track_caller]
    pub fn reset(self) {
        sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("setting SO_LINGER");
    }

    /// Sends pieces from another thread while `receive` runs.
    #[track_caller]
    pub fn send_meanwhile(
        &mut self,
        mut pieces: impl Iterator<Item = Vec<u8>> + Send,
        receive: impl FnOnce(&mut Self),
    ) {
        let mut stream = self.second_handle();
        thread::scope(|scope| {
            let sender = scope.spawn(move || pieces.all(|piece| stream.write_all(&piece).is_ok()));
            receive(self);
            assert!(sender.join().expect("no panic"), "sending meanwhile");
        });
    }

    /// Returns a second handle on the socket, for a thread that sends meanwhile.
    #[track_caller]
    pub fn second_handle(&self) -> TcpStream {
        self.stream.try_clone().expect("a second handle")
    }
}

/// Connects from an address of this machine, with little room for what is not read.
#[track_caller]
pub fn narrow_stream(from: [u8; 4], address: SocketAddr) -> TcpStream {
    stream_from(from, Some(4096), address)
}

/// Connects from an address of this machine, with a receive buffer of this size.
#[track_caller]
pub fn stream_from(from: [u8; 4], buffer: Option<usize>, address: SocketAddr) -> TcpStream {
    // A process that another test starts meanwhile must not inherit the socket.
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
    let socket = socket.expect("a socket");
    if let Some(bytes) = buffer {
        sockopt::set_socket_recv_buffer_size(&socket, bytes).expect("a buffer of this size");
    }
    rustix::net::bind(&socket, &SocketAddr::from((from, 0))).expect("an address of ours");
    rustix::net::connect(&socket, &address).expect("connecting to the server");
    TcpStream::from(socket)
}
