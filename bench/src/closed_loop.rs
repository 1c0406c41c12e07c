//! Closed loops: connections that send a batch of requests, wait for the responses, and repeat.
//!
//! With one request at a time this is what wrk does; with sixteen it is pipelining.

use std::slice;
use std::time::{Duration, Instant};

use support::incoming::{Cutter, Item};
use support::process::Cores;

use crate::client::{BUFFER_BYTES, Client, POLL_TIMEOUT, Poller};
use crate::result::{Result, STALL};
use crate::sample::Sample;
use crate::server::Target;
use crate::window::Window;
use crate::wire::{Dialect, Form};

/// Connections that send `depth` requests at a time and then wait for the responses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Closed {
    pub(crate) connections: usize,
    pub(crate) depth: usize,
    pub(crate) requests: usize,
    /// Sending ends after this time even if requests are left: a slow server gets fewer.
    pub(crate) at_most: Duration,
    /// Unmeasured requests before the measured ones.
    pub(crate) warm_up: usize,
}

/// Requests of a closed loop, and checks of their responses.
pub(crate) trait Script {
    /// Returns the bytes of the next `depth` requests of a connection.
    fn requests(&mut self, connection: usize) -> &[u8];

    /// Checks a response.
    fn answer(&mut self, connection: usize, frame: &Item) -> Result<()>;
}

/// Sends writes and checks that each gets an id of its own.
pub(crate) fn publish(target: &Target, cores: Cores, work: Closed) -> Result<Sample> {
    let mut script = Writes {
        dialect: target.dialect,
        template: target.dialect.write(0, work.depth),
        depth: work.depth,
        next_seq: 0,
        sent: vec![0; work.connections],
        last_ids: vec![0; work.connections],
        by_id: Vec::new(),
    };
    let sample = drive(target, cores, work, &mut script)?;
    script.check(target)?;
    Ok(sample)
}

/// Sends reads of a room with `messages` messages and checks that each returns them.
pub(crate) fn poll(target: &Target, cores: Cores, work: Closed, messages: usize) -> Result<Sample> {
    let dialect = target.dialect;
    if dialect != Dialect::Fixed {
        let mut writer = Client::connect(target, 0)?;
        for seq in 0..messages as u32 {
            let mut write = dialect.write(0, 1);
            write.number(0, seq);
            writer.ask(&write.bytes, |frame| dialect.written_id(frame))?;
        }
    }
    let mut script = Reads {
        dialect,
        requests: dialect.immediate_read(0, 1, work.depth),
        expected: (0..messages as u32).collect(),
        known: Vec::new(),
    };
    drive(target, cores, work, &mut script)
}

/// Runs the loop: first the warm-up, then the measured part.
pub(crate) fn drive(
    target: &Target,
    cores: Cores,
    work: Closed,
    script: &mut impl Script,
) -> Result<Sample> {
    let poller = Poller::new()?;
    let mut pool = Pool {
        clients: poller.connect(target, 0..work.connections as u32)?,
        poller,
        due: vec![0; work.connections],
        depth: work.depth,
        cutter: Cutter::default(),
        buffer: vec![0; BUFFER_BYTES],
        answer_bytes: 0,
    };
    pool.send(work.warm_up, Duration::MAX, script)?;
    let window = Window::open(slice::from_ref(target), cores)?;
    let answered = pool.send(work.requests, work.at_most, script)?;
    let usage = window.close()?;
    let mut sample = Sample::new(usage, answered as u64);
    sample.answer_bytes = pool.answer_bytes;
    Ok(sample)
}

struct Pool {
    poller: Poller,
    clients: Vec<Client>,
    /// Responses that each connection still waits for.
    due: Vec<usize>,
    depth: usize,
    cutter: Cutter,
    buffer: Vec<u8>,
    answer_bytes: usize,
}

