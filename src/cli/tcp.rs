//! TCP connections to a host.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::error::ClientError;
use super::server_url::Authority;

/// Connects to the first reachable address of `host`, before `until`.
pub(super) fn connect_tcp(host: &Authority, until: Instant) -> Result<TcpStream, ClientError> {
    let connect_error = |error: io::Error| ClientError::Connect(error_text(&error));
    let addresses: Vec<_> =
        (host.name.as_str(), host.port).to_socket_addrs().map_err(connect_error)?.collect();
    let mut last = ClientError::Connect("the name has no address".to_owned());
    for (tried, address) in addresses.iter().enumerate() {
        // The remaining addresses share the remaining time.
        let left =
            until.saturating_duration_since(Instant::now()) / (addresses.len() - tried) as u32;
        match TcpStream::connect_timeout(address, left.max(Duration::from_millis(1))) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = connect_error(error),
        }
    }
    Err(last)
}

/// Returns the text of an error without the number that Rust adds.
fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
