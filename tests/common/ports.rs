//! Ports that no other test takes meanwhile.
//!
//! A port that was free a moment ago is one of those that the kernel gives next.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process;
use std::sync::atomic::{AtomicU8, Ordering};

/// Returns a free address that no other test uses: each has its own IP address in 127.64.0.0/10.
pub fn free_address() -> SocketAddr {
    static COUNT: AtomicU8 = AtomicU8::new(0);
    let [_, _, high, low] = process::id().to_be_bytes();
    let ip = [127, 64 | high & 63, low, COUNT.fetch_add(1, Ordering::Relaxed)];
    let listener = TcpListener::bind(SocketAddr::from((ip, 0))).expect("a free port");
    listener.local_addr().expect("its address")
}

/// A port of 127.0.0.1 on which nothing listens as long as this is alive: a connection uses it.
pub struct ClosedPort {
    client: TcpStream,
    _server: TcpStream,
}

impl ClosedPort {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client =
            TcpStream::connect(listener.local_addr().expect("its address")).expect("a client");
        let (server, _) = listener.accept().expect("the same client");
        Self { client, _server: server }
    }

    pub fn address(&self) -> SocketAddr {
        self.client.local_addr().expect("its address")
    }
}
