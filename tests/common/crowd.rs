//! Thousands of clients in one thread: sockets that never block, under one poll.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::process::Signal;
use support::http::Head;

use super::response::framing_of;
use super::server::Server;
use super::wait::{crowd_guard, is_full, until};

/// Returns one size for every run of the tests, another for `make overload`.
pub fn sized(small: usize, full: usize) -> usize {
    if is_full() { full } else { small }
}

/// Lets this process have as many open files as it may.
pub fn raise_file_limit() {
    support::process::raise_file_limit().expect("raising a soft limit");
}

/// One client of the crowd.
pub struct Member {
    stream: TcpStream,
    /// Bytes that came and were not taken yet.
    pub received: Vec<u8>,
    /// The server closed, or reset.
    pub is_closed: bool,
    /// It leaves with the kernel what comes.
    pub takes_nothing: bool,
    /// It is among [`Crowd::arrivals`].
    has_arrived: bool,
    unsent: Vec<u8>,
}

/// Clients by number.
pub struct Crowd {
    poll: Poll,
    pub members: Vec<Member>,
    events: Events,
    /// Clients for which something has come, each once. The order is that in which the kernel
    /// reported them, even if the test did not look meanwhile: poll keeps the order of arrival.
    pub arrivals: Vec<usize>,
}

impl Crowd {
    /// Connects so many, as fast as one thread can, but not all at once.
    /// The kernel would refuse those that exceed the backlog by itself.
    #[track_caller]
    pub fn connect(address: SocketAddr, count: usize) -> Self {
        let mut crowd = Self::empty();
        for _ in 0..count {
            crowd.add(std::net::TcpStream::connect(address).expect("connecting to the server"));
        }
        crowd
    }

    /// Returns a crowd without clients.
    pub fn empty() -> Self {
        raise_file_limit();
        let poll = Poll::new().expect("a poll");
        let events = Events::with_capacity(4096);
        Self { poll, members: Vec::new(), events, arrivals: Vec::new() }
    }

    /// Adds a client that has connected, and returns its number.
    pub fn add(&mut self, stream: std::net::TcpStream) -> usize {
        stream.set_nonblocking(true).expect("a socket that does not block");
        let mut stream = TcpStream::from_std(stream);
        let (number, both) = (self.members.len(), Interest::READABLE | Interest::WRITABLE);
        let registered = self.poll.registry().register(&mut stream, Token(number), both);
        registered.expect("watching a socket");
        self.members.push(Member {
            stream,
            received: Vec::new(),
            is_closed: false,
            takes_nothing: false,
            has_arrived: false,
            unsent: Vec::new(),
        });
        number
    }

    /// Sends as soon as there is room for it.
    pub fn send(&mut self, number: usize, bytes: &[u8]) {
        let member = &mut self.members[number];
        member.unsent.extend_from_slice(bytes);
        member.flush();
    }

    pub fn send_all(&mut self, bytes: &[u8]) {
        for number in 0..self.members.len() {
            self.send(number, bytes);
        }
    }

    /// Forgets all that came.
    pub fn forget(&mut self) {
        while !self.turn(Duration::ZERO).is_empty() {}
        self.arrivals.clear();
        for member in &mut self.members {
            member.received.clear();
            member.has_arrived = false;
        }
    }

    /// Has a client take what has come and comes.
    pub fn take_all(&mut self, number: usize) {
        let member = &mut self.members[number];
        if std::mem::take(&mut member.takes_nothing) {
            let wide = set_socket_recv_buffer_size(&member.stream, 1 << 20);
            wide.expect("a large buffer");
        }
        member.receive();
    }

    /// Receives for at most `wait`, and returns the clients with something new.
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
                member.flush();
            }
            if event.is_readable() && (member.takes_nothing || member.receive()) {
                changed.push(number);
                if !std::mem::replace(&mut member.has_arrived, true) {
                    self.arrivals.push(number);
                }
            }
        }
        changed
    }

    /// Receives until so many of them are done.
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
                last.elapsed() < crowd_guard(),
                "waited in vain until {count} {what}: {done} have"
            );
        }
    }

    pub fn count(&self, is_so: impl Fn(&Member) -> bool) -> usize {
        self.members.iter().filter(|member| is_so(member)).count()
    }
}

impl Member {
    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Not connected yet, no room, or closed by the server: reading will tell.
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
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock | ErrorKind::NotConnected => {}
                    _ => self.is_closed = true,
                },
            }
            return before != (self.received.len(), self.is_closed);
        }
    }

    /// Takes the first whole response away: its status and its body.
    pub fn take_answer(&mut self) -> Option<(u16, Vec<u8>)> {
        let (head, start) = Head::parse(&self.received).expect("a head")?;
        let body = framing_of(&head).take(&self.received[start..], false).expect("a body");
        let (body, length) = body.map(|(body, length)| (body.into_owned(), length))?;
        self.received = self.received.split_off(start + length);
        Some((head.status, body))
    }
}

/// Figures of the kernel about the server's process.
impl Server {
    /// Stops the process as a whole, until [`Server::resume`]. What is sent meanwhile waits in the
    /// kernel, and the server finds all of it in one turn.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        until("the process is stopped", || self.status_line("State").starts_with("T "));
    }

    /// Says whether it waits for events, and so is in no turn.
    pub fn is_asleep(&self) -> bool {
        self.status_line("State").starts_with("S ")
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn status(&self, field: &str) -> u64 {
        let line = self.status_line(field);
        line.split(' ').next().expect("a value").parse().expect("a number")
    }

    /// Returns the value of a line, with its unit.
    fn status_line(&self, field: &str) -> String {
        let file = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(file).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("such a field");
        line.trim_matches([':', '\t', ' ']).to_owned()
    }

    /// Returns its resident memory in KiB, without the pages of files: the program's own come with
    /// their first use after the start.
    pub fn rss_kib(&self) -> u64 {
        self.status("RssAnon")
    }

    /// Returns the most resident memory that it ever had, in KiB.
    pub fn peak_rss_kib(&self) -> u64 {
        self.status("VmHWM")
    }

    /// Returns how often it has gone to sleep: only a process that slept can wake up.
    pub fn sleeps(&self) -> u64 {
        self.status("voluntary_ctxt_switches")
    }

    /// Returns the number of its open files.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).expect("a process").count()
    }

    /// Returns its CPU time in hundredths of a second.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("a process");
        let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
        let mut times =
            fields.split(' ').skip(11).map(|field| field.parse::<u64>().expect("a number"));
        times.next().expect("user time") + times.next().expect("system time")
    }
}
