//! TCP connections to a host.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::error::ClientError;
use super::server_url::Authority;

/// A connection to the first address of `host` that answers.
pub(super) fn connect_tcp(host: &Authority, until: Instant) -> Result<TcpStream, ClientError> {
    let fault = |error: io::Error| ClientError::Connect(tcp(&error));
    let addresses: Vec<_> =
        (host.name.as_str(), host.port).to_socket_addrs().map_err(fault)?.collect();
    let mut last = ClientError::Connect("the name has no address".to_owned());
    for (tried, address) in addresses.iter().enumerate() {
        // No address may use up the time of the others.
        let left =
            until.saturating_duration_since(Instant::now()) / (addresses.len() - tried) as u32;
        match TcpStream::connect_timeout(address, left.max(Duration::from_millis(1))) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = fault(error),
        }
    }
    Err(last)
}

/// An error without the number that Rust adds.
fn tcp(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
