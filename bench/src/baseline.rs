//! The baseline: the least work with which a server on one thread can deliver.
//!
//! Raw edge-triggered epoll, one `recv` per request, one `send` per delivery, responses as long as
//! Speak's. It tells a read from a write by the first bytes, takes room and message from fixed
//! places, and looks at nothing else but the end of the head. It recognizes streams by the last
//! byte of the head and begins them with as many bytes as Speak does. It serves this bench only.

use std::collections::VecDeque;
use std::net::SocketAddrV4;

use memchr::memmem::Finder;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use support::ws::ACCEPT;

use crate::client::BUFFER_BYTES;
use crate::result::Result;
use crate::wire::{
    Form, IMMEDIATE_ROOM_AT, MESSAGE_BYTES, READ_ROOM_AT, WRITE_MESSAGE_AT, WRITE_ROOM_AT, room_at,
};

const LISTENER: u64 = u64::MAX;
const EVENTS_MAX: usize = 1024;
const ACCEPTS_MAX: usize = 64;
const BACKLOG: i32 = 4096;
/// Messages retained per room, as many as Speak retains by default.
const HISTORY: usize = 100;
/// Time and date are constants: only their length matters.
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
    Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
    Cross-Origin-Resource-Policy: cross-origin\r\n\
    Access-Control-Allow-Origin: *\r\nDate: Sat, 22 Nov 2025 10:42:00 GMT\r\nContent-Length: ";
const EVENTS_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-store, no-transform\r\nX-Content-Type-Options: nosniff\r\n\
    Access-Control-Allow-Origin: *\r\nDate: Sat, 22 Nov 2025 10:42:00 GMT\r\n\
    X-Accel-Buffering: no\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
    32\r\nretry: 1000\nid: k3Jx9QaZ:1\nevent: ready\ndata: {}\n\n\r\n";
const FRAMES_HEAD: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: ";

struct Slot {
    socket: OwnedFd,
    room: usize,
    form: Form,
    waits: bool,
    /// Number of messages of its room that were sent to the client.
    seen: u64,
}

#[derive(Default)]
struct Room {
    /// The last messages as JSON.
    history: VecDeque<Vec<u8>>,
    last_id: u64,
    waiting: Vec<usize>,
    /// Clients with a stream, which wait until they close.
    following: Vec<usize>,
    changed: bool,
}

/// The server.
pub(crate) struct Baseline {
    epoll: OwnedFd,
    listener: OwnedFd,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    rooms: Vec<Room>,
    changed: Vec<usize>,
    head_end: Finder<'static>,
    buffer: Vec<u8>,
    answers: Vec<u8>,
    body: Vec<u8>,
}

/// Serves until the process ends.
pub(crate) fn serve() -> Result<()> {
    let mut baseline = Baseline::bind()?;
    eprintln!("baseline listening on http://{}", baseline.address()?);
    baseline.run()
}

