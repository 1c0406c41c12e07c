//! A crowd: readers in rooms that poll or hold a stream, and a few writers. Every message is
//! checked.
//!
//! A room has a log: the messages in the order in which its first reader saw them. Every other
//! reader must see the same message at the same position. In the end, the log must hold each
//! written message once. So a lost, doubled or reordered message is found for any server.

use std::slice;
use std::time::{Duration, Instant};

use support::incoming::{Cutter, Item};
use support::process;
use support::ws::PING;

use crate::client::{BUFFER_BYTES, Client, POLL_TIMEOUT, Poller};
use crate::peer_wire::Greeting;
use crate::result::{Result, STALL};
use crate::server::Target;
use crate::stats::Histogram;
use crate::wire::{self, Cursor, Dialect, Form};
use crate::writers::{WRITER_TOKENS, Write, Writers};

/// Readers to connect before the server must have served them.
pub(crate) const CONNECT_BATCH: usize = 50;

/// Size of a crowd.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) rooms: usize,
    pub(crate) readers_per_room: usize,
    pub(crate) writers: usize,
    pub(crate) form: Form,
    /// Whether all readers connect without waiting for others. Otherwise some at a time do:
    /// Pushpin answers 502 to some of a hundred.
    pub(crate) at_once: bool,
    /// Whether each target has the readers and writers of its own rooms, as servers that share
    /// nothing. Otherwise each room has readers at all targets, and the first one gets the writes.
    pub(crate) is_apart: bool,
}

struct Reader {
    client: Client,
    room: u32,
    /// Number of messages of its room that the reader has seen.
    place: u32,
    /// Whether the reader's stream has begun.
    follows: bool,
}

#[derive(Default)]
struct Room {
    /// Sequence numbers in the order in which readers see them.
    log: Vec<u32>,
    /// Sequence numbers of the written messages.
    written: Vec<u32>,
    /// The last response, its messages, and the poll that follows it. The readers of a room mostly
    /// get the same bytes; then nothing is parsed or built again.
    answer: Vec<u8>,
    seqs: Vec<u32>,
    poll: Vec<u8>,
}

/// A message received by a reader.
pub(crate) struct Delivery {
    pub(crate) seq: u32,
    pub(crate) at: Instant,
}

struct Readers {
    dialect: Dialect,
    form: Form,
    all: Vec<Reader>,
    rooms: Vec<Room>,
    cutter: Cutter,
    delivered: u64,
    /// Number of streams that have begun.
    begun: usize,
    /// Number of clients whose handshake is complete, over TLS.
    shaken: usize,
    start: Instant,
    /// Times from the start until each stream began.
    begun_after: Histogram,
}

/// Readers, writers, and the loop that drives them.
pub(crate) struct Crowd {
    poller: Poller,
    tokens: Vec<u64>,
    buffer: Vec<u8>,
    readers: Readers,
    writers: Writers,
    progress: Instant,
}

impl Crowd {
    /// Connects all clients and sends every reader's first request. All streams have begun on
    /// return: a later one would, in some runs, get its beginning and the first message in one
    /// send.
    ///
    /// If the targets share their rooms, the readers are spread over all, from the last one on.
    pub(crate) fn gather(targets: &[Target], size: Size) -> Result<Self> {
        let target = targets.first().ok_or("a crowd without a server")?;
        let mut crowd = Self {
            poller: Poller::new()?,
            tokens: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
            readers: Readers::new(target.dialect, size),
            writers: Writers::new(
                if size.is_apart { targets } else { slice::from_ref(target) },
                size.rooms,
                size.writers,
            )?,
            progress: Instant::now(),
        };
        for (token, writer) in (WRITER_TOKENS..).zip(&crowd.writers.all) {
            crowd.poller.add(&writer.client, token)?;
        }
        let total = size.rooms * size.readers_per_room;
        for first in (0..total).step_by(CONNECT_BATCH) {
            let batch = first..total.min(first + CONNECT_BATCH);
            for index in batch.clone() {
                let target = if size.is_apart {
                    &targets[index % size.rooms % targets.len()]
                } else {
                    let before_last = index / size.rooms % targets.len();
                    &targets[targets.len() - 1 - before_last]
                };
                let client = Client::connect(target, index as u32)?;
                crowd.poller.add(&client, index as u64)?;
                crowd.readers.all.push(Reader {
                    client,
                    // Neighbours in the server's tables are in different rooms, as in production.
                    room: (index % size.rooms) as u32,
                    place: 0,
                    follows: false,
                });
            }
            for index in batch {
                crowd.readers.poll(index)?;
            }
            if size.at_once {
                // Handshakes go on meanwhile.
                crowd.turn(Duration::ZERO, |_| ())?;
            } else {
                crowd.await_readers(size.form, target.is_tls)?;
            }
        }
        crowd.await_readers(size.form, target.is_tls)?;
        // Pushpin accepts a WebSocket before it has subscribed it.
        let processes: Vec<_> = targets.iter().flat_map(Target::processes).collect();
        if size.form.stays() && !processes.is_empty() {
            process::settle(&processes)?;
        }
        Ok(crowd)
    }

