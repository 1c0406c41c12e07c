//! Calls of all kinds, and their expected responses.

use serde_json::{Value, json};
use support::ensure;
use support::fault::{Checked, Fault};
use support::http;
use support::incoming::Item;
use support::message::Kind;
use support::session::{Session, Verdict};
use support::text::Text;
use support::ws;

use crate::client::{Call, Client, Owner, What};
use crate::link::Token;
use crate::read::Identity;
use crate::responses::parse_json;
use crate::world::World;

type Params = Vec<(&'static str, String)>;

const FORM_TYPE: &str = "application/x-www-form-urlencoded";

impl World {
    fn call(
        &mut self,
        token: Token,
        what: What,
        (path, params): (&str, Params),
        carries: Option<u64>,
    ) {
        let request = request(path, params, self.random.next());
        let call = Call { what, sent: self.clock.moment(), carries, reference: 0 };
        if let Some((link, client)) = self.links.get(token) {
            link.send(&request);
            client.calls.push_back(call);
        }
        self.count("calls");
    }

    /// Returns the parameters of a call that writes.
    fn params(&self, channel: usize, text: Option<Text>, who: Option<&Identity>) -> Params {
        let mut params = vec![("channel", self.names[channel].write.clone())];
        params.extend(who.into_iter().flat_map(Identity::params));
        params.extend(text.map(|text| ("message", text.write())));
        params
    }

    pub(crate) fn write(&mut self, token: Token, text: Text, who: Option<&Identity>) {
        let params = self.params(text.channel as usize, Some(text), who);
        self.call(token, What::Write(text), ("/write", params), who.map(|who| who.number));
    }

    pub(crate) fn introduce(&mut self, token: Token, text: Text, who: Option<&Identity>) {
        let params = self.params(text.channel as usize, Some(text), who);
        let number = who.map(|who| who.number);
        self.call(token, What::Introduce(text, number), ("/introduce", params), number);
    }

    /// Says goodbye to all channels, maybe with a text.
    pub(crate) fn goodbye(&mut self, token: Token, who: &Identity, text: Option<Text>) {
        let mut params: Params = who.params().into();
        params.extend(text.map(|text| ("message", text.write())));
        self.call(token, What::Goodbye(who.number), ("/goodbye", params), None);
    }

    pub(crate) fn goodbye_of(&mut self, token: Token, who: &Identity, channel: usize) {
        let params = self.params(channel, None, Some(who));
        self.call(token, What::GoodbyeOf(channel), ("/goodbye", params), Some(who.number));
    }

    pub(crate) fn members(&mut self, token: Token, channel: usize, what: What) {
        let params = vec![("channel", self.names[channel].read.clone())];
        self.call(token, what, ("/members", params), None);
    }

    /// Makes a call that has to be refused, and to change nothing.
    pub(crate) fn refusal(&mut self, token: Token, channel: usize, who: &Identity) -> Checked {
        let text = self.text(token, channel, who.number, 10);
        self.ledger.forbid(text, "its request is wrong")?;
        let names = self.names[channel].clone();
        let is_pair = names.read != names.write;
        let message = ("message", text.write());
        let choice = self.random.below(3);
        let mut carries = None;
        let (status, path, params) = match choice {
            0 if is_pair => (403, "/read", vec![("channel", names.write)]),
            1 if is_pair => (403, "/write", vec![("channel", names.read), message]),
            0 | 1 => {
                let forged = Identity { number: who.number, auth: "A".repeat(22) };
                let mut params = self.params(channel, None, Some(&forged));
                params.push(message);
                carries = Some(forged.number);
                (403, "/write", params)
            }
            _ => (400, "/write", vec![("channel", "~x".to_owned()), message]),
        };
        self.call(token, What::Refused(status), (path, params), carries);
        Ok(())
    }

    /// Writes in a frame of the WebSocket with which a user reads.
    pub(crate) fn write_frame(&mut self, token: Token, text: Text, who: &Identity) {
        let channel = &self.names[text.channel as usize].write;
        let (carries, reference) = (Some(who.number), u64::from(text.seq));
        let frame = json!({"call": "write", "channel": channel, "message": text.write(),
            "ref": reference, "connection": who.number, "auth": who.auth});
        let call = Call { what: What::Write(text), sent: self.clock.moment(), carries, reference };
        if let Some((link, client)) = self.links.get(token) {
            link.send(&ws::client_frame(ws::TEXT, frame.to_string()));
            client.calls.push_back(call);
        }
        self.count("calls in frames");
    }

    /// Handles the response to a call on a client that does not read.
    pub(crate) fn handle_response(&mut self, token: Token, item: &Item) -> Checked {
        let Some(client) = self.links.client(token) else { return Ok(()) };
        let owner = client.owner;
        let Some(call) = client.calls.pop_front() else {
            if let Owner::Brief(kind) = owner {
                return self.brief_answered(token, kind, item);
            }
            return Err(Fault::new(format!("a response to nothing, {owner:?}: {}", item.lossy())));
        };
        let value = parse_json(item.body())?;
        self.called(token, owner, &call, (item.status.unwrap_or(0), &value))
    }

    pub(crate) fn frame_answered(
        &mut self,
        token: Token,
        reference: u64,
        value: &Value,
    ) -> Checked {
        let Some(client) = self.links.client(token) else { return Ok(()) };
        let owner = client.owner;
        let call = client.calls.pop_front().filter(|call| call.reference == reference);
        let call = call.ok_or_else(|| Fault::new(format!("a response to no call: {value}")))?;
        let status = value["status"].as_u64().unwrap_or(200) as u16;
        self.called(token, owner, &call, (status, value))
    }

    fn called(
        &mut self,
        token: Token,
        owner: Owner,
        call: &Call,
        (status, value): (u16, &Value),
    ) -> Checked {
        self.note_response(call.sent.0);
        if status == 503 && self.cluster.is_some() {
            return self.call_failed(owner, call, value);
        }
        // A wrong secret of a session that has ended is not found to be wrong.
        let has_ended = status == 410 && call.carries.is_some();
        if let What::Refused(expected) = call.what
            && !has_ended
        {
            ensure!(status == expected, "answered {status} instead of {expected}: {value}");
            self.count("calls refused, as they must be");
            return self.on_called(token, owner, &call.what);
        }
        // After a server that lost its memory another session may have the number.
        let is_others = status == 403
            && matches!(owner, Owner::WriteConn(user) if self.user(user).is_stale)
            && call.carries.is_some();
        if has_ended || is_others {
            if let What::Write(text) | What::Introduce(text, _) = call.what {
                self.ledger.forbid(text, "its session had ended")?;
            }
            let (Owner::WriteConn(user) | Owner::ReadConn(user)) = owner else {
                return Err(Fault::new("410 for a client of no user"));
            };
            return self.on_session_ended(user, call.carries);
        }
        if let (410, What::Goodbye(_), Owner::WriteConn(user)) = (status, &call.what, owner) {
            self.ledger.note_possible_violation(
                "a session that says goodbye has ended, and nothing was slow",
            );
            self.be_gone(user);
            return Ok(());
        }
        ensure!(status == 200, "{:?} of {owner:?} was answered {status}: {value}", call.what);
        let number =
            |key: &str| value[key].as_u64().ok_or_else(|| Fault::new(format!("no {key}: {value}")));
        match call.what {
            What::Write(text) => {
                let from = Some(text.from).filter(|from| *from > 0);
                let place = (text.channel as usize, number("id")?);
                self.ledger.answered(place, Kind::Message, from, &text.write())?;
            }
            What::Introduce(text, again) => {
                let session = number("connection")?;
                let is_right = again.is_none_or(|again| again == session);
                ensure!(is_right, "{again:?} was introduced again, and became {value}");
                let place = (text.channel as usize, number("id")?);
                let (claim, sent_ms) = ((session, again.is_none()), call.sent.1);
                let text = text.write();
                self.ledger.introduced(claim, sent_ms, place, &text, Verdict::IfSlow)?;
                if let (None, Owner::WriteConn(user)) = (again, owner) {
                    let auth = value["auth"].as_str().unwrap_or_default().to_owned();
                    self.became(user, Identity { number: session, auth })?;
                }
            }
            What::Members(channel) => self.check_members(channel, value),
            What::Goodbye(number) => {
                ensure!(value["ok"] == true, "a goodbye was answered {value}");
                self.plan(number, Session::left);
            }
            What::GoodbyeOf(channel) => {
                ensure!(value["ok"] == true, "a goodbye was answered {value}");
                if let Some(number) = call.carries {
                    self.plan(number, |session| session.left_channel(channel));
                }
            }
            What::Barrier | What::Refused(_) => {}
        }
        self.lived(call.carries, call.sent.1);
        self.on_called(token, owner, &call.what)
    }

    /// Compares the members and readers that the server names with those that must be, where all is
    /// quiet.
    fn check_members(&mut self, channel: usize, value: &Value) {
        let members = value["members"].as_array().map_or(&[][..], Vec::as_slice);
        let members = members.iter().map(|member| {
            let number = |key: &str| member[key].as_u64().unwrap_or(0);
            (number("connection"), number("id"), member["message"].as_str().map(str::to_owned))
        });
        let its = &self.ledger.channels[channel];
        let expected = its.members.iter();
        let expected = expected.map(|(number, it)| (*number, it.id, it.text.map(|it| it.write())));
        let is_same = expected.eq(members);
        let reads =
            |client: &&Client| client.read.as_ref().is_some_and(|read| read.follows(channel));
        let readers = self.links.clients().filter(reads).map(|it| (it.owner, it.node, it.asked.1));
        let readers: Vec<_> = readers.collect();
        let fault = if !is_same && !its.has_gaps {
            format!("the members are {value}, and must be {:?}", its.members)
        } else if value["readers"] != readers.len() {
            format!("{value}, and the readers must be {readers:?}")
        } else {
            return;
        };
        self.members_differ = Some(Fault::within(channel, fault));
    }
}

/// Returns a call as a request, in one of the ways of HTTP.
pub(crate) fn request(path: &str, mut params: Params, dice: u64) -> Vec<u8> {
    let message = params.iter().position(|(name, _)| *name == "message");
    // A long text does not fit into a request line.
    let is_long = message.is_some_and(|at| params[at].1.len() > 1_000);
    match (message, if is_long { 2 } else { dice % 4 }) {
        (Some(at), 2) => {
            let (_, text) = params.remove(at);
            let target = format!("{path}?{}", http::form(&params));
            let fields = [("Content-Type", "text/plain")];
            http::request("POST", &target, &fields, Some(text.as_bytes()))
        }
        (Some(_), 3) => {
            let form = http::form(&params);
            let fields = [("Content-Type", FORM_TYPE)];
            http::request("POST", path, &fields, Some(form.as_bytes()))
        }
        _ => http::get(&format!("{path}?{}", http::form(&params))),
    }
}
