//! Calls of all kinds, and what their answers must be.

use std::fmt::Write as _;
use std::time::Instant;

use serde_json::{Value, json};

use super::ledger::{Checked, Fault, Kind};
use super::link::{Close, Token};
use super::reading::{Identity, number, text};
use super::said::{Parsed, push_encoded};
use super::world::{Who, World};
use crate::frame::Frame;
use crate::wire::Form;

/// What was called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum What {
    Write(Parsed),
    /// Of somebody new, or of a connection.
    Introduce(Parsed, Option<u64>),
    Goodbye,
    GoodbyeOf(u32),
    Members(u32),
    /// The same, only so that what was sent before is done.
    Barrier,
    /// What is to be refused with this status.
    Refused(u16),
}

pub(super) struct Call {
    pub(super) what: What,
    sent: (Instant, u64),
    /// The connection that it carries.
    carries: Option<u64>,
    /// In a frame: its number.
    reference: u64,
}

impl World {
    /// Sends a call; its parameters are encoded, but for the message.
    fn call(
        &mut self,
        token: Token,
        what: What,
        path: &str,
        query: &str,
        message: Option<&str>,
        carries: Option<u64>,
    ) {
        let request = request(path, query, message, self.random.next());
        let call = Call { what, sent: (self.now, self.now_ms), carries, reference: 0 };
        if let Some((link, owned)) = self.links.get(token) {
            link.send(&request);
            owned.calls.push_back(call);
        }
        self.count("calls");
    }

    fn channel(&self, room: u32) -> String {
        let mut query = String::from("channel=");
        push_encoded(&mut query, &self.scene.names[room as usize].write);
        query
    }

    pub(super) fn write(&mut self, token: Token, said: Parsed, who: Option<&Identity>) {
        let query = self.channel(said.room) + &who.map(Identity::query).unwrap_or_default();
        let carries = who.map(|who| who.number);
        self.call(token, What::Write(said), "/write", &query, Some(&said.text()), carries);
    }

    pub(super) fn introduce(&mut self, token: Token, said: Parsed, who: Option<&Identity>) {
        let query = self.channel(said.room) + &who.map(Identity::query).unwrap_or_default();
        let carries = who.map(|who| who.number);
        self.call(
            token,
            What::Introduce(said, carries),
            "/introduce",
            &query,
            Some(&said.text()),
            carries,
        );
    }

    pub(super) fn goodbye(&mut self, token: Token, who: &Identity, last_word: Option<Parsed>) {
        let words = last_word.map(|said| said.text());
        self.call(token, What::Goodbye, "/goodbye", &who.query()[1..], words.as_deref(), None);
    }

    pub(super) fn goodbye_of(&mut self, token: Token, who: &Identity, room: u32) {
        let query = self.channel(room) + &who.query();
        self.call(token, What::GoodbyeOf(room), "/goodbye", &query, None, Some(who.number));
    }

    pub(super) fn members(&mut self, token: Token, room: u32, what: What) {
        let mut query = String::from("channel=");
        push_encoded(&mut query, &self.scene.names[room as usize].read);
        self.call(token, what, "/members", &query, None, None);
    }

    /// A call that has to be refused, and change nothing.
    pub(super) fn refusal(&mut self, token: Token, room: u32, who: &Identity) {
        let names = &self.scene.names[room as usize];
        let is_pair = names.read != names.write;
        let (mut read, mut write) = (String::from("channel="), String::from("channel="));
        push_encoded(&mut write, if is_pair { &names.read } else { &names.write });
        push_encoded(&mut read, &names.write);
        let forged = format!("{write}&connection={}&auth=AAAAAAAAAAAAAAAAAAAAAA", who.number);
        let said = self.word(token, room, who.number, 10);
        self.scene.ledger.refused(said);
        let words = said.text();
        match self.random.below(3) {
            0 if is_pair => self.call(token, What::Refused(403), "/read", &read, None, None),
            1 if is_pair => {
                self.call(token, What::Refused(403), "/write", &write, Some(&words), None);
            }
            0 | 1 => self.call(token, What::Refused(403), "/write", &forged, Some(&words), None),
            _ => self.call(token, What::Refused(400), "/write", "channel=~x", Some(&words), None),
        }
    }