    /// Waits until the handshakes of all readers are complete, and their streams have begun.
    fn await_readers(&mut self, form: Form, is_tls: bool) -> Result<()> {
        let all = self.readers.all.len();
        let begun = if form.stays() { all } else { 0 };
        let shaken = if is_tls { all } else { 0 };
        while self.readers.begun < begun || self.readers.shaken < shaken {
            self.turn(POLL_TIMEOUT, |_| ())?;
        }
        Ok(())
    }

    /// Writes message `seq` to a room as soon as a writer is free.
    pub(crate) fn write(&mut self, room: u32, seq: u32) -> Result<()> {
        self.readers.rooms[room as usize].written.push(seq);
        self.writers.queue.push_back(Write { room, seq });
        self.writers.pump()
    }

    /// Messages received by readers.
    pub(crate) fn delivered(&self) -> u64 {
        self.readers.delivered
    }

    /// Returns the times from the first connect until each stream began.
    pub(crate) fn begun_after(&self) -> &Histogram {
        &self.readers.begun_after
    }

    /// Writes without a response.
    pub(crate) fn unanswered(&self) -> usize {
        let writers = &self.writers;
        writers.queue.len() + writers.all.len() - writers.idle.len()
    }

    /// Bytes of the last response to a reader of the first room.
    pub(crate) fn answer_bytes(&self) -> usize {
        self.readers.rooms[0].answer.len()
    }

    /// Handles pending events, or waits for one until `timeout` ends. Fails if no event has come
    /// within the stall limit.
    pub(crate) fn turn(&mut self, timeout: Duration, mut on: impl FnMut(Delivery)) -> Result<()> {
        self.poller.wait(timeout, &mut self.tokens)?;
        if !self.tokens.is_empty() {
            self.progress = Instant::now();
        }
        for &token in &self.tokens {
            if token >= WRITER_TOKENS {
                let index = (token - WRITER_TOKENS) as usize;
                self.writers.receive(index, &mut self.buffer, &self.poller)?;
            } else {
                self.readers.receive(token as usize, &mut self.buffer, &mut on)?;
            }
        }
        self.writers.pump()?;
        if self.progress.elapsed() < STALL { Ok(()) } else { Err(self.stall().into()) }
    }

    /// Describes the lack of progress.
    fn stall(&self) -> String {
        let written = |room: u32| self.readers.rooms[room as usize].written.len();
        let mut behind = self.readers.all.iter().enumerate();
        let behind = behind.find(|(_, reader)| (reader.place as usize) < written(reader.room));
        let (begun, all) = (self.readers.begun, self.readers.all.len());
        match behind {
            Some((index, reader)) => format!(
                "lost: reader {index} has {} of the {} messages of room {}",
                reader.place,
                written(reader.room),
                reader.room
            ),
            None if self.readers.form.stays() && begun < all => {
                format!("{begun} of {all} streams have begun")
            }
            None => format!("{} writes are not answered", self.unanswered()),
        }
    }

