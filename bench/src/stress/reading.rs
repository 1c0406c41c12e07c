//! One who reads: what is asked, and whether what comes follows from it without a gap, a double or a wrong order.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::connection::Reason;
use super::ledger::{Checked, Fault, Kind, Ledger, Message};
use super::said::push_encoded;
use crate::wire::Form;

/// From where a channel is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Since {
    /// What is retained, and who is there.
    All,
    Last(u64),
    Id(u64),
    /// What comes; the first of it is no older than this id.
    Now(u64),
}

/// A connection's number and secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub(super) number: u64,
    pub(super) auth: String,
}

impl Identity {
    pub(super) fn query(&self) -> String {
        format!("&connection={}&auth={}", self.number, self.auth)
    }
}

/// The two names of a room, which are one but for private pairs.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) read: String,
    pub(super) write: String,
}

/// Names an epoch, and remembers which there were.
#[derive(Default)]
pub(super) struct Epochs {
    pub(super) current: Option<String>,
    past: Vec<String>,
}

impl Epochs {
    /// The server that comes next names another one.
    pub(super) fn renew(&mut self) {
        self.past.extend(self.current.take());
    }

    fn see(&mut self, epoch: &str) -> Checked {
        match &self.current {
            Some(current) if current == epoch => Ok(()),
            Some(current) => Err(Fault::new(format!("the epoch is {epoch} and was {current}"))),
            None if self.past.iter().any(|past| past == epoch) => {
                Err(Fault::new(format!("the epoch {epoch} of a former numbering")))
            }
            None => {
                self.current = Some(epoch.to_owned());
                Ok(())
            }
        }
    }
}

/// What is known of the rooms and needed to read in them.
pub(super) struct ReadContext {
    pub(super) names: Vec<Names>,
    pub(super) epochs: Epochs,
    pub(super) ledger: Ledger,
    /// So many of the rooms, from the first on, have messages so large that an answer may not hold all.
    pub(super) loud: u32,
}

/// What one answer brought.
#[derive(Default, Debug)]
pub(super) struct Taken {
    pub(super) messages: u64,
    pub(super) resets: u64,
    pub(super) missed: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Follow {
    pub(super) room: u32,
    pub(super) since: Since,
}

/// A read as it was asked, and how far it came.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) form: Form,
    pub(super) follows: Vec<Follow>,
    /// Of which numbering the ids are.
    pub(super) epoch: Option<String>,
    pub(super) identity: Option<Identity>,
    /// Who reads here has to see every id: what is missed, nobody sees.
    pub(super) observes: bool,
    callback: u32,
}

/// The messages of one channel in an answer.
struct Part<'a> {
    messages: &'a [Value],
    next_id: u64,
    is_missed: bool,
    is_reset: bool,
}

impl Reading {
    pub(super) fn new(form: Form, follows: Vec<Follow>, identity: Option<Identity>) -> Self {
        Self { form, follows, epoch: None, identity, observes: false, callback: 0 }
    }

    /// The read as a request.
    pub(super) fn request(&mut self, names: &[Names]) -> Vec<u8> {
        let mut target = String::from("/read?");
        for follow in &self.follows {
            target += "channel=";
            push_encoded(&mut target, &names[follow.room as usize].read);
            match follow.since {
                Since::All => target += "&from_id=0&",
                Since::Last(count) => _ = write!(target, "&from_id=-{count}&"),
                Since::Id(id) => _ = write!(target, "&from_id={id}&"),
                Since::Now(_) => target += "&",
            }
        }
        if let Some(epoch) = &self.epoch {
            _ = write!(target, "epoch={epoch}&");
        }
        if let Some(identity) = &self.identity {
            target += &identity.query()[1..];
        }
        if self.form == Form::Jsonp {
            self.callback += 1;
            _ = write!(target, "&callback=a.b{}", self.callback);
        }
        let headers = self.form.headers();
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes()
    }

    /// What the channels are read from, where that is known by their ids.
    pub(super) fn cursors(&self) -> Vec<(u32, u64)> {
        let known = self.follows.iter().filter_map(|follow| match follow.since {
            Since::Id(id) => Some((follow.room, id)),
            _ => None,
        });
        known.collect()
    }

