//! Responses, events and frames as they come, and whose affair each is.

use std::mem;

use serde_json::Value;
use support::ensure;
use support::fault::{Checked, Fault};
use support::incoming::Item;
use support::ws;

use crate::client::{BriefClient, Client, Owner, What};
use crate::link::{Close, ReadRate, Received, Token};
use crate::read::Form;
use crate::user::{LeaveMode, State};
use crate::world::{BUFFER_BYTES, World};

pub(crate) fn parse_json(bytes: &[u8]) -> Checked<Value> {
    let value = serde_json::from_slice(bytes);
    value.map_err(|error| Fault::new(format!("not JSON, {error}: {}", bytes.escape_ascii())))
}

impl World {
    /// Receives all or `most` bytes of a client, and handles each whole item.
    pub(crate) fn take(&mut self, token: Token, most: usize) -> Checked {
        let mut buffer = mem::take(&mut self.buffer);
        if buffer.is_empty() {
            // An item of one client has another's link looked at.
            buffer.resize(BUFFER_BYTES, 0);
        }
        let result = self.take_into(token, &mut buffer[..most]);
        self.buffer = buffer;
        result
    }

    fn take_into(&mut self, token: Token, buffer: &mut [u8]) -> Checked {
        loop {
            let Some((link, _)) = self.links.get(token) else { return Ok(()) };
            let received = link.receive(buffer);
            let mut incoming = mem::take(&mut link.incoming);
            while let Some(item) = incoming.next()? {
                self.handle(token, &item)?;
            }
            if let Some((link, _)) = self.links.get(token) {
                link.incoming = incoming;
            }
            match received {
                Received::Drained => return Ok(()),
                Received::Some if buffer.len() < BUFFER_BYTES => return Ok(()),
                Received::Some => {}
                Received::Malformed(error) => return Err(Fault::new(error)),
                Received::End | Received::Broken => return self.on_closed(token, &received),
            }
        }
    }

    /// Takes all of a client, and says whether that was anything.
    pub(crate) fn look(&mut self, token: Token) -> Checked<bool> {
        let before = self.ledger.sights;
        let asked = self.links.client(token).map(|client| client.asked.0);
        self.take(token, BUFFER_BYTES)?;
        let is_same = self.links.client(token).is_some_and(|client| Some(client.asked.0) == asked);
        Ok(!is_same || self.ledger.sights != before)
    }

    fn handle(&mut self, token: Token, item: &Item) -> Checked {
        let Some((link, client)) = self.links.get(token) else { return Ok(()) };
        if item.is_frame(ws::PING) {
            link.send(&ws::client_frame(ws::PONG, item.body()));
            self.count("pings");
            return Ok(());
        }
        if item.is_frame(ws::CLOSE) {
            return Ok(());
        }
        let Some(read) = &mut client.read else { return self.handle_response(token, item) };
        let (form, sent_ms) = (read.form, client.asked.1);
        let session = read.identity.as_ref().map(|identity| identity.number);
        match item.status {
            None | Some(200 | 101) => {}
            Some(410) => return self.read_gone(token),
            Some(503) if self.cluster.is_some() => return self.read_failed(token),
            Some(_) => return Err(Fault::new(format!("a read was refused: {}", item.lossy()))),
        }
        if form.is_stream() && item.status.is_some() {
            ensure!(!mem::replace(&mut client.is_open, true), "a stream begins twice");
            form.check_head(item)?;
            self.lived(session, sent_ms);
            return Ok(());
        }
        if item.ends_events() {
            client.has_ended = true;
            return Ok(());
        }
        let content = if form == Form::Events {
            self.ledger.take_event(&mut read.reader, &item.event()?)?
        } else {
            let value = parse_json(read.json(item.body())?)?;
            if let Some(reference) = value["ref"].as_u64() {
                return self.frame_answered(token, reference, &value);
            }
            if let (Some(error), Form::Jsonp) = (value.get("error"), form) {
                if error == "over_capacity" && self.cluster.is_some() {
                    return self.read_failed(token);
                }
                ensure!(error == "connection_ended", "refused: {value}");
                return self.read_gone(token);
            }
            self.ledger.take_answer(&mut read.reader, &value)?
        };
        self.figures.add(form.deliveries(), content.messages);
        self.figures.add("readers that got `reset`", content.resets);
        self.figures.add("readers that got `missed`", content.missed);
        if form.is_stream() {
            return Ok(());
        }
        if content.messages == 0 {
            self.count("reads answered with nothing");
        }
        self.lived(session, sent_ms);
        self.read_answered(token);
        Ok(())
    }

