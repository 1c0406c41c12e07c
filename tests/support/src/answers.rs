//! The half of the ledger that takes answers of reads and events of streams.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::ensure;
use crate::fault::{Checked, Fault};
use crate::ledger::Ledger;
use crate::message::{Kind, Message, Slice, slices};
use crate::reader::{Reader, Since, Subscription, Terms};
use crate::sse::Event;

#[derive(Default, Debug)]
pub struct Taken {
    pub messages: u64,
    /// Number of channels with `reset`.
    pub resets: u64,
    /// Number of channels with `missed`.
    pub missed: u64,
}

impl Ledger {
    /// Takes the answer of a read, or a frame of a stream.
    pub fn take_answer(&mut self, reader: &mut Reader, answer: &Value) -> Checked<Taken> {
        let epoch = answer["epoch"].as_str();
        self.enter_epoch(reader, epoch.ok_or_else(|| Fault::new(format!("no epoch: {answer}")))?)?;
        let slices = slices(answer, &reader.names())?;
        let mut taken = Taken::default();
        for (its, slice) in reader.subscriptions.iter_mut().zip(&slices) {
            let result = self.take_slice(its, slice, (reader.observes, reader.terms));
            result.map_err(|fault| fault.or_within(its.channel))?;
            taken.messages += slice.messages.len() as u64;
            taken.missed += u64::from(slice.is_missed);
            taken.resets += u64::from(slice.is_reset);
        }
        Ok(taken)
    }

    fn take_slice(
        &mut self,
        its: &mut Subscription,
        slice: &Slice,
        (observes, terms): (bool, Terms),
    ) -> Checked {
        let (channel, asked) = (its.channel, its.since);
        its.take_slice(slice, terms)?;
        let since = if slice.is_reset { Since::All } else { asked };
        let is_large = self.channels[channel].is_large;
        if let Some(history) = self.rules.history.filter(|_| !is_large) {
            check_history(since, slice, history)?;
        }
        if observes {
            self.skip_to(channel, slice.first_id())?;
        }
        for message in &slice.messages {
            self.see(channel, message)?;
        }
        let is_whole = since == Since::All && !slice.is_missed && !is_large;
        if is_whole { self.check_members(channel, slice) } else { Ok(()) }
    }

    /// A reader from the beginning learns from the messages which sessions are members.
    fn check_members(&self, channel: usize, slice: &Slice) -> Checked {
        let its = &self.channels[channel];
        if its.judged + 1 != slice.next_id || its.has_gaps {
            return Ok(());
        }
        if slice.messages.iter().any(|message| message.kind == Kind::Removed) {
            // It may have been a goodbye.
            return Ok(());
        }
        let mut learned = BTreeMap::new();
        for message in &slice.messages {
            let from = message.from.unwrap_or(0);
            match message.kind {
                Kind::Introduction => _ = learned.insert(from, message.id),
                Kind::Goodbye(_) => _ = learned.remove(&from),
                Kind::Message | Kind::Removal(_) | Kind::Removed => {}
            }
        }
        let members = its.members.iter().map(|(number, member)| (*number, member.id));
        let members: BTreeMap<_, _> = members.collect();
        let next_id = slice.next_id;
        ensure!(learned == members, "at {next_id} a reader learns of {learned:?}, not {members:?}");
        Ok(())
    }

    /// Takes an event or a heartbeat of a stream.
    pub fn take_event(&mut self, reader: &mut Reader, event: &Event) -> Checked<Taken> {
        let mut taken = Taken::default();
        if event.is_heartbeat {
            return Ok(taken);
        }
        let retry = event.is_ready().then_some("1000");
        ensure!(event.retry.as_deref() == retry, "another time to wait: {event:?}");
        let is_gap = matches!(event.kind.as_deref(), Some("missed" | "reset"));
        ensure!(event.id.is_some() != is_gap, "a cursor, or none, out of place: {event:?}");
        let Some(mut data) = event.json()? else { return Ok(taken) };
        let name = data.as_object_mut().and_then(|data| data.remove("channel"));
        let is_empty = data.as_object().is_some_and(Map::is_empty);
        ensure!(is_empty == event.kind.is_some(), "the data does not fit: {event:?}");
        let names = reader.names();
        let at = match &name {
            None if names.len() == 1 => Some(0),
            Some(name) if names.len() > 1 => names.iter().position(|its| name == its),
            _ => None,
        };
        let at = at.filter(|_| !event.is_ready());
        if let Some((epoch, cursors)) = event.cursors()? {
            self.enter_epoch(reader, epoch)?;
            let result = reader.take_cursors(cursors, at);
            result.map_err(|fault| Fault::new(format!("{fault}: {event:?}")))?;
        }
        if event.is_ready() {
            ensure!(name.is_none(), "a stream begins with a channel: {event:?}");
            return Ok(taken);
        }
        let Some(at) = at else {
            let names = reader.names();
            return Err(Fault::new(format!("the channel is not one of {names:?}: {event:?}")));
        };
        let its = &mut reader.subscriptions[at];
        match event.kind.as_deref() {
            None => {
                let message = Message::parse(&data)?;
                let cursor = reader.cursors.get(at).copied().unwrap_or(0);
                let channel = its.channel;
                let result = its.take_message(&message, cursor);
                result.map_err(|fault| fault.or_within(channel))?;
                if reader.observes && its.id() == Some(message.id + 1) {
                    self.skip_to(channel, message.id)?;
                }
                self.see(channel, &message).map_err(|fault| fault.or_within(channel))?;
                taken.messages = 1;
            }
            Some("missed") => {
                its.take_gap();
                let channel = its.channel;
                if reader.observes {
                    self.forget_members(channel, true);
                }
                taken.missed = 1;
            }
            Some("reset") => {
                its.take_reset(reader.terms.may_be_ahead)?;
                taken.resets = 1;
            }
            Some(_) => return Err(Fault::new(format!("an unknown event: {event:?}"))),
        }
        Ok(taken)
    }

    /// A server has one epoch. After it has lost its memory it has another one, never one of the
    /// past.
    fn enter_epoch(&mut self, reader: &mut Reader, epoch: &str) -> Checked {
        let is_past = self.past_epochs.iter().any(|past| past == epoch);
        ensure!(!is_past, "the epoch {epoch} is one of the past");
        let current = self.epoch.get_or_insert_with(|| epoch.to_owned());
        ensure!(current == epoch, "the epoch is {epoch} and was {current}");
        reader.enter_epoch(epoch);
        Ok(())
    }
}

/// All that is retained must be in the answer to a read that asks for it.
fn check_history(since: Since, slice: &Slice, history: u64) -> Checked {
    let in_row = slice.next_id - slice.first_id();
    let retained = history.min(slice.next_id - 1);
    let least = match since {
        Since::All => retained,
        Since::Last(count) => retained.min(count),
        // As many have come since.
        Since::Id(_) if slice.is_missed => history,
        Since::Id(_) | Since::Next(_) => 0,
    };
    ensure!(in_row >= least, "{in_row} messages for a read from {since:?}, not {least}");
    Ok(())
}