    /// The JSON of an answer, taken out of a call of the callback.
    pub(super) fn json<'a>(&self, body: &'a [u8]) -> Checked<&'a [u8]> {
        if self.form != Form::Jsonp {
            return Ok(body);
        }
        let before = format!("/**/a.b{}(", self.callback);
        let inside = body.strip_prefix(before.as_bytes()).and_then(|rest| rest.strip_suffix(b");"));
        inside.ok_or_else(|| {
            Fault::new(format!("not a call of {before}…: {}", String::from_utf8_lossy(body)))
        })
    }

    /// Takes the answer of a poll, or of a WebSocket.
    pub(super) fn take(&mut self, answer: &Value, scene: &mut ReadContext) -> Checked<Taken> {
        let mut taken = Taken::default();
        scene.epochs.see(text(answer, "epoch")?)?;
        let is_stale = self.epoch.is_some() && self.epoch != scene.epochs.current;
        if self.follows.len() == 1 {
            self.take_part(0, &Part::of(answer)?, is_stale, scene, &mut taken)?;
        } else {
            let parts =
                answer["channels"].as_array().filter(|parts| parts.len() == self.follows.len());
            let parts = parts
                .ok_or_else(|| Fault::new(format!("not an answer for each channel: {answer}")))?;
            for (at, part) in parts.iter().enumerate() {
                let name = &scene.names[self.follows[at].room as usize].read;
                if text(part, "channel")? != name {
                    return Err(Fault::within(
                        self.follows[at].room,
                        "channels stand in another order",
                    ));
                }
                self.take_part(at, &Part::of(part)?, is_stale, scene, &mut taken)?;
            }
        }
        self.epoch.clone_from(&scene.epochs.current);
        Ok(taken)
    }

    fn take_part(
        &mut self,
        at: usize,
        part: &Part,
        is_stale: bool,
        scene: &mut ReadContext,
        taken: &mut Taken,
    ) -> Checked {
        let Follow { room, since } = self.follows[at];
        let wrong = |what: String| Err(Fault::within(room, what));
        let messages = part.messages.iter().map(message).collect::<Checked<Vec<_>>>()?;
        if !messages.is_sorted_by(|one, other| one.id < other.id) {
            return wrong(format!(
                "ids do not rise: {:?}",
                messages.iter().map(|it| it.id).collect::<Vec<_>>()
            ));
        }
        let must_reset = is_stale && matches!(since, Since::Id(_));
        if part.is_reset != must_reset {
            return wrong(format!(
                "reset is {} for a read from {since:?} of epoch {:?}",
                part.is_reset, self.epoch
            ));
        }
        // The messages behind which there is no gap up to `next_id`.
        let in_row = messages
            .iter()
            .rev()
            .zip(1..)
            .take_while(|(it, back)| it.id + back == part.next_id)
            .count();
        let first = part.next_id - in_row as u64;
        let dropped = &messages[..messages.len() - in_row];
        let since = if part.is_reset { Since::All } else { since };
        let is_loud = room < scene.loud;
        let retained = scene.ledger.history.min(part.next_id - 1);
        match since {
            Since::All => {
                if let Some(other) = dropped.iter().find(|it| it.kind != Kind::Introduction) {
                    return wrong(format!(
                        "a gap behind {other:?}, before {first}, in an answer from the beginning"
                    ));
                }
                if (in_row as u64) < retained && !is_loud {
                    return wrong(format!(
                        "from the beginning there are {in_row}, and {retained} must be retained"
                    ));
                }
            }
            _ if !dropped.is_empty() => {
                return wrong(format!("a gap behind {:?}, before {first}", dropped.last()));
            }
            Since::Id(cursor) if part.is_missed => {
                if first <= cursor
                    || !scene.ledger.may_miss(cursor, first, part.next_id) && !is_loud
                {
                    return wrong(format!(
                        "missed from {cursor} to {first}, with {} next",
                        part.next_id
                    ));
                }
            }
            Since::Id(cursor) if first != cursor => {
                return wrong(format!("read from {cursor}, and it goes on with {first}"));
            }
            Since::Last(count) if (in_row as u64) < retained.min(count) && !is_loud => {
                return wrong(format!("asked for the last {count}, there are {in_row}"));
            }
            Since::Now(least) if first < least => {
                return wrong(format!(
                    "asked for what comes from {least} on, it begins with {first}"
                ));
            }
            Since::Id(_) | Since::Last(_) | Since::Now(_) => {}
        }
        if self.observes {
            scene.ledger.unseen_before(room, first)?;
        }
        for message in &messages {
            scene.ledger.sight(room, message)?;
        }
        if since == Since::All && !is_loud {
            check_presence(room, part.next_id, &messages, &scene.ledger)?;
        }
        taken.messages += messages.len() as u64;
        taken.missed += u64::from(part.is_missed);
        taken.resets += u64::from(part.is_reset);
        self.follows[at].since = Since::Id(part.next_id);
        Ok(())
    }

    /// Takes an event of a stream.
    pub(super) fn take_event(&mut self, event: &[u8], scene: &mut ReadContext) -> Checked<Taken> {
        let mut taken = Taken::default();
        let wrong =
            |what: &str| Err(Fault::new(format!("{what}: {}", String::from_utf8_lossy(event))));
        let text = String::from_utf8_lossy(event);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let cursors: Option<Vec<i64>> = match field("id: ") {
            Some(id) => {
                let Some((epoch, cursors)) = id.split_once(':') else { return wrong("no cursor") };
                scene.epochs.see(epoch)?;
                if self.epoch.is_none() {
                    self.epoch.clone_from(&scene.epochs.current);
                }
                cursors.split(',').map(|cursor| cursor.parse().ok()).collect()
            }
            None => None,
        };
        let Some(data) = field("data: ") else { return Ok(taken) };
        let Ok(data) = serde_json::from_str::<Value>(data) else { return wrong("no JSON") };
        let at = match data.get("channel").and_then(Value::as_str) {
            None if self.follows.len() == 1 => Some(0),
            None => None,
            Some(name) => self
                .follows
                .iter()
                .position(|follow| scene.names[follow.room as usize].read == name),
        };
        let Some(at) = at else { return wrong("an event of no channel that was asked for") };
        let Follow { room, since } = self.follows[at];
        match field("event: ") {
            Some("missed") => {
                taken.missed += 1;
                let Since::Id(cursor) = since else {
                    return wrong("missed, and nothing was asked by id");
                };
                self.follows[at].since = Since::Now(cursor + 1);
                return Ok(taken);
            }
            Some("reset") if self.epoch.is_some() && self.epoch != scene.epochs.current => {
                taken.resets += 1;
                self.follows[at].since = Since::All;
                if self.follows.len() == 1 {
                    self.epoch.clone_from(&scene.epochs.current);
                }
                return Ok(taken);
            }
            Some(_) => return wrong("an event that is not called for"),
            None => {}
        }
        let message = message(&data)?;
        let cursor = cursors.as_ref().and_then(|cursors| cursors.get(at)).copied();
        let follows_it = cursor == Some(message.id.cast_signed() + 1);
        match since {
            Since::Id(id) if id == message.id && follows_it => {}
            Since::Now(least) if least <= message.id && follows_it => {}
            Since::Last(_) if follows_it => {}
            // Of introductions that history has dropped, which come first, the cursor is the one asked with.
            Since::All if follows_it || message.kind == Kind::Introduction => {}
            _ => {
                return Err(Fault::within(
                    room,
                    format!("read from {since:?}, cursors {cursors:?}: {message:?}"),
                ));
            }
        }
        scene.ledger.sight(room, &message)?;
        if follows_it {
            self.follows[at].since = Since::Id(message.id + 1);
        }
        taken.messages += 1;
        Ok(taken)
    }
}

