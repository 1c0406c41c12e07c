//! What comes on a link, cut into answers, events and frames, and whose affair each is.

use std::mem;

use serde_json::Value;

use super::call::What;
use super::ledger::{Checked, Fault};
use super::link::{Close, ReadRate, Received, Token};
use super::reading::{Reading, Taken};
use super::stray::BriefClient;
use super::world::{Who, World};
use crate::client::BUFFER_BYTES;
use crate::frame::Frame;
use crate::wire::{self, Form};

impl World {
    /// Takes what is there, or some of it, and looks at each whole answer.
    pub(super) fn take(&mut self, token: Token, most: usize) -> Checked {
        let mut buffer = mem::take(&mut self.buffer);
        if buffer.is_empty() {
            // What came for one has somebody else's link looked at.
            buffer.resize(BUFFER_BYTES, 0);
        }
        let result = self.take_into(token, &mut buffer[..most]);
        self.buffer = buffer;
        result
    }

    fn take_into(&mut self, token: Token, buffer: &mut [u8]) -> Checked {
        loop {
            let Some((link, owned)) = self.links.get(token) else { return Ok(()) };
            let received = link.receive(buffer);
            let inbox = mem::take(&mut link.inbox);
            let form = owned.reading.as_ref().map(|reading| reading.form);
            let framer = match form.filter(|_| owned.is_open || begins_a_stream(&inbox)) {
                Some(Form::Events) => 1,
                Some(Form::Frames) => 2,
                _ => 0,
            };
            let mut done = 0;
            while done < inbox.len() {
                let frame = self.framers[framer]
                    .next(&inbox[done..])
                    .map_err(|error| Fault::new(error.to_string()))?;
                let Some(frame) = frame else { break };
                done += frame.bytes.len();
                self.look_at(token, &frame)?;
            }
            if let Some((link, _)) = self.links.get(token) {
                link.inbox.extend_from_slice(&inbox[done..]);
            }
            match received {
                Received::Drained => return Ok(()),
                Received::Some if buffer.len() < BUFFER_BYTES => return Ok(()),
                Received::Some => {}
                Received::End | Received::Broken => return self.ended(token, received),
            }
        }
    }

    /// Whether something came for a link that was not looked at; if so, looks at it.
    pub(super) fn look(&mut self, token: Token) -> Checked<bool> {
        let before = self.scene.ledger.sights;
        let asked = self.links.get(token).map(|(_, owned)| owned.asked.0);
        self.take(token, BUFFER_BYTES)?;
        let same = self.links.get(token).is_some_and(|(_, owned)| Some(owned.asked.0) == asked);
        Ok(!same || self.scene.ledger.sights != before)
    }

    /// A whole answer, event or frame.
    fn look_at(&mut self, token: Token, frame: &Frame) -> Checked {
        let Some((link, owned)) = self.links.get(token) else { return Ok(()) };
        if frame.is_ping() {
            link.send(&wire::PONG);
            self.count("pings");
            return Ok(());
        }
        if frame.is_farewell() {
            return Ok(());
        }
        let Some(mut reading) = owned.reading.take() else { return self.answered(token, frame) };
        let is_answer = frame.status.is_some_and(|status| status != 200 && status != 101);
        if is_answer {
            owned.reading = Some(reading);
            return self.read_refused(token, frame);
        }
        if reading.form.stays() && frame.status.is_some() {
            let again = mem::replace(&mut owned.is_open, true);
            let sent_ms = owned.asked.1;
            let number = reading.identity.as_ref().map(|identity| identity.number);
            let form = reading.form;
            owned.reading = Some(reading);
            if again {
                return Err(Fault::new("a stream begins twice"));
            }
            wire::check_opening(frame, form).map_err(|error| Fault::new(error.to_string()))?;
            if let Some(number) = number {
                self.scene.ledger.carried(number, sent_ms);
            }
            return Ok(());
        }
        let form = reading.form;
        let brought = if form == Form::Events {
            reading.take_event(frame.body(), &mut self.scene)?
        } else {
            let json = reading.json(frame.body())?;
            let value: Value = serde_json::from_slice(json)
                .map_err(|error| Fault::new(format!("no JSON ({error}): {}", frame.lossy())))?;
            if let Some(reference) = value.get("ref").and_then(Value::as_u64) {
                self.restore(token, reading);
                return self.frame_answered(token, reference, &value);
            }
            if let (Some(error), Form::Jsonp) = (value.get("error"), form) {
                let is_gone = error == "connection_ended";
                self.restore(token, reading);
                return if is_gone {
                    self.read_gone(token)
                } else {
                    Err(Fault::new(format!("refused: {value}")))
                };
            }
            reading.take(&value, &mut self.scene)?
        };
        self.note(form, &brought);
        let identity = reading.identity.clone();
        self.restore(token, reading);
        if form.stays() {
            return Ok(());
        }
        let sent_ms = self.links.get(token).map_or(0, |(_, owned)| owned.asked.1);
        if let Some(identity) = identity {
            self.scene.ledger.carried(identity.number, sent_ms);
        }
        self.read_answered(token);
        Ok(())
    }

