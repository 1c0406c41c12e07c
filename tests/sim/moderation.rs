//! Removals and kicks: in the model, and calls that are made to both.

use speak::hub::{self, Kick, Reason};

use super::command::Command;
use super::message::Type;
use super::model::{Entry, Model};
use super::pending::Identity;
use super::world::{World, address_of, shows};

impl Model {
    fn check_id(&self, channel: usize, id: u64) -> Result<(), hub::Error> {
        let was_given = (1..self.next_id(channel)).contains(&id);
        if was_given { Ok(()) } else { Err(hub::Error::UnknownMessage) }
    }

    pub(crate) fn remove(&mut self, channel: usize, id: u64) -> Result<u64, hub::Error> {
        self.check_id(channel, id)?;
        self.make_room(&[channel], false)?;
        Ok(self.remove_one(channel, id))
    }

    pub(crate) fn propose_removal(&mut self, channel: usize, id: u64) -> Result<(), hub::Error> {
        self.check_id(channel, id)?;
        self.make_room(&[channel], true)?;
        self.check_log(None)?;
        self.await_command(channel);
        self.propose(Command::Remove { channel, id });
        Ok(())
    }

    /// Returns whether an introduction of this channel was ever removed.
    pub(crate) fn has_removed_introduction(&self, channel: usize) -> bool {
        let is_it = |it: &Entry| it.is_removed && it.message.kind == Type::Introduction;
        self.channels[channel].log.iter().any(is_it)
    }

    pub(super) fn remove_one(&mut self, channel: usize, id: u64) -> u64 {
        let entry = self.channels[channel].log.iter_mut().find(|entry| entry.message.id == id);
        if let Some(entry) = entry {
            self.tally.count_if(entry.is_removed, "message removed again");
            entry.is_removed = true;
            if entry.message.kind == Type::Introduction {
                entry.message.text = Some(String::new());
            }
        }
        let removal = self.append(channel, Type::Removal, None, None, None);
        self.last_entry(channel).message.of = Some(id);
        removal
    }

    pub(crate) fn propose_kick(
        &mut self,
        channel: usize,
        session: u64,
        seconds: u32,
        text: Option<&str>,
    ) -> Result<(), hub::Error> {
        self.check_log(None)?;
        let text = text.map(str::to_owned);
        self.propose(Command::Kick { channel, session, seconds, text });
        Ok(())
    }

    pub(crate) fn kick(&mut self, channel: usize, session: u64, seconds: u32, text: Option<&str>) {
        let Some(introduction) = self.members(channel).get(&session).map(|its| its.id) else {
            return self.tally.count("kick of one who is not there");
        };
        let log = &self.channels[channel].log;
        let address = log.iter().find(|it| it.message.id == introduction).and_then(|it| it.address);
        if let Some(address) = address.filter(|_| seconds > 0) {
            let until_ms = self.now_ms() + 1_000 * u64::from(seconds);
            let its = self.channels[channel].bans.entry(address).or_default();
            *its = until_ms.max(*its);
            self.tally.count("address sent away");
        }
        self.append(channel, Type::Goodbye, Some(session), text, Some(Reason::Removed));
        self.tally.count("member kicked");
    }

    fn is_away(&self, channel: usize, address: Option<u64>) -> bool {
        let until_ms = address.and_then(|address| self.channels[channel].bans.get(&address));
        until_ms.is_some_and(|until_ms| self.now_ms() < *until_ms)
    }

    pub(crate) fn check_address(
        &self,
        channel: usize,
        is_owner: bool,
        address: Option<u64>,
    ) -> Result<(), hub::Error> {
        let is_away = !is_owner && self.is_away(channel, address);
        if is_away { Err(hub::Error::SentAway) } else { Ok(()) }
    }

    pub(crate) fn check_goodbye_address(
        &self,
        shown: &Identity,
        channel: Option<usize>,
        address: Option<u64>,
    ) -> Result<(), hub::Error> {
        let number = self.authenticate(shown)?;
        let mut left = self.memberships(number);
        left.retain(|its| channel.is_none_or(|channel| channel == *its));
        let is_away = left.iter().any(|channel| self.is_away(*channel, address));
        if is_away { Err(hub::Error::SentAway) } else { Ok(()) }
    }

    fn has_bans(&self) -> bool {
        let is_running = |until_ms: &u64| self.now_ms() < *until_ms;
        self.channels.iter().any(|channel| channel.bans.values().any(is_running))
    }
}

impl World {
    pub(crate) fn remove(&mut self, channel: usize, id: u64) {
        self.begin(|| format!("remove {id} from {channel}"));
        self.probe(channel);
        let key = self.names[channel].key();
        let expected = if self.log.is_some() {
            let expected = self.model.propose_removal(channel, id);
            let got = self.hub.propose_removal(self.now, &key, id);
            assert_eq!(got, expected, "propose a removal");
            expected
        } else {
            let expected = self.model.remove(channel, id);
            let got = self.hub.remove(self.now, &key, id);
            assert_eq!(got, expected, "remove");
            expected.map(drop)
        };
        self.agree("remove", &expected);
    }

    pub(crate) fn kick(&mut self, channel: usize, session: u64, seconds: u32, text: Option<&str>) {
        self.begin(|| format!("kick {session} from {channel} for {seconds} s: {text:?}"));
        let key = self.names[channel].key();
        let kick = Kick { seconds, text };
        let expected = if self.log.is_some() {
            let expected = self.model.propose_kick(channel, session, seconds, text);
            let got = self.hub.propose_kick(self.now, &key, session, kick);
            assert_eq!(got, expected, "propose a kick");
            expected
        } else {
            self.model.kick(channel, session, seconds, text);
            self.hub.kick(self.now, &key, session, kick);
            Ok(())
        };
        self.agree("kick", &expected);
    }

    /// Returns whether an address may add to a channel, as a call does before anything else.
    pub(crate) fn may_add(
        &mut self,
        what: &str,
        channel: usize,
        is_owner: bool,
        address: Option<u64>,
    ) -> bool {
        assert!(self.hub.has_bans() || !self.model.has_bans(), "it looks at no address");
        let expected = self.model.check_address(channel, is_owner, address);
        let key = self.names[channel].written(is_owner);
        let is_secret = key.is_owner();
        let got = self.hub.check_address(self.now, &key, address.map(address_of));
        // The one who writes to a feed always owns it.
        assert_eq!(got, if is_secret { Ok(()) } else { expected }, "check of an address");
        if got.is_err() {
            self.agree(what, &got);
        }
        got.is_ok()
    }

    pub(crate) fn may_leave(
        &mut self,
        shown: &Identity,
        channel: Option<usize>,
        address: Option<u64>,
    ) -> bool {
        let expected = self.model.check_goodbye_address(shown, channel, address);
        let key = channel.map(|channel| self.names[channel].written(false));
        let is_secret = key.as_ref().is_some_and(hub::ChannelKey::is_owner);
        let (now, address) = (self.now, address.map(address_of));
        let got = self.hub.check_goodbye_address(now, shows(shown), key.as_ref(), address);
        match (&got, &expected) {
            (Ok(()), Err(hub::Error::SentAway)) if is_secret => {}
            _ => assert_eq!(got, expected, "check of an address that leaves"),
        }
        let is_away = got == Err(hub::Error::SentAway);
        if is_away {
            self.agree(if channel.is_some() { "goodbye to one" } else { "goodbye" }, &got);
        }
        !is_away
    }
}