/// Whoever reads from the beginning must know from that who is there.
fn check_presence(room: u32, next_id: u64, messages: &[Message], ledger: &Ledger) -> Checked {
    let Some(present) = ledger.present_at(room, next_id) else { return Ok(()) };
    let mut told = BTreeMap::new();
    for message in messages {
        let from = message.from.unwrap_or(0);
        match message.kind {
            Kind::Introduction => _ = told.insert(from, message.id),
            Kind::Goodbye(_) => _ = told.remove(&from),
            Kind::Message => {}
        }
    }
    if told.iter().map(|(from, id)| (*from, *id)).eq(present.iter().copied()) {
        return Ok(());
    }
    Err(Fault::within(
        room,
        format!("a newcomer at {next_id} is told that {told:?} are there, who are {present:?}"),
    ))
}

impl<'a> Part<'a> {
    fn of(value: &'a Value) -> Checked<Self> {
        Ok(Self {
            messages: value["messages"]
                .as_array()
                .ok_or_else(|| Fault::new(format!("no messages: {value}")))?,
            next_id: number(value, "next_id")
                .filter(|next| *next > 0)
                .ok_or_else(|| Fault::new("no next_id"))?,
            is_missed: value.get("missed").is_some(),
            is_reset: value.get("reset").is_some(),
        })
    }
}

pub(super) fn number(value: &Value, key: &str) -> Option<u64> {
    value.get(key)?.as_u64()
}

pub(super) fn text<'a>(value: &'a Value, key: &str) -> Checked<&'a str> {
    value.get(key).and_then(Value::as_str).ok_or_else(|| Fault::new(format!("no {key}: {value}")))
}

fn message(value: &Value) -> Checked<Message<'_>> {
    let missing = || Fault::new(format!("not a message: {value}"));
    let kind = match (text(value, "type")?, value.get("reason").and_then(Value::as_str)) {
        ("message", None) => Kind::Message,
        ("introduction", None) => Kind::Introduction,
        ("goodbye", Some("timeout")) => Kind::Goodbye(Reason::Timeout),
        ("goodbye", Some("closed")) => Kind::Goodbye(Reason::Closed),
        ("goodbye", Some("left")) => Kind::Goodbye(Reason::Left),
        _ => return Err(missing()),
    };
    Ok(Message {
        id: number(value, "id").ok_or_else(missing)?,
        kind,
        time: number(value, "time").ok_or_else(missing)?,
        from: number(value, "from"),
        text: value.get("message").and_then(Value::as_str),
    })
}
