//! A server's verdict on some bytes: the statuses of its responses, and the fate of the connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::common::{GUARD, Response};
use super::table::Case;

/// Address of a server.
pub enum Listener {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Bytes received until the server closed.
#[derive(Default)]
pub struct Answers {
    pub whole: Vec<Response>,
    /// The response has no head: the request was taken for HTTP/0.9.
    pub is_headless: bool,
    /// End of each response.
    pub ends: Vec<usize>,
}

impl Listener {
    /// Sends bytes on a new connection, followed by a half-close. Returns all that the server
    /// sends.
    ///
    /// The server may refuse before all is sent, so that the rest cannot be sent.
    #[track_caller]
    pub fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        // What follows is the same for both kinds of socket.
        let stream = match self {
            Self::Tcp(address) => TcpStream::connect(address).map(|it| OwnedFd::from(it).into()),
            Self::Unix(path) => UnixStream::connect(path),
        };
        let mut stream: UnixStream = stream.expect("connecting");
        stream.set_read_timeout(Some(GUARD)).expect("a time-out of reads");
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut received = Vec::new();
        match stream.read_to_end(&mut received) {
            Ok(_) => {}
            // It closed with unread bytes.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("no end after {}: {error}", received.escape_ascii()),
        }
        received
    }

    /// Returns the verdict in the notation of the tables.
    ///
    /// The case is sent alone, for its responses. It is sent again followed by a probe: if the
    /// probe is answered as a request of its own, the server has finished the case. Otherwise, if
    /// it did not close either, it waits for more of the case.
    #[track_caller]
    pub fn verdict(&self, case: &Case, number: usize) -> String {
        let alone = Answers::parse(&self.ask(&case.bytes(&format!("a{number:05}"))));
        let probe = format!("probe{number}");
        let again = [case.bytes(&format!("b{number:05}")), probe_bytes(&probe)].concat();
        let with_probe = Answers::parse(&self.ask(&again));
        let mut words = alone.statuses();
        let is_switched = alone.whole.last().is_some_and(|answer| answer.status == 101);
        let closes = alone.is_headless || alone.whole.last().is_some_and(Response::says_close);
        let has_own_answer =
            with_probe.end_with(&probe) && with_probe.statuses().len() == words.len() + 1;
        if is_switched {
            // Frames follow.
        } else if closes {
            assert_eq!(with_probe.statuses(), words, "{} with a probe after it", case.name);
            words.extend(alone.is_headless.then(|| "headless".to_owned()));
            words.push("close".to_owned());
        } else if !has_own_answer {
            words.push("waits".to_owned());
        }
        words.join(" ")
    }
}

/// A request that both servers answer with its name, and close.
pub fn probe_bytes(name: &str) -> Vec<u8> {
    format!("GET /health?callback={name} HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")
        .into_bytes()
}

impl Answers {
    /// Splits the bytes from a server into responses, as far as they are complete.
    #[track_caller]
    pub fn parse(mut bytes: &[u8]) -> Self {
        let mut all = Self::default();
        let all_bytes = bytes.len();
        while !bytes.is_empty() {
            if !bytes.starts_with(b"HTTP/1.") {
                all.is_headless = true;
                break;
            }
            let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { break };
            let (head, rest) = bytes.split_at(end + 4);
            let mut answer = Response::parse_head(head);
            let length = answer.header("content-length");
            let length = length.map_or(0, |length| length.parse().expect("a length"));
            // The response to HEAD states a length, and is followed by nothing or the next
            // response.
            let has_body = !rest.is_empty() && !rest.starts_with(b"HTTP/1.");
            let length = if has_body { length } else { 0 };
            if length > rest.len() {
                break;
            }
            answer.body = rest[..length].to_vec();
            bytes = &rest[length..];
            let is_switched = answer.status == 101;
            all.whole.push(answer);
            all.ends.push(all_bytes - bytes.len());
            if is_switched {
                break;
            }
        }
        all
    }

    fn statuses(&self) -> Vec<String> {
        self.whole.iter().map(|answer| answer.status.to_string()).collect()
    }

    /// Returns whether the last response is that to the probe of this name.
    pub fn end_with(&self, probe: &str) -> bool {
        let body = format!("/**/{probe}({{\"status\":\"ok\"}});");
        self.whole.last().is_some_and(|it| it.status == 200 && it.body == body.as_bytes())
    }
}