impl Baseline {
    /// Listens on a free port.
    pub(crate) fn bind() -> Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let listener = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&listener, true)?;
        net::bind(&listener, &SocketAddrV4::new([127, 0, 0, 1].into(), 0))?;
        net::listen(&listener, BACKLOG)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let token = EventData::new_u64(LISTENER);
        epoll::add(&epoll, &listener, token, EventFlags::IN)?;
        Ok(Self {
            epoll,
            listener,
            slots: Vec::new(),
            free: Vec::new(),
            rooms: Vec::new(),
            changed: Vec::new(),
            head_end: Finder::new(b"\r\n\r\n"),
            buffer: vec![0; BUFFER_BYTES],
            answers: Vec::new(),
            body: Vec::new(),
        })
    }

    pub(crate) fn address(&self) -> Result<SocketAddrV4> {
        Ok(SocketAddrV4::try_from(net::getsockname(&self.listener)?)?)
    }

    /// Runs the loop: requests, then deliveries.
    pub(crate) fn run(&mut self) -> Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
        loop {
            events.clear();
            let space = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, space, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    slot => self.receive(slot as usize),
                }
            }
            self.deliver();
        }
    }

    fn accept(&mut self) -> Result<()> {
        for _ in 0..ACCEPTS_MAX {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = match net::accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let index = self.free.pop().unwrap_or_else(|| {
                self.slots.push(None);
                self.slots.len() - 1
            });
            let token = EventData::new_u64(index as u64);
            let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&self.epoll, &socket, token, flags)?;
            self.slots[index] =
                Some(Slot { socket, room: 0, form: Form::Plain, waits: false, seen: 0 });
        }
        Ok(())
    }

    fn receive(&mut self, index: usize) {
        let Some(slot) = &self.slots[index] else {
            return;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        match net::recv(&slot.socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((0, _)) => self.close(index),
            Ok((received, _)) => self.requests(index, &buffer[..received]),
            Err(Errno::AGAIN) => {}
            Err(_) => self.close(index),
        }
        self.buffer = buffer;
    }

    /// Handles a batch of requests and sends their responses together.
    fn requests(&mut self, index: usize, mut bytes: &[u8]) {
        self.answers.clear();
        while let Some(end) = self.head_end.find(bytes) {
            let request = &bytes[..end];
            bytes = &bytes[end + 4..];
            match (request[5], request[10]) {
                (b'w', _) => self.write(request),
                (_, b't') => self.read_at_once(request),
                _ => self.park(index, request),
            }
        }
        // The generator sends no partial requests.
        let whole = bytes.is_empty() && self.send_answers(index);
        if !whole {
            self.close(index);
        }
    }

    fn room(&mut self, number: usize) -> &mut Room {
        if number >= self.rooms.len() {
            self.rooms.resize_with(number + 1, Room::default);
        }
        &mut self.rooms[number]
    }

    fn write(&mut self, request: &[u8]) {
        let number = room_at(request, WRITE_ROOM_AT);
        let room = self.room(number);
        room.last_id += 1;
        let id = room.last_id;
        let mut entry = if room.history.len() == HISTORY {
            room.history.pop_front().unwrap_or_default()
        } else {
            Vec::new()
        };
        entry.clear();
        entry.extend_from_slice(b"{\"id\":");
        put_number(&mut entry, id);
        entry.extend_from_slice(b",\"type\":\"message\",\"time\":1763802331456,\"message\":\"");
        entry.extend_from_slice(&request[WRITE_MESSAGE_AT..WRITE_MESSAGE_AT + MESSAGE_BYTES]);
        entry.extend_from_slice(b"\"}");
        room.history.push_back(entry);
        if !room.changed {
            room.changed = true;
            self.changed.push(number);
        }
        self.body.clear();
        self.body.extend_from_slice(b"{\"id\":");
        put_number(&mut self.body, id);
        self.body.push(b'}');
        put_answer(&mut self.answers, &self.body);
    }

    fn read_at_once(&mut self, request: &[u8]) {
        let number = room_at(request, IMMEDIATE_ROOM_AT);
        self.room(number);
        let room = &self.rooms[number];
        put_messages(&mut self.body, room, room.last_id.saturating_sub(1));
        put_answer(&mut self.answers, &self.body);
    }

    fn park(&mut self, index: usize, request: &[u8]) {
        let number = room_at(request, READ_ROOM_AT);
        self.room(number);
        let room = &mut self.rooms[number];
        let Some(slot) = &mut self.slots[index] else {
            return;
        };
        slot.room = number;
        match request.last() {
            Some(b'm') => {
                slot.form = Form::Events;
                self.answers.extend_from_slice(EVENTS_HEAD.as_bytes());
            }
            Some(b'=') => {
                slot.form = Form::Frames;
                self.answers.extend_from_slice(FRAMES_HEAD.as_bytes());
                self.answers.extend_from_slice(ACCEPT.as_bytes());
                self.answers.extend_from_slice(b"\r\n\r\n");
            }
            _ => {}
        }
        let has_news = slot.seen < room.last_id && !room.changed;
        if has_news {
            put_news(&mut self.answers, &mut self.body, room, slot);
            slot.seen = room.last_id;
        }
        if slot.form.stays() {
            slot.waits = true;
            room.following.push(index);
        } else if !has_news {
            slot.waits = true;
            room.waiting.push(index);
        }
    }

    /// Answers all readers in the rooms that this turn changed.
    fn deliver(&mut self) {
        while let Some(number) = self.changed.pop() {
            let waiting = std::mem::take(&mut self.rooms[number].waiting);
            let following = std::mem::take(&mut self.rooms[number].following);
            let mut lost = self.tell(number, &waiting);
            lost.extend(self.tell(number, &following));
            let room = &mut self.rooms[number];
            room.changed = false;
            // Keeps the room's memory for the next round of readers.
            room.waiting = waiting;
            room.waiting.clear();
            room.following = following;
            for index in lost {
                self.close(index);
            }
        }
    }

    /// Sends what is new in a room to these slots. Returns the slots that failed.
    fn tell(&mut self, number: usize, slots: &[usize]) -> Vec<usize> {
        let last_id = self.rooms[number].last_id;
        let mut encoded = None;
        let mut lost = Vec::new();
        for &index in slots {
            let Some(slot) = &mut self.slots[index] else {
                continue;
            };
            if encoded != Some((slot.seen, slot.form)) {
                encoded = Some((slot.seen, slot.form));
                self.answers.clear();
                put_news(&mut self.answers, &mut self.body, &self.rooms[number], slot);
            }
            slot.seen = last_id;
            slot.waits = slot.form.stays();
            if !self.send_answers(index) {
                lost.push(index);
            }
        }
        lost
    }

    /// Sends the bytes in `answers`. Returns false if the client must be closed.
    fn send_answers(&self, index: usize) -> bool {
        let Some(slot) = &self.slots[index] else {
            return true;
        };
        let bytes = &self.answers;
        bytes.is_empty() || net::send(&slot.socket, bytes, SendFlags::NOSIGNAL) == Ok(bytes.len())
    }

    fn close(&mut self, index: usize) {
        if let Some(slot) = self.slots[index].take() {
            if slot.waits {
                let room = &mut self.rooms[slot.room];
                let waiting =
                    if slot.form.stays() { &mut room.following } else { &mut room.waiting };
                waiting.retain(|&other| other != index);
            }
            self.free.push(index);
        }
    }
}