    fn restore(&mut self, token: Token, reading: Reading) {
        if let Some((_, owned)) = self.links.get(token) {
            owned.reading = Some(reading);
        }
    }

    fn note(&mut self, form: Form, taken: &Taken) {
        *self.delivered.entry(form).or_default() += taken.messages;
        *self.counts.entry("readers told of a new numbering").or_default() += taken.resets;
        *self.counts.entry("readers told that they missed some").or_default() += taken.missed;
        if taken.messages == 0 && !form.stays() {
            self.count("reads answered with nothing");
        }
    }

    /// The server ended a link.
    fn ended(&mut self, token: Token, how: Received) -> Checked {
        let Some((link, mut owned)) = self.links.remove(token) else { return Ok(()) };
        let is_sipped = link.thirst == ReadRate::Slow;
        link.close(Close::Orderly);
        if self.is_disturbed {
            self.last_readings.extend(owned.reading.map(|reading| (owned.who, reading)));
            return Ok(());
        }
        let is_stream = owned.reading.as_ref().is_some_and(|reading| reading.form.stays());
        // Who sips may find an end behind an answer that came before it, and have asked again by then.
        let (is_cut, may_end_streams) =
            (self.was_cut(owned.opened), self.may_end_streams(owned.asked.0));
        let may_end = match owned.who {
            // Streams end with the process that has them.
            Who::Observer(room) if is_cut || is_stream && may_end_streams => {
                self.count("streams that an upgrade ended");
                self.observe(room, owned.reading.take())?;
                true
            }
            Who::ReadConn(user) if is_cut || is_stream && may_end_streams => {
                self.count("streams that an upgrade ended");
                let unanswered = owned.calls.len() as u64;
                *self.counts.entry("calls in frames that an upgrade cut").or_default() +=
                    unanswered;
                self.user(user).resumes = owned.reading.take();
                self.find_back(user)?;
                true
            }
            // Who takes an answer too slowly gets some of it.
            Who::ReadConn(user) if is_sipped && self.may_end_slow(owned.opened) => {
                self.find_back(user)?;
                true
            }
            Who::Brief(BriefClient::Vanishes) if is_stream && may_end_streams => true,
            Who::Mouth(user) if is_cut => {
                self.find_back(user)?;
                true
            }
            Who::House | Who::FormerEar(_) | Who::Brief(_) if is_cut => true,
            Who::Observer(_) | Who::House | Who::FormerEar(_) => false,
            Who::ReadConn(user) => self.may_lose_ear(user, &owned),
            Who::Mouth(user) => {
                self.users[user as usize].mouth = None;
                owned.calls.is_empty()
            }
            Who::Brief(stray) => stray.may_end(),
        };
        if may_end {
            return Ok(());
        }
        let calls: Vec<&What> = owned.calls.iter().map(|call| &call.what).collect();
        let what =
            format!("the server ended a client ({how:?}) of {:?}, {calls:?} unanswered", owned.who);
        let rooms = owned.reading.map(|reading| reading.follows).unwrap_or_default();
        Err(Fault { room: rooms.first().map(|follow| follow.room), what })
    }
}

/// Whether what came for a read that is to stay is its head; else it is refused by a whole answer.
fn begins_a_stream(bytes: &[u8]) -> bool {
    [&b"HTTP/1.1 200"[..], b"HTTP/1.1 101"].iter().any(|head| bytes.starts_with(head))
}
