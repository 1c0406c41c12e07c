//! Unix sockets of a server.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::wait::GUARD;

/// Returns the response at a Unix socket for this path.
#[track_caller]
pub fn get_at(socket: &Path, path: &str) -> String {
    ask_at(socket, path, "")
}

/// Returns the response at a Unix socket for this path and these lines of the head.
#[track_caller]
pub fn ask_at(socket: &Path, path: &str, fields: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("a socket that listens");
    stream.set_read_timeout(Some(GUARD)).expect("a timeout of reads");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: h\r\n{fields}Connection: close\r\n\r\n")
        .expect("sending a request");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response to its end");
    response
}
