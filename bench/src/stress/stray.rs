//! Clients that are up to no good: they vanish in the middle of things, or never come to an end.

use super::call::request;
use super::ledger::{Checked, Fault};
use super::link::{Close, ReadRate, Token};
use super::reading::{Follow, Reading, Since};
use super::said::push_encoded;
use super::world::{Due, Who, World};
use crate::frame::Frame;
use crate::wire::Form;

/// What a stray client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BriefClient {
    /// Sends byte by byte, too slowly: is told so, and ended.
    TooSlow,
    /// Was told that it is too slow.
    Told,
    /// Reads, and vanishes while it waits.
    Vanishes,
    /// Closed its side while a read waited, and waits for the other to be closed.
    HalfClosed,
}

impl BriefClient {
    /// Whether the server may end it.
    pub(super) fn may_end(self) -> bool {
        matches!(self, BriefClient::Told | BriefClient::HalfClosed)
    }
}

/// Between two bytes of a slow request.
const BYTE_EVERY_MS: u64 = 100;

impl World {
    pub(super) fn begin_stray(&mut self) -> Checked {
        let names = self.scene.names.len() as u64;
        let room = (u64::from(self.scene.loud)
            + self.random.below(names - u64::from(self.scene.loud))) as u32;
        let kind = self.random.below(7);
        self.count("stray clients");
        if kind < 5 {
            return self.vanish_at_once(kind, room);
        }
        if kind == 5 {
            let token = self.open(Who::Brief(BriefClient::TooSlow), ReadRate::Fast)?;
            let script = self.words_of(token, "/write", room, false);
            if let Some((_, owned)) = self.links.get(token) {
                owned.script = script.into();
            }
            self.stray_on(token);
            return Ok(());
        }
        let token = self.open(Who::Brief(BriefClient::Vanishes), ReadRate::Fast)?;
        let since = Since::Now(self.scene.ledger.frontier(room));
        let form = if self.random.percent(50) { Form::Plain } else { Form::Events };
        self.ask(token, Reading::new(form, vec![Follow { room, since }], None));
        let after_ms = self.random.between(1, 300);
        self.set_timer(after_ms, Due::Brief(token));
        Ok(())
    }

    /// A request of a client that nobody will answer for; if it is never whole, it must have no effect.
    fn words_of(&mut self, token: Token, path: &str, room: u32, is_whole: bool) -> Vec<u8> {
        let said = self.word(token, room, 0, 20);
        if !is_whole {
            self.scene.ledger.refused(said);
        }
        let mut query = String::from("channel=");
        push_encoded(&mut query, &self.scene.names[room as usize].write);
        request(path, &query, Some(&said.text()), self.random.next())
    }

    fn vanish_at_once(&mut self, kind: u64, room: u32) -> Checked {
        let token = self.open(Who::Brief(BriefClient::Vanishes), ReadRate::Fast)?;
        let is_whole = kind != 1;
        let path = if kind == 2 { "/introduce" } else { "/write" };
        let mut bytes =
            if kind == 0 { Vec::new() } else { self.words_of(token, path, room, is_whole) };
        if !is_whole {
            let some = self.random.below(bytes.len() as u64);
            bytes.truncate(some as usize);
        }
        if let Some((link, _)) = self.links.get(token) {
            link.send(&bytes);
        }
        if self.random.percent(50) {
            self.drop_link(Some(token));
        } else {
            // Once it is connected for sure.
            let after_ms = self.random.between(1, 20);
            self.set_timer(after_ms, Due::Brief(token));
        }
        Ok(())
    }

    /// A stray client goes on.
    pub(super) fn stray_on(&mut self, token: Token) {
        let Some((link, owned)) = self.links.get(token) else { return };
        match owned.who {
            Who::Brief(BriefClient::TooSlow) => {
                // The last byte never comes.
                if owned.script.len() > 1
                    && let Some(byte) = owned.script.pop_front()
                {
                    link.send(&[byte]);
                }
                self.set_timer(BYTE_EVERY_MS, Due::Brief(token));
            }
            Who::Brief(BriefClient::Vanishes) => self.drop_link(Some(token)),
            _ => {}
        }
    }

    /// An answer to a stray client.
    pub(super) fn stray_answered(
        &mut self,
        token: Token,
        stray: BriefClient,
        frame: &Frame,
    ) -> Checked {
        match (stray, frame.status) {
            (BriefClient::TooSlow, Some(408)) => {
                self.count("requests refused as too slow");
                if let Some((_, owned)) = self.links.get(token) {
                    owned.who = Who::Brief(BriefClient::Told);
                }
                // It goes once it has heard; or at once, by its own will.
                if self.random.percent(50) {
                    self.close(Some(token), Close::Orderly);
                }
                Ok(())
            }
            (BriefClient::Vanishes, Some(200)) => Ok(()),
            _ => Err(Fault::new(format!("{stray:?} is answered: {}", frame.lossy()))),
        }
    }
}