    /// Checks that each reader got each message of its room once, in the order of the ids.
    pub(crate) fn check(&self) -> Result<()> {
        for (number, room) in self.readers.rooms.iter().enumerate() {
            let (mut log, mut written) = (room.log.clone(), room.written.clone());
            log.sort_unstable();
            written.sort_unstable();
            if log != written {
                let at = log.iter().zip(&written).take_while(|(a, b)| a == b).count();
                return Err(format!(
                    "room {number} got {} messages of {}: {:?} where {:?} was written",
                    log.len(),
                    written.len(),
                    log.get(at),
                    written.get(at)
                )
                .into());
            }
        }
        for reader in &self.readers.all {
            let expected = self.readers.rooms[reader.room as usize].log.len();
            if reader.place as usize != expected {
                return Err(format!("a reader got {} of {expected}", reader.place).into());
            }
        }
        for &(room, id, seq) in &self.writers.ids {
            let log = &self.readers.rooms[room as usize].log;
            let at = usize::try_from(id)?.checked_sub(1);
            if at.and_then(|at| log.get(at)) != Some(&seq) {
                return Err(format!("message {seq} of room {room} is not at its id {id}").into());
            }
        }
        Ok(())
    }
}

impl Readers {
    fn new(dialect: Dialect, size: Size) -> Self {
        let room = |number| Room {
            poll: dialect.poll(number, &Cursor::Start, size.form),
            ..Room::default()
        };
        Self {
            dialect,
            form: size.form,
            all: Vec::new(),
            rooms: (0..size.rooms as u32).map(room).collect(),
            cutter: Cutter::new(size.form.mode()),
            delivered: 0,
            begun: 0,
            shaken: 0,
            start: Instant::now(),
            begun_after: Histogram::default(),
        }
    }

    /// Sends the first read of a reader.
    fn poll(&mut self, index: usize) -> Result<()> {
        let reader = &mut self.all[index];
        let poll = &mut self.rooms[reader.room as usize].poll;
        if self.form == Form::Jsonp {
            wire::put_callback(poll, index as u32);
        }
        reader.client.send(poll)
    }

    fn receive(
        &mut self,
        index: usize,
        buffer: &mut [u8],
        on: &mut impl FnMut(Delivery),
    ) -> Result<()> {
        let reader = &mut self.all[index];
        let room = &mut self.rooms[reader.room as usize];
        let (dialect, form) = (self.dialect, self.form);
        let Reader { client, place, follows, .. } = reader;
        let (delivered, begun) = (&mut self.delivered, &mut self.begun);
        let mut note_begin = || {
            *begun += 1;
            self.begun_after.record(self.start.elapsed());
        };
        let (number, of_room) = (index as u32, reader.room);
        let was_ready = client.is_ready();
        client.receive(&mut self.cutter, buffer, |client, frame| {
            if form.stays() && begins(follows, frame, form)? {
                if dialect.begins_with_head() {
                    note_begin();
                }
                return Ok(());
            }
            match dialect.greeting(frame, Some(of_room)) {
                Some(Greeting::Reply(bytes)) => return client.send(&bytes),
                Some(Greeting::Begun) => {
                    note_begin();
                    return Ok(());
                }
                None => {}
            }
            if frame.is_frame(PING) {
                return client.send(&wire::PONG);
            }
            room.learn(frame, dialect, form, of_room, number)?;
            room.admit(place)
                .map_err(|error| format!("reader {index} of room {of_room}: {error}"))?;
            let at = Instant::now();
            for &seq in &room.seqs {
                on(Delivery { seq, at });
            }
            *delivered += room.seqs.len() as u64;
            if form.stays() {
                return Ok(());
            }
            if form == Form::Jsonp {
                wire::put_callback(&mut room.poll, number);
            }
            client.send(&room.poll)
        })?;
        self.shaken += usize::from(!was_ready && client.is_ready());
        Ok(())
    }
}

/// Returns whether `frame` begins a stream. Each stream must begin once.
fn begins(follows: &mut bool, frame: &Item, form: Form) -> Result<bool> {
    let begins = frame.status.is_some();
    if begins == *follows {
        return Err(format!("a stream begins twice, or not at all: {}", frame.lossy()).into());
    }
    *follows = true;
    if begins {
        wire::check_opening(frame, form)?;
    }
    Ok(begins)
}

