//! A relay between nginx and Speak that records their bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use super::verdict::Answers;

/// Forwards every connection to a socket's path.
pub struct Relay {
    flows: Flows,
}

type Flows = Arc<Mutex<Vec<Flow>>>;

/// One connection, so far.
#[derive(Default)]
struct Flow {
    asked: Vec<u8>,
    answered: Vec<u8>,
    /// Number of complete responses, and their bytes.
    counted: usize,
    counted_bytes: usize,
    /// Speak sends nothing more.
    is_over: bool,
}

impl Flow {
    /// Returns the number of responses so far, without interim ones.
    fn count(&mut self) -> usize {
        let new = Answers::parse(&self.answered[self.counted_bytes..]);
        let is_final: Vec<bool> = new.whole.iter().map(|answer| answer.status != 100).collect();
        let count = |are_final: &[bool]| are_final.iter().filter(|is_final| **is_final).count();
        let all = self.counted + count(&is_final);
        // The last one may still get its body.
        if let [.., end, _] = new.ends[..] {
            self.counted += count(&is_final[..is_final.len() - 1]);
            self.counted_bytes += end;
        }
        all
    }
}

impl Relay {
    pub fn start(path: &Path, speak: SocketAddr) -> Self {
        let listener = UnixListener::bind(path).expect("a socket for nginx to find");
        let flows = Flows::default();
        let relay = Self { flows: Arc::clone(&flows) };
        // Ends with the test.
        thread::spawn(move || {
            for (place, nginx) in listener.incoming().enumerate() {
                lock(&flows).push(Flow::default());
                let speak = TcpStream::connect(speak).expect("connecting to Speak");
                speak.set_nodelay(true).expect("no delay on a new socket");
                pass_on(nginx.expect("a connection from nginx"), speak, place, &flows);
            }
        });
        relay
    }

    /// Returns how many requests Speak has answered.
    pub fn answered(&self) -> usize {
        lock(&self.flows).iter_mut().map(Flow::count).sum()
    }

    /// Returns how many connections nginx has opened.
    pub fn connections(&self) -> usize {
        lock(&self.flows).len()
    }

    /// Returns whether every connection has ended and all of its bytes are recorded.
    pub fn is_over(&self) -> bool {
        lock(&self.flows).iter().all(|flow| flow.is_over)
    }

    /// Returns the bytes of the newest connections, for a failure message.
    pub fn newest(&self) -> String {
        let flows = lock(&self.flows);
        let tail =
            |bytes: &[u8]| bytes[bytes.len().saturating_sub(1000)..].escape_ascii().to_string();
        let show = |flow: &Flow| {
            let (asked, answered) = (tail(&flow.asked), tail(&flow.answered));
            format!("nginx to Speak: …{asked}\nSpeak to nginx: …{answered}")
        };
        flows.iter().rev().take(2).map(show).collect::<Vec<_>>().join("\n")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic in a relay")
}

/// Copies in both directions, each in its own thread, until both sides have closed.
fn pass_on(nginx: UnixStream, speak: TcpStream, place: usize, flows: &Flows) {
    let from_nginx = nginx.try_clone().expect("a second handle");
    let to_speak = speak.try_clone().expect("a second handle");
    let (asked, answered) = (Arc::clone(flows), Arc::clone(flows));
    // Either side may close before the other has sent all: the other end notices that.
    thread::spawn(move || {
        copy(from_nginx, &to_speak, |bytes| {
            lock(&asked)[place].asked.extend_from_slice(bytes);
        });
        let _ = to_speak.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        copy(speak, &nginx, |bytes| {
            lock(&answered)[place].answered.extend_from_slice(bytes);
        });
        lock(&answered)[place].is_over = true;
        let _ = nginx.shutdown(Shutdown::Write);
    });
}

/// Copies until the source ends. Bytes that the other side does not take are recorded as well.
fn copy(mut from: impl Read, mut to: impl Write, mut note: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        note(&buffer[..length]);
        let _ = to.write_all(&buffer[..length]);
    }
}