impl Pool {
    /// Sends `count` requests (a multiple of the depth) or stops after a time, and waits for all
    /// responses. Returns the number sent.
    fn send(
        &mut self,
        requests: usize,
        at_most: Duration,
        script: &mut impl Script,
    ) -> Result<usize> {
        let mut unsent = requests / self.depth;
        let mut unanswered = 0;
        let start = Instant::now();
        let mut progress = start;
        let mut tokens = Vec::new();
        for connection in 0..self.clients.len().min(unsent) {
            self.clients[connection].send(script.requests(connection))?;
            self.due[connection] = self.depth;
            unanswered += self.depth;
            unsent -= 1;
        }
        while unanswered > 0 {
            self.poller.wait(POLL_TIMEOUT, &mut tokens)?;
            if !tokens.is_empty() {
                progress = Instant::now();
            } else if progress.elapsed() > STALL {
                return Err(format!("{unanswered} requests are not answered").into());
            }
            for &token in &tokens {
                let connection = token as usize;
                let due = &mut self.due[connection];
                let (answer_bytes, depth) = (&mut self.answer_bytes, self.depth);
                self.clients[connection].receive(
                    &mut self.cutter,
                    &mut self.buffer,
                    |client, frame| {
                        *due = due.checked_sub(1).ok_or("an answer to no request")?;
                        unanswered -= 1;
                        *answer_bytes = frame.bytes.len();
                        script.answer(connection, frame)?;
                        if *due == 0 && unsent > 0 && start.elapsed() < at_most {
                            client.send(script.requests(connection))?;
                            *due = depth;
                            unanswered += depth;
                            unsent -= 1;
                        }
                        Ok(())
                    },
                )?;
            }
        }
        Ok(requests - unsent * self.depth)
    }
}

struct Writes {
    dialect: Dialect,
    template: crate::wire::Template,
    depth: usize,
    next_seq: u32,
    /// Sequence number of the oldest unanswered write of each connection.
    sent: Vec<u32>,
    last_ids: Vec<u64>,
    /// Sequence number of the write that got each id, from 1.
    by_id: Vec<Option<u32>>,
}

impl Script for Writes {
    fn requests(&mut self, connection: usize) -> &[u8] {
        self.sent[connection] = self.next_seq;
        for index in 0..self.depth {
            self.template.number(index, self.next_seq);
            self.next_seq += 1;
        }
        &self.template.bytes
    }

    fn answer(&mut self, connection: usize, frame: &Item) -> Result<()> {
        let seq = self.sent[connection];
        self.sent[connection] += 1;
        let Some(id) = self.dialect.written_id(frame)? else {
            return Ok(());
        };
        if id <= self.last_ids[connection] {
            return Err(format!("id {id} after {}", self.last_ids[connection]).into());
        }
        self.last_ids[connection] = id;
        if id > u64::from(self.next_seq) {
            return Err(format!("id {id} is above what was written").into());
        }
        let place = usize::try_from(id)? - 1;
        if place >= self.by_id.len() {
            self.by_id.resize(place + 1, None);
        }
        match self.by_id[place].replace(seq) {
            Some(other) => Err(format!("{seq} and {other} got id {id}").into()),
            None => Ok(()),
        }
    }
}

impl Writes {
    /// Reads the newest message back. It must be the one with the highest id.
    fn check(&self, target: &Target) -> Result<()> {
        let Dialect::Speak = self.dialect else {
            return Ok(());
        };
        if self.by_id.len() != self.next_seq as usize {
            return Err("fewer ids than writes".into());
        }
        if let Some(gap) = self.by_id.iter().position(Option::is_none) {
            return Err(format!("no write got id {}", gap + 1).into());
        }
        let newest = self.by_id.len() as u64;
        let request = self.dialect.immediate_read(0, newest, 1);
        let mut reader = Client::connect(target, 0)?;
        let dialect = self.dialect;
        let answer = reader.ask(&request, |frame| dialect.decode(frame, Form::Plain))?;
        let expected = self.by_id.last().copied().flatten();
        if answer.first_id != Some(newest) || answer.seqs.first().copied() != expected {
            return Err(format!("id {newest} holds {answer:?}, not {expected:?}").into());
        }
        Ok(())
    }
}

struct Reads {
    dialect: Dialect,
    requests: Vec<u8>,
    expected: Vec<u32>,
    /// The checked body. All others must equal it.
    known: Vec<u8>,
}

impl Script for Reads {
    fn requests(&mut self, _connection: usize) -> &[u8] {
        &self.requests
    }

    fn answer(&mut self, _connection: usize, frame: &Item) -> Result<()> {
        if frame.status == Some(200) && frame.body() == self.known {
            return Ok(());
        }
        if !self.known.is_empty() {
            return Err(format!("not the same answer: {}", frame.lossy()).into());
        }
        if self.dialect != Dialect::Fixed {
            let seqs = self.dialect.decode(frame, Form::Plain)?.seqs;
            // nchan returns one message per request.
            let whole = seqs == self.expected || (seqs == [0] && self.dialect == Dialect::Nchan);
            if !whole {
                return Err(format!("read {seqs:?}, not {:?}", self.expected).into());
            }
        }
        self.known.extend_from_slice(frame.body());
        Ok(())
    }
}