impl Room {
    /// Parses a response, unless another reader just got the same one.
    fn learn(
        &mut self,
        frame: &Item,
        dialect: Dialect,
        form: Form,
        room: u32,
        reader: u32,
    ) -> Result<()> {
        let known = match form {
            Form::Plain | Form::Events | Form::Frames => self.answer == frame.bytes,
            Form::Jsonp => {
                wire::same_but_for_callback(frame.bytes, &self.answer, frame.head_bytes, reader)
            }
        };
        if known {
            return Ok(());
        }
        let answer = dialect.decode(frame, form)?;
        self.answer.clear();
        self.answer.extend_from_slice(frame.bytes);
        if !form.stays() {
            self.poll = dialect.poll(room, &answer.cursor, form);
        }
        self.seqs = answer.seqs;
        let own = |answer| wire::same_but_for_callback(answer, answer, frame.head_bytes, reader);
        if form == Form::Jsonp && !own(frame.bytes) {
            return Err(format!("reader {reader} got another's name: {}", frame.lossy()).into());
        }
        Ok(())
    }

    /// Takes the messages of the last response for a reader at `place` in the log.
    fn admit(&mut self, place: &mut u32) -> Result<()> {
        for &seq in &self.seqs {
            match self.log.get(*place as usize) {
                Some(&expected) if expected == seq => {}
                Some(expected) => return Err(format!("got {seq}, not {expected}").into()),
                None => self.log.push(seq),
            }
            *place += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use super::*;

    /// A crowd of one room with these written messages, without clients.
    fn crowd(written: &[u32]) -> Crowd {
        let size = Size {
            rooms: 1,
            readers_per_room: 0,
            writers: 0,
            form: Form::Plain,
            at_once: false,
            is_apart: false,
        };
        let nowhere = Target::new(SocketAddrV4::new([127, 0, 0, 1].into(), 1), Dialect::Speak);
        let mut crowd = Crowd::gather(&[nowhere], size).unwrap();
        crowd.readers.rooms[0].written = written.to_vec();
        crowd
    }

    /// Feeds a reader at `place` a response with these messages.
    fn got(crowd: &mut Crowd, place: &mut u32, seqs: &[u32]) -> Result<()> {
        let room = &mut crowd.readers.rooms[0];
        room.seqs = seqs.to_vec();
        room.admit(place)
    }

    #[test]
    fn readers_must_see_the_same_messages_in_the_same_order() {
        let mut crowd = crowd(&[1, 2, 3]);
        let (mut first, mut second, mut third) = (0, 0, 0);
        got(&mut crowd, &mut first, &[1, 2]).unwrap();
        got(&mut crowd, &mut first, &[3]).unwrap();
        got(&mut crowd, &mut second, &[1]).unwrap();
        got(&mut crowd, &mut second, &[2, 3]).unwrap();
        crowd.check().unwrap();
        got(&mut crowd, &mut third, &[1]).unwrap();
        assert!(got(&mut crowd, &mut third, &[3]).is_err());
    }

    #[test]
    fn a_message_that_came_twice_or_not_at_all_fails_the_check() {
        for wrong in [&[1, 2, 2, 3][..], &[1, 3], &[1, 2, 4], &[1, 2, 3, 4]] {
            let mut crowd = crowd(&[1, 2, 3]);
            got(&mut crowd, &mut 0, wrong).unwrap();
            assert!(crowd.check().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_stream_begins_once_and_before_its_messages() {
        let part = |status| Item { status, bytes: b"HTTP/1.1 101 \r\n", ..Item::default() };
        assert!(begins(&mut false, &part(None), Form::Frames).is_err());
        assert!(begins(&mut true, &part(Some(101)), Form::Frames).is_err());
        assert!(!begins(&mut true, &part(None), Form::Frames).unwrap());
        // A response that accepts no key accepts no WebSocket.
        assert!(begins(&mut false, &part(Some(101)), Form::Frames).is_err());
    }

    #[test]
    fn the_order_of_readers_must_be_that_of_the_ids() {
        let mut crowd = crowd(&[1, 2]);
        got(&mut crowd, &mut 0, &[2, 1]).unwrap();
        crowd.writers.ids = vec![(0, 1, 2), (0, 2, 1)];
        crowd.check().unwrap();
        crowd.writers.ids = vec![(0, 1, 1), (0, 2, 2)];
        assert!(crowd.check().is_err());
    }
}