    /// A write in a frame of the WebSocket with which somebody reads.
    pub(super) fn write_frame(&mut self, token: Token, said: Parsed, who: &Identity) {
        let channel = &self.scene.names[said.room as usize].write;
        let reference = u64::from(said.seq);
        let frame = json!({"call": "write", "channel": channel, "message": said.text(), "ref": reference,
            "connection": who.number, "auth": who.auth});
        let call = Call {
            what: What::Write(said),
            sent: (self.now, self.now_ms),
            carries: Some(who.number),
            reference,
        };
        if let Some((link, owned)) = self.links.get(token) {
            link.send(&masked(frame.to_string().as_bytes()));
            owned.calls.push_back(call);
        }
        self.count("calls in frames");
    }

    /// An answer to a call on a link that does not read.
    pub(super) fn answered(&mut self, token: Token, frame: &Frame) -> Checked {
        let Some((_, owned)) = self.links.get(token) else { return Ok(()) };
        let who = owned.who;
        let Some(call) = owned.calls.pop_front() else {
            if let Who::Brief(stray) = who {
                return self.stray_answered(token, stray, frame);
            }
            return Err(Fault::new(format!(
                "an answer to nothing, for {who:?}: {}",
                frame.lossy()
            )));
        };
        let status = frame.status.unwrap_or(0);
        let value: Value = serde_json::from_slice(frame.body())
            .map_err(|error| Fault::new(format!("no JSON ({error}): {}", frame.lossy())))?;
        self.came(token, who, &call, status, &value)
    }

    /// An answer in a frame.
    pub(super) fn frame_answered(
        &mut self,
        token: Token,
        reference: u64,
        value: &Value,
    ) -> Checked {
        let Some((_, owned)) = self.links.get(token) else { return Ok(()) };
        let who = owned.who;
        let call = owned.calls.pop_front().filter(|call| call.reference == reference);
        let Some(call) = call else {
            return Err(Fault::new(format!("an answer to no call: {value}")));
        };
        let status = value.get("status").and_then(Value::as_u64).unwrap_or(200) as u16;
        self.came(token, who, &call, status, value)
    }

    fn came(&mut self, token: Token, who: Who, call: &Call, status: u16, value: &Value) -> Checked {
        self.note_answer(call.sent.0);
        if let What::Refused(expected) = call.what {
            if status == expected {
                self.count("calls refused, as they must be");
                return self.spoke(token, who, &call.what);
            }
            return Err(Fault::new(format!("answered {status} instead of {expected}: {value}")));
        }
        // Another may have the number by now, after a server that began anew.
        let is_others = status == 403
            && matches!(who, Who::Mouth(user) if self.user(user).is_stale)
            && call.carries.is_some();
        if status == 410 && call.carries.is_some() || is_others {
            if let What::Write(said) | What::Introduce(said, _) = call.what {
                self.scene.ledger.refused(said);
            }
            let (Who::Mouth(user) | Who::ReadConn(user)) = who else {
                return Err(Fault::new("410 for nobody"));
            };
            return self.is_ended(user, call.carries);
        }
        if let (410, What::Goodbye, Who::Mouth(user)) = (status, &call.what, who) {
            self.scene.ledger.possible_violation(Fault::new(
                "one who says goodbye has ended already, and nothing was slow",
            ));
            self.be_gone(user);
            return Ok(());
        }
        if status != 200 {
            return Err(Fault::new(format!(
                "{:?} of {who:?} was answered {status}: {value}",
                call.what
            )));
        }
        let id = || number(value, "id").ok_or_else(|| Fault::new(format!("no id: {value}")));
        match call.what {
            What::Write(said) => self.scene.ledger.answered(id()?, Kind::Message, said)?,
            What::Introduce(said, again) => {
                let connection = number(value, "connection")
                    .ok_or_else(|| Fault::new(format!("nobody: {value}")))?;
                if again.is_some_and(|again| again != connection) {
                    return Err(Fault::new(format!(
                        "introduced {again:?} again, and became {value}"
                    )));
                }
                self.scene.ledger.introduced(
                    connection,
                    again.is_none(),
                    call.sent.1,
                    id()?,
                    said,
                )?;
                if let (None, Who::Mouth(user)) = (again, who) {
                    let identity =
                        Identity { number: connection, auth: text(value, "auth")?.to_owned() };
                    self.became(user, identity)?;
                }
            }
            What::Members(room) => self.check_members(room, value),
            What::Goodbye | What::GoodbyeOf(_) if value["ok"] != true => {
                return Err(Fault::new(format!("a goodbye was answered {value}")));
            }
            What::Goodbye | What::GoodbyeOf(_) | What::Barrier | What::Refused(_) => {}
        }
        if let Some(number) = call.carries {
            self.scene.ledger.carried(number, call.sent.1);
        }
        self.spoke(token, who, &call.what)
    }