    fn on_closed(&mut self, token: Token, how: &Received) -> Checked {
        let Some((link, mut client)) = self.links.remove(token) else { return Ok(()) };
        let is_slow = link.rate == ReadRate::Slow;
        let is_handshaking = link.is_handshaking();
        let is_untold = *how == Received::End && !link.has_told_end();
        link.close(Close::Orderly);
        if self.is_disturbed {
            self.lost_reads.extend(client.read.map(|read| (client.owner, read)));
            return Ok(());
        }
        if is_untold {
            self.count("ends that TLS did not tell");
        }
        let (now, takeover) = (self.clock.now, &self.takeover);
        // The server closes a client whose handshake takes longer than a request may.
        let is_late = is_handshaking && self.clock.was_slow();
        let is_cut = takeover.was_cut(client.opened, now) || is_late;
        let may_end_slow = is_slow && takeover.may_end_slow(client.opened, now);
        // A slow reader may find an end after a response that came before it, and have asked again
        // by then.
        let is_reloading = client.is_stream() && self.may_end_reads(client.node);
        let is_stream_cut = is_late
            || is_reloading
            || (client.is_stream() && takeover.may_end_stream(client.asked.0, now));
        // Streams end with their process.
        let is_read_cut = is_cut || is_stream_cut;
        let may_end = match client.owner {
            Owner::Observer(channel) if is_read_cut => {
                let is_events = client.read.as_ref().is_some_and(|it| it.form == Form::Events);
                let is_whole = is_reloading || client.has_ended || !(is_events && client.is_open);
                ensure!(is_whole, "an upgrade cut an event stream before its last chunk");
                self.count("streams that an upgrade ended");
                self.observe(channel, client.read.take())?;
                true
            }
            Owner::ReadConn(user) if is_read_cut => {
                self.count("streams that an upgrade ended");
                self.figures.add("calls in frames that an upgrade cut", client.calls.len() as u64);
                self.user(user).resumes = client.read.take();
                self.find_back(user)?;
                true
            }
            // A reader that takes a response too slowly gets some of it.
            Owner::ReadConn(user) if may_end_slow => {
                self.find_back(user)?;
                true
            }
            Owner::Brief(BriefClient::Vanishes) if is_stream_cut => true,
            Owner::WriteConn(user) if is_cut => {
                self.find_back(user)?;
                true
            }
            Owner::Harness | Owner::Auditor | Owner::ReplacedConn(_) | Owner::Brief(_)
                if is_cut =>
            {
                true
            }
            Owner::Observer(_) | Owner::Harness | Owner::Auditor | Owner::ReplacedConn(_) => false,
            Owner::ReadConn(index) => {
                let user = self.user(index);
                user.read_conn = None;
                let says_goodbye = matches!(user.state, State::Leaving(LeaveMode::Goodbye, _));
                // A stream ends with its session.
                let has_ended = client.is_stream() && says_goodbye;
                if has_ended {
                    self.be_gone_unless_calling(index);
                }
                has_ended
            }
            Owner::WriteConn(user) => {
                self.user(user).write_conn = None;
                client.calls.is_empty()
            }
            Owner::Brief(kind) => matches!(kind, BriefClient::Rejected | BriefClient::HalfClosed),
        };
        if is_late {
            self.count("handshakes that took too long on a slow machine");
        }
        let how = if is_handshaking { "in its handshake".to_owned() } else { format!("{how:?}") };
        if may_end { Ok(()) } else { Err(unexpected_end(&client, &how)) }
    }
}

fn unexpected_end(client: &Client, how: &str) -> Fault {
    let (owner, calls) = (client.owner, client.calls.iter().map(|call| &call.what));
    let calls: Vec<&What> = calls.collect();
    let what = format!("the server closed a client ({how}) of {owner:?}, {calls:?} unanswered");
    let subscriptions = client.read.iter().flat_map(|read| &read.reader.subscriptions);
    Fault { channel: subscriptions.map(|its| its.channel).next(), what }
}
