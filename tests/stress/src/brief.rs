//! Brief clients, which disappear in the middle of things, or never come to an end.

use support::fault::{Checked, Fault};
use support::incoming::Item;

use crate::calls::request;
use crate::client::{BriefClient, Owner};
use crate::link::{Close, ReadRate, Token};
use crate::read::{Form, Read};
use crate::user::Due;
use crate::world::World;

/// Interval between two bytes of a slow request.
const BYTE_INTERVAL_MS: u64 = 100;

impl World {
    pub(crate) fn begin_brief(&mut self) -> Checked {
        let channel = self.any_channel();
        let choice = self.random.below(7);
        self.count("brief clients");
        let kind = if choice == 5 { BriefClient::TooSlow } else { BriefClient::Vanishes };
        let token = self.open(Owner::Brief(kind), ReadRate::Fast)?;
        match choice {
            0..5 => self.vanish_at_once(token, choice, channel),
            5 => {
                let script = self.brief_request(token, "/write", channel, false)?;
                if let Some(client) = self.links.client(token) {
                    client.script = script.into();
                }
                self.continue_brief(token);
                Ok(())
            }
            _ => {
                let form = if self.random.percent(50) { Form::LongPoll } else { Form::Events };
                self.ask(token, Read::new(form, self.subscribe_now(channel), None));
                let after_ms = self.random.between(1, 300);
                self.set_timer(after_ms, Due::Brief(token));
                Ok(())
            }
        }
    }

    /// Returns a request without a session; if it will never be whole, it must have no effect.
    fn brief_request(
        &mut self,
        token: Token,
        path: &str,
        channel: usize,
        is_whole: bool,
    ) -> Checked<Vec<u8>> {
        let text = self.text(token, channel, 0, 20);
        if !is_whole {
            self.ledger.forbid(text, "its request was never whole")?;
        }
        let channel = ("channel", self.names[channel].write.clone());
        Ok(request(path, vec![channel, ("message", text.write())], self.random.next()))
    }

    fn vanish_at_once(&mut self, token: Token, choice: u64, channel: usize) -> Checked {
        let (is_silent, is_whole) = (choice == 0, choice != 1);
        let path = if choice == 2 { "/introduce" } else { "/write" };
        if !is_silent {
            let mut bytes = self.brief_request(token, path, channel, is_whole)?;
            if !is_whole {
                bytes.truncate(self.random.index(bytes.len()));
            }
            if let Some((link, _)) = self.links.get(token) {
                link.send(&bytes);
            }
        }
        if self.random.percent(50) {
            self.drop_link(Some(token));
        } else {
            // It is certainly connected by then.
            let after_ms = self.random.between(1, 20);
            self.set_timer(after_ms, Due::Brief(token));
        }
        Ok(())
    }

    pub(crate) fn continue_brief(&mut self, token: Token) {
        let Some((link, client)) = self.links.get(token) else { return };
        match client.owner {
            Owner::Brief(BriefClient::TooSlow) => {
                // The last byte never comes.
                if client.script.len() > 1
                    && let Some(byte) = client.script.pop_front()
                {
                    link.send(&[byte]);
                }
                self.set_timer(BYTE_INTERVAL_MS, Due::Brief(token));
            }
            Owner::Brief(BriefClient::Vanishes) => self.drop_link(Some(token)),
            _ => {}
        }
    }

    pub(crate) fn brief_answered(
        &mut self,
        token: Token,
        kind: BriefClient,
        item: &Item,
    ) -> Checked {
        match (kind, item.status) {
            (BriefClient::TooSlow, Some(408)) => {
                self.count("requests refused as too slow");
                if let Some(client) = self.links.client(token) {
                    client.owner = Owner::Brief(BriefClient::Rejected);
                }
                // It closes once it has seen that, or at once.
                if self.random.percent(50) {
                    self.close(Some(token), Close::Orderly);
                }
                Ok(())
            }
            (BriefClient::Vanishes, Some(200)) => Ok(()),
            (BriefClient::Vanishes, Some(503)) if self.cluster.is_some() => {
                self.check_refusal(&format!("a call of {kind:?}"))
            }
            _ => Err(Fault::new(format!("{kind:?} is answered: {}", item.lossy()))),
        }
    }
}