    /// Compares who the server says is in a room with who must be, where all is quiet.
    fn check_members(&mut self, room: u32, value: &Value) {
        let ledger = &self.scene.ledger;
        let members = value["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        let told: Vec<(u64, u64, Option<String>)> = members
            .iter()
            .map(|member| {
                let name = member["message"].as_str().map(str::to_owned);
                (number(member, "connection").unwrap_or(0), number(member, "id").unwrap_or(0), name)
            })
            .collect();
        let known = ledger.present_all(room);
        let differ = told.iter().map(|(number, id, _)| (*number, *id)).ne(known.iter().copied());
        let misnamed = told.iter().find(|(number, _, name)| *name != ledger.name_of(room, *number));
        let readers = number(value, "readers").unwrap_or(u64::MAX);
        let reading = self.who_reads(room).len() as u64;
        if (differ || misnamed.is_some()) && !self.scene.ledger.is_uncertain(room) {
            let what =
                format!("the members are {told:?} (misnamed: {misnamed:?}), and must be {known:?}");
            self.members_differ = Some(Fault::within(room, what));
        } else if readers != reading {
            let what =
                format!("{readers} readers, and must be {reading}: {:?}", self.who_reads(room));
            self.members_differ = Some(Fault::within(room, what));
        }
    }

    /// Who reads a room now: how, since when, and with which connection.
    fn who_reads(&self, room: u32) -> Vec<(Who, Form, u64, Option<u64>)> {
        let readings =
            self.links.owned().filter_map(|owned| Some((owned, owned.reading.as_ref()?)));
        let its = readings
            .filter(|(_, reading)| reading.follows.iter().any(|follow| follow.room == room));
        its.map(|(owned, reading)| {
            (
                owned.who,
                reading.form,
                owned.asked.1,
                reading.identity.as_ref().map(|identity| identity.number),
            )
        })
        .collect()
    }

    /// Lets a link go on which nothing waits, in whichever way.
    pub(super) fn drop_link(&mut self, token: Option<Token>) {
        let how = if self.random.percent(50) { Close::Orderly } else { Close::Reset };
        self.close(token, how);
    }
}

/// A call as a request, in one of the ways of HTTP.
pub(super) fn request(path: &str, query: &str, message: Option<&str>, dice: u64) -> Vec<u8> {
    let Some(message) = message else {
        return format!("GET {path}?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
    };
    // What is long does not fit into a request line.
    let way = if message.len() > 1_000 { 2 } else { dice % 4 };
    if way == 2 {
        let length = message.len();
        return format!(
            "POST {path}?{query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{message}"
        )
        .into_bytes();
    }
    let mut form = format!("{query}&message=");
    push_encoded(&mut form, message);
    if way < 2 {
        return format!("GET {path}?{form} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
    }
    let mut request = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n");
    request += "Content-Type: application/x-www-form-urlencoded\r\n";
    let _ = write!(request, "Content-Length: {}\r\n\r\n{form}", form.len());
    request.into_bytes()
}

/// A text in a frame as clients send it: masked, here with zeros.
fn masked(text: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(text.len()) {
        Ok(length @ 0..126) => frame.push(0x80 | length as u8),
        Ok(length) => {
            frame.push(0x80 | 0x7e);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 0x7f);
            frame.extend_from_slice(&(text.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text);
    frame
}
