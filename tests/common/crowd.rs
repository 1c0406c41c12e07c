//! Thousands of clients in one thread, and what they do to the server: sockets that never block, under one poll.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Once;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{GUARD, Server};

/// Whether the long sizes were asked for, as `make overload` does. Nothing but the sizes depends on it.
pub fn is_full() -> bool {
    std::env::var_os("SPEAK_OVERLOAD").is_some()
}

/// One size for every run of the tests, another for `make overload`.
pub fn sized(small: usize, full: usize) -> usize {
    if is_full() { full } else { small }
}

/// Lets this process have as many open files as it may.
pub fn raise_file_limit() {
    static RAISED: Once = Once::new();
    RAISED.call_once(|| {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
            .expect("raising a soft limit");
    });
}

/// What one of the crowd has received, as far as nobody took it away.
pub struct Member {
    stream: TcpStream,
    pub received: Vec<u8>,
    /// The server closed, or reset.
    pub is_closed: bool,
    unsent: Vec<u8>,
}

/// Clients by number.
pub struct Crowd {
    poll: Poll,
    pub members: Vec<Member>,
    events: Events,
}

impl Crowd {
    /// Connects so many, as fast as one thread can. More at once than the kernel completes before they are accepted it would
    /// refuse by itself, and the server hear nothing of them.
    #[track_caller]
    pub fn connect(address: SocketAddr, count: usize) -> Self {
        raise_file_limit();
        let poll = Poll::new().expect("a poll");
        let members = (0..count)
            .map(|number| {
                let stream =
                    std::net::TcpStream::connect(address).expect("connecting to the server");
                stream.set_nonblocking(true).expect("a socket that does not block");
                let mut stream = TcpStream::from_std(stream);
                let both = Interest::READABLE | Interest::WRITABLE;
                poll.registry()
                    .register(&mut stream, Token(number), both)
                    .expect("watching a socket");
                Member { stream, received: Vec::new(), is_closed: false, unsent: Vec::new() }
            })
            .collect();
        Self { poll, members, events: Events::with_capacity(4096) }
    }

    /// Sends as soon as there is room for it.
    pub fn send(&mut self, number: usize, bytes: &[u8]) {
        let member = &mut self.members[number];
        member.unsent.extend_from_slice(bytes);
        member.go_on_sending();
    }

    pub fn send_all(&mut self, bytes: &[u8]) {
        for number in 0..self.members.len() {
            self.send(number, bytes);
        }
    }

    /// Takes what comes within `wait`, and tells of whom there is something new.
    pub fn turn(&mut self, wait: Duration) -> Vec<usize> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => panic!("the poll: {error}"),
            _ => {}
        }
        let mut changed = Vec::new();
        for event in &self.events {
            let number = event.token().0;
            let member = &mut self.members[number];
            if event.is_writable() {
                member.go_on_sending();
            }
            if event.is_readable() && member.receive() {
                changed.push(number);
            }
        }
        changed
    }

    /// Goes on until so many of them are as is asked for.
    #[track_caller]
    pub fn until(&mut self, what: &str, count: usize, is_done: impl Fn(&Member) -> bool) {
        let mut last = Instant::now();
        let mut waits: Vec<bool> = self.members.iter().map(|member| !is_done(member)).collect();
        let mut done = waits.iter().filter(|waits| !**waits).count();
        while done < count {
            for number in self.turn(Duration::from_millis(50)) {
                if waits[number] && is_done(&self.members[number]) {
                    waits[number] = false;
                    done += 1;
                    last = Instant::now();
                }
            }
            assert!(
                last.elapsed() < GUARD * if is_full() { 8 } else { 1 },
                "waited in vain until {count} {what}: {done} have"
            );
        }
    }

    pub fn count(&self, is_so: impl Fn(&Member) -> bool) -> usize {
        self.members.iter().filter(|member| is_so(member)).count()
    }
}

impl Member {
    fn go_on_sending(&mut self) {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Not connected yet, no room, or closed by the server: what is readable tells.
                Err(_) => return,
            }
        }
    }

    fn receive(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        let before = (self.received.len(), self.is_closed);
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.is_closed = true,
                Ok(length) => {
                    self.received.extend_from_slice(&buffer[..length]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if is_not_yet(&error) => {}
                Err(_) => self.is_closed = true,
            }
            return before != (self.received.len(), self.is_closed);
        }
    }

    /// Takes the first whole answer away: its status and its body.
    pub fn take_answer(&mut self) -> Option<(u16, Vec<u8>)> {
        let end = memchr::memmem::find(&self.received, b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&self.received[..end]).expect("a head in ASCII");
        let length = head
            .split("\r\n")
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .expect("a length");
        let length: usize = length.parse().expect("a number");
        let status = head[9..12].parse().expect("a status");
        if self.received.len() < end + length {
            return None;
        }
        let rest = self.received.split_off(end + length);
        let answer = std::mem::replace(&mut self.received, rest);
        Some((status, answer[end..].to_vec()))
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotConnected
}

/// What the kernel knows of the server's process.
impl Server {
    fn status(&self, field: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("such a field");
        line.trim_matches([':', '\t', ' '])
            .split(' ')
            .next()
            .expect("a value")
            .parse()
            .expect("a number")
    }

    /// Memory that it has now, in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.status("VmRSS")
    }

    /// How often it has gone to sleep: nothing wakes up that has not.
    pub fn sleeps(&self) -> u64 {
        self.status("voluntary_ctxt_switches")
    }

    /// Files that it has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).expect("a process").count()
    }

    /// CPU time that it has had, in hundredths of a second.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("a process");
        let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
        let mut times =
            fields.split(' ').skip(11).map(|field| field.parse::<u64>().expect("a number"));
        times.next().expect("user time") + times.next().expect("system time")
    }
}