/// Appends the messages that a slot has not seen, in its format.
fn put_news(answers: &mut Vec<u8>, body: &mut Vec<u8>, room: &Room, slot: &Slot) {
    match slot.form {
        Form::Plain | Form::Jsonp => {
            put_messages(body, room, slot.seen);
            put_answer(answers, body);
        }
        Form::Events => {
            let (first, entries) = room.unseen(slot.seen);
            for (id, entry) in (first..).zip(entries) {
                body.clear();
                body.extend_from_slice(b"id: k3Jx9QaZ:");
                put_number(body, id + 1);
                body.extend_from_slice(b"\ndata: ");
                body.extend_from_slice(entry);
                body.extend_from_slice(b"\n\n");
                answers.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
                answers.extend_from_slice(body);
                answers.extend_from_slice(b"\r\n");
            }
        }
        Form::Frames => {
            put_messages(body, room, slot.seen);
            // The bench sends neither less than 126 bytes nor, in a fan-out, more than 64 KiB.
            answers.extend_from_slice(&[0x81, 126]);
            answers.extend_from_slice(&(body.len() as u16).to_be_bytes());
            answers.extend_from_slice(body);
        }
    }
}

impl Room {
    /// Returns the retained messages after the first `seen`, and the id of the first one.
    fn unseen(&self, seen: u64) -> (u64, impl Iterator<Item = &Vec<u8>>) {
        let unseen = (self.last_id - seen) as usize;
        let from = self.history.len().saturating_sub(unseen);
        let first = self.last_id + 1 - (self.history.len() - from) as u64;
        (first, self.history.range(from..))
    }
}

/// Encodes the response to a read that has seen the first `seen` messages.
fn put_messages(body: &mut Vec<u8>, room: &Room, seen: u64) {
    body.clear();
    body.extend_from_slice(b"{\"messages\":[");
    for (place, entry) in room.unseen(seen).1.enumerate() {
        if place > 0 {
            body.push(b',');
        }
        body.extend_from_slice(entry);
    }
    body.extend_from_slice(b"],\"next_id\":");
    put_number(body, room.last_id + 1);
    body.extend_from_slice(b",\"epoch\":\"k3Jx9QaZ\"}");
}

fn put_answer(answers: &mut Vec<u8>, body: &[u8]) {
    answers.extend_from_slice(HEAD.as_bytes());
    put_number(answers, body.len() as u64);
    answers.extend_from_slice(b"\r\n\r\n");
    answers.extend_from_slice(body);
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
