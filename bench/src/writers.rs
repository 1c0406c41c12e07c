//! The writers of a crowd: a few connections with one write at a time each.

use std::collections::VecDeque;
use std::time::Instant;

use support::incoming::{Cutter, Mode};

use crate::client::{BUFFER_BYTES, Client, Poller};
use crate::peer_wire::Greeting;
use crate::result::{Result, STALL};
use crate::server::Target;
use crate::wire::{self, Cursor, Dialect, Form, Template};

pub(crate) const WRITER_TOKENS: u64 = 1 << 32;
/// Room of the writers that have to be in one: without readers.
const OF_NO_READER: u32 = 99_999;

#[derive(Clone, Copy)]
pub(crate) struct Write {
    pub(crate) room: u32,
    pub(crate) seq: u32,
}

pub(crate) struct Writer {
    pub(crate) client: Client,
    pub(crate) busy: Option<Write>,
}

pub(crate) struct Writers {
    /// A room's writers are at the target of its number, divided by that of all targets.
    pub(crate) targets: Vec<Target>,
    pub(crate) all: Vec<Writer>,
    /// In rotation, so that all writers are used.
    pub(crate) idle: VecDeque<usize>,
    pub(crate) queue: VecDeque<Write>,
    pub(crate) templates: Vec<Template>,
    pub(crate) cutter: Cutter,
    /// Room, id and sequence number of each write, where the server returns ids.
    pub(crate) ids: Vec<(u32, u64, u32)>,
}

impl Writers {
    /// Connects so many writers, to each target in turn.
    pub(crate) fn new(targets: &[Target], rooms: usize, writers: usize) -> Result<Self> {
        let target = targets.first().ok_or("writers without a server")?;
        let writer = |number: u32| -> Result<Writer> {
            let target = &targets[number as usize % targets.len()];
            Ok(Writer { client: connect_writer(target, number)?, busy: None })
        };
        let is_framed = target.dialect.writes_frames();
        Ok(Self {
            targets: targets.to_vec(),
            all: (0..writers as u32).map(writer).collect::<Result<_>>()?,
            idle: (0..writers).collect(),
            queue: VecDeque::new(),
            templates: (0..rooms as u32).map(|room| target.dialect.write(room, 1)).collect(),
            cutter: Cutter::new(if is_framed { Mode::Frames } else { Mode::Responses }),
            ids: Vec::new(),
        })
    }

    /// Gives pending writes to free writers.
    pub(crate) fn pump(&mut self) -> Result<()> {
        let targets = self.targets.len();
        while let Some(&write) = self.queue.front() {
            let is_at_room = |index: &usize| index % targets == write.room as usize % targets;
            let Some(place) = self.idle.iter().position(is_at_room) else { break };
            let index = self.idle[place];
            let template = &mut self.templates[write.room as usize];
            template.number(0, write.seq);
            self.all[index].client.send(&template.bytes)?;
            self.all[index].busy = Some(write);
            self.idle.remove(place);
            self.queue.pop_front();
        }
        Ok(())
    }

    pub(crate) fn receive(
        &mut self,
        index: usize,
        buffer: &mut [u8],
        poller: &Poller,
    ) -> Result<()> {
        let Writer { client, busy } = &mut self.all[index];
        let target = self.targets[index % self.targets.len()];
        let (dialect, idle, ids) = (target.dialect, &mut self.idle, &mut self.ids);
        let mut is_answered = false;
        client.receive(&mut self.cutter, buffer, |client, frame| {
            if let Some(Greeting::Reply(bytes)) = dialect.greeting(frame, None) {
                return client.send(&bytes);
            }
            let write = busy.take().ok_or("a write was answered twice")?;
            if let Some(id) = dialect.written_id(frame)? {
                ids.push((write.room, id, write.seq));
            }
            idle.push_back(index);
            is_answered = true;
            Ok(())
        })?;
        if is_answered && dialect.closes_after_write() {
            *client = connect_writer(&target, index as u32)?;
            poller.add(client, WRITER_TOKENS + index as u64)?;
        }
        Ok(())
    }
}

fn connect_writer(target: &Target, number: u32) -> Result<Client> {
    let writes = Target { address: target.publish.unwrap_or(target.address), ..*target };
    let mut client = Client::connect(&writes, number)?;
    open_writer(target.dialect, &mut client)?;
    Ok(client)
}

/// Opens the WebSocket of a writer, where writes are frames.
fn open_writer(dialect: Dialect, client: &mut Client) -> Result<()> {
    if !dialect.writes_frames() {
        return Ok(());
    }
    client.send(&dialect.poll(OF_NO_READER, &Cursor::Start, Form::Frames))?;
    let (mut cutter, mut buffer) = (Cutter::new(Mode::Frames), vec![0; BUFFER_BYTES]);
    let deadline = Instant::now() + STALL;
    let mut has_begun = false;
    while !has_begun {
        client.receive(&mut cutter, &mut buffer, |client, item| {
            if item.status.is_some() {
                has_begun = dialect.begins_with_head();
                return wire::check_opening(item, Form::Frames);
            }
            match dialect.greeting(item, None) {
                Some(Greeting::Reply(bytes)) => client.send(&bytes),
                Some(Greeting::Begun) => {
                    has_begun = true;
                    Ok(())
                }
                None => Err(format!("a writer got {}", item.lossy()).into()),
            }
        })?;
        if Instant::now() > deadline {
            return Err("a writer cannot open its WebSocket".into());
        }
    }
    Ok(())
}
