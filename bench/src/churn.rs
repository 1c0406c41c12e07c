//! Sessions that come and go: introduce, wait, close. An observer checks that each gets its
//! goodbye.

use std::collections::BTreeMap;
use std::slice;
use std::time::Instant;

use serde_json::Value;

use support::http::get;
use support::incoming::{Cutter, Item};
use support::process::Cores;

use crate::client::{BUFFER_BYTES, Client, POLL_TIMEOUT, Poller};
use crate::result::{Result, STALL};
use crate::sample::Sample;
use crate::server::Target;
use crate::window::Window;
use crate::wire::Dialect;

/// Sessions at a time. Twice as many messages must fit into the history, or the observer misses
/// some.
const BATCH: usize = 40;
const ROOM: &str = "churn";

/// Introductions that end by closing the pending read.
pub(crate) fn churn(target: &Target, cores: Cores, cycles: usize) -> Result<Sample> {
    if target.dialect != Dialect::Speak {
        return Err("only Speak knows introductions".into());
    }
    let mut observer = Observer::new(target)?;
    in_batches(target, cores, cycles, |batches, count| batches.come_and_go(count, &mut observer))
}

/// Connections that write once and close, for comparison.
pub(crate) fn connect(target: &Target, cores: Cores, cycles: usize) -> Result<Sample> {
    in_batches(target, cores, cycles, Batches::write_and_go)
}

/// Connections that only make the handshake of TLS.
pub(crate) fn handshakes(target: &Target, cores: Cores, cycles: usize) -> Result<Sample> {
    in_batches(target, cores, cycles, Batches::shake_and_go)
}

/// Measures cycles in batches, after one batch that is not measured.
fn in_batches(
    target: &Target,
    cores: Cores,
    cycles: usize,
    mut batch: impl FnMut(&mut Batches, usize) -> Result<()>,
) -> Result<Sample> {
    let mut batches = Batches::new(target);
    batch(&mut batches, BATCH)?;
    let window = Window::open(slice::from_ref(target), cores)?;
    for done in (0..cycles).step_by(BATCH) {
        batch(&mut batches, BATCH.min(cycles - done))?;
    }
    let usage = window.close()?;
    Ok(Sample::new(usage, cycles as u64))
}

/// Connects clients in batches.
struct Batches {
    target: Target,
    cutter: Cutter,
    buffer: Vec<u8>,
    tokens: Vec<u64>,
    next_number: u32,
}

impl Batches {
    fn new(target: &Target) -> Self {
        Self {
            target: *target,
            cutter: Cutter::default(),
            buffer: vec![0; BUFFER_BYTES],
            tokens: Vec::new(),
            next_number: 0,
        }
    }

    fn connect(&mut self, count: usize) -> Result<(Poller, Vec<Client>)> {
        let poller = Poller::new()?;
        let first = self.next_number;
        self.next_number += count as u32;
        let clients = poller.connect(&self.target, first..self.next_number)?;
        Ok((poller, clients))
    }

    /// Waits for one response to each client.
    fn answers<T>(
        &mut self,
        poller: &mut Poller,
        clients: &mut [Client],
        mut read: impl FnMut(&Item) -> Result<T>,
    ) -> Result<Vec<(usize, T)>> {
        let mut answers = Vec::with_capacity(clients.len());
        let deadline = Instant::now() + STALL;
        while answers.len() < clients.len() {
            if Instant::now() > deadline {
                return Err("a call is not answered".into());
            }
            poller.wait(POLL_TIMEOUT, &mut self.tokens)?;
            for &token in &self.tokens {
                let index = token as usize;
                let (cutter, buffer) = (&mut self.cutter, &mut self.buffer);
                clients[index].receive(cutter, buffer, |_, frame| {
                    answers.push((index, read(frame)?));
                    Ok(())
                })?;
            }
        }
        Ok(answers)
    }

