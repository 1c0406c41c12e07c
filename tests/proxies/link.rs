//! A link between clients and a proxy that can be cut: nothing passes any more, and neither end
//! learns that.
//!
//! The link joins two network namespaces. If the machine allows none, a relay takes its place,
//! which falls silent.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::common::{Client, Running, until};

/// Variable of a process that has a network of its own, in which it may do anything.
const HAS_NETWORK: &str = "TEST_HAS_NETWORK";

const NEAR: &str = "10.9.8.1";
const FAR: &str = "10.9.8.2";

/// Runs the test of this name in a process with a network of its own, and returns false. Returns
/// true in that process, or if the machine allows no such process: the caller is to do the test.
pub fn is_ready(test: &str) -> bool {
    if env::var_os(HAS_NETWORK).is_some() {
        return true;
    }
    // Only root may do without a namespace of users.
    let ways: [&[&str]; 2] = [&["--net"], &["--map-root-user", "--net"]];
    let unshare = |way: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(way).stdin(Stdio::null());
        command
    };
    let is_allowed = |way: &&&[&str]| {
        let output = unshare(way).arg("true").output().expect("unshare, from util-linux");
        output.status.success()
    };
    let Some(way) = ways.iter().find(is_allowed) else {
        println!("no network namespaces: a relay takes their place");
        return true;
    };
    let status = unshare(way)
        .arg(env::current_exe().expect("this program"))
        .args([test, "--exact", "--nocapture"])
        .env(HAS_NETWORK, "1")
        .status()
        .expect("this program");
    assert!(status.success(), "{test} in a network of its own: {status}");
    false
}

/// A link to this process.
pub enum Link {
    Namespace(Namespace),
    Relay(Arc<AtomicBool>),
}

impl Link {
    pub fn new() -> Self {
        if env::var_os(HAS_NETWORK).is_some() {
            Self::Namespace(Namespace::new())
        } else {
            Self::Relay(Arc::default())
        }
    }

    /// Returns a free address on this side.
    pub fn free_address(&self) -> SocketAddr {
        let near = match self {
            Self::Namespace(_) => NEAR,
            Self::Relay(_) => "127.0.0.1",
        };
        let ip: IpAddr = near.parse().expect("an address");
        TcpListener::bind((ip, 0)).and_then(|it| it.local_addr()).expect("a free port")
    }

    /// Connects a client on the other side.
    pub fn connect(&self, address: SocketAddr) -> Client {
        match self {
            Self::Namespace(namespace) => namespace.run(|| Client::connect(address)),
            Self::Relay(is_cut) => relay(address, is_cut),
        }
    }

    /// Cuts the link for good.
    pub fn cut(&self) {
        match self {
            Self::Namespace(namespace) => namespace.run(|| ip("link set far down")),
            Self::Relay(is_cut) => is_cut.store(true, Ordering::Relaxed),
        }
    }
}

/// A network namespace with the other side of the link.
pub struct Namespace {
    /// Process that holds the namespace.
    _holder: Running,
    file: File,
}

impl Namespace {
    fn new() -> Self {
        ip("link set lo up");
        let mut unshare = Command::new("unshare");
        let holder = Running::start(unshare.args(["--net", "sleep", "1h"]));
        let id = holder.0.id();
        let path = format!("/proc/{id}/ns/net");
        let own = fs::read_link("/proc/self/ns/net").expect("a namespace");
        until("there is a namespace", || fs::read_link(&path).expect("a namespace") != own);
        let namespace = Self { _holder: holder, file: File::open(&path).expect("a namespace") };
        ip(&format!("link add near type veth peer name far netns {id}"));
        ip(&format!("address add {NEAR}/24 dev near"));
        ip("link set near up");
        namespace.run(|| {
            ip(&format!("address add {FAR}/24 dev far"));
            ip("link set far up");
        });
        namespace
    }

    /// Runs `action` in the namespace. Its sockets stay there.
    fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let network = Some(LinkNameSpaceType::Network);
        let enter = || move_into_link_name_space(self.file.as_fd(), network);
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter().expect("the right to enter our own namespace");
                action()
            });
            thread.join().expect("no panic")
        })
    }
}

fn ip(arguments: &str) {
    let mut command = Command::new("ip");
    let status = command.args(arguments.split(' ')).status().expect("ip, from iproute2");
    assert!(status.success(), "ip {arguments}: {status}");
}

/// Connects a client by a relay that forwards nothing once `is_cut` is true, and does not close.
fn relay(address: SocketAddr, is_cut: &Arc<AtomicBool>) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let client = Client::connect(listener.local_addr().expect("its address"));
    let (far, _) = listener.accept().expect("the client");
    let near = TcpStream::connect(address).expect("the proxy");
    for (mut from, mut to) in [(&far, &near), (&near, &far)].map(both) {
        let is_cut = Arc::clone(is_cut);
        // Ends with the process.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut bytes) {
                while is_cut.load(Ordering::Relaxed) {
                    thread::park();
                }
                if to.write_all(&bytes[..length]).is_err() {
                    break;
                }
            }
        });
    }
    client
}

fn both((from, to): (&TcpStream, &TcpStream)) -> (TcpStream, TcpStream) {
    (from.try_clone().expect("a second handle"), to.try_clone().expect("a second handle"))
}