    fn come_and_go(&mut self, count: usize, observer: &mut Observer) -> Result<()> {
        let (mut poller, mut clients) = self.connect(count)?;
        for client in &mut clients {
            client.send(&get(&format!("/introduce?channel={ROOM}&message=a-user")))?;
        }
        let introduced = self.answers(&mut poller, &mut clients, |frame| {
            let value = json(frame)?;
            let connection = value["connection"].as_u64();
            let auth = value["auth"].as_str().map(str::to_owned);
            connection.zip(auth).ok_or_else(|| format!("not introduced: {value}").into())
        })?;
        for (index, (connection, auth)) in &introduced {
            let read = format!("/read?channel={ROOM}-quiet&connection={connection}&auth={auth}");
            clients[*index].send(&get(&read))?;
        }
        // The server handles requests in order: once it answers the observer, all reads wait.
        observer.read("&timeout=0")?;
        drop(clients);
        observer.await_goodbyes(count)
    }

    fn shake_and_go(&mut self, count: usize) -> Result<()> {
        let (mut poller, mut clients) = self.connect(count)?;
        let mut ready = 0;
        let deadline = Instant::now() + STALL;
        while ready < count {
            if Instant::now() > deadline {
                return Err("a handshake does not end".into());
            }
            poller.wait(POLL_TIMEOUT, &mut self.tokens)?;
            for &token in &self.tokens {
                let client = &mut clients[token as usize];
                let was_ready = client.is_ready();
                client.receive(&mut self.cutter, &mut self.buffer, |_, item| {
                    Err(format!("an answer to no request: {}", item.lossy()).into())
                })?;
                ready += usize::from(!was_ready && client.is_ready());
            }
        }
        Ok(())
    }

    fn write_and_go(&mut self, count: usize) -> Result<()> {
        let (mut poller, mut clients) = self.connect(count)?;
        for client in &mut clients {
            client.send(&get(&format!("/write?channel={ROOM}&message=a-user")))?;
        }
        let dialect = self.target.dialect;
        self.answers(&mut poller, &mut clients, |frame| dialect.written_id(frame))?;
        Ok(())
    }
}

/// Reads the channel and checks that each introduction has exactly one goodbye, with reason
/// `closed`.
struct Observer {
    client: Client,
    next_id: u64,
    /// Message id of the introduction of each present connection.
    present: BTreeMap<u64, u64>,
    left: usize,
}

impl Observer {
    fn new(target: &Target) -> Result<Self> {
        Ok(Self {
            client: Client::connect(target, 0)?,
            next_id: 1,
            present: BTreeMap::new(),
            left: 0,
        })
    }

    fn await_goodbyes(&mut self, count: usize) -> Result<()> {
        let deadline = Instant::now() + STALL;
        while self.left < count {
            if Instant::now() > deadline {
                return Err(format!("only {} of {count} goodbyes came", self.left).into());
            }
            self.read("&timeout=1")?;
        }
        self.left -= count;
        if self.left > 0 || !self.present.is_empty() {
            return Err("more goodbyes than introductions, or fewer".into());
        }
        Ok(())
    }

    fn read(&mut self, how: &str) -> Result<()> {
        let request = get(&format!("/read?channel={ROOM}&from_id={}{how}", self.next_id));
        let answer = self.client.ask(&request, json)?;
        let wrong = || format!("not in order: {answer}");
        if answer.get("missed").is_some() {
            return Err(wrong().into());
        }
        for message in answer["messages"].as_array().ok_or_else(wrong)? {
            let id = message["id"].as_u64().ok_or_else(wrong)?;
            let from = message["from"].as_u64().ok_or_else(wrong)?;
            if id != self.next_id {
                return Err(wrong().into());
            }
            self.next_id += 1;
            let fits = match message["type"].as_str() {
                Some("introduction") => self.present.insert(from, id).is_none(),
                Some("goodbye") if message["reason"] == "closed" => {
                    self.left += 1;
                    self.present.remove(&from).is_some()
                }
                _ => false,
            };
            if !fits {
                return Err(wrong().into());
            }
        }
        Ok(())
    }
}

fn json(frame: &Item) -> Result<Value> {
    if frame.status != Some(200) {
        return Err(format!("answered {}", frame.lossy()).into());
    }
    Ok(serde_json::from_slice(frame.body())?)
}
