//! Messages and answers of reads, as the contract describes them.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use crate::ensure;
use crate::fault::{Checked, Fault};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    /// The session was silent for too long.
    Timeout,
    /// A client with a pending read of the session closed.
    Closed,
    Left,
    /// It was kicked from this channel, and lives on.
    Removed,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    Message,
    Introduction,
    /// Of `/goodbye`, or of the server.
    Goodbye(Reason),
    /// The message with this id was removed.
    Removal(u64),
    /// What stays of a message that was removed.
    Removed,
}

/// A message as a reader gets it.
#[derive(Clone, Copy, Hash, Debug)]
pub struct Message<'a> {
    /// Id in its channel.
    pub id: u64,
    pub kind: Kind,
    /// Milliseconds since 1970.
    pub time: u64,
    /// Session that it is from.
    pub from: Option<u64>,
    /// It was written under the name of the room's owner.
    pub is_owner: bool,
    pub text: Option<&'a str>,
}

impl<'a> Message<'a> {
    /// Parses a message, which has the keys of the contract and no others.
    pub fn parse(value: &'a Value) -> Checked<Self> {
        let parse = || {
            let fields = value.as_object()?;
            let known = ["id", "type", "time", "from", "owner", "message", "reason", "of"];
            let is_known = fields.keys().all(|key| known.contains(&key.as_str()));
            let text =
                fields.get("message").map(|text| text.as_str().ok_or(())).transpose().ok()?;
            let from = fields.get("from").map(|from| from.as_u64().ok_or(())).transpose().ok()?;
            let reason = fields.get("reason").map(|reason| reason.as_str().unwrap_or_default());
            let kind = match (fields.get("type")?.as_str()?, reason) {
                ("message", None) if text.is_some() => Kind::Message,
                ("introduction", None) if text.is_some() && from.is_some() => Kind::Introduction,
                ("goodbye", Some(reason)) if from.is_some() => Kind::Goodbye(match reason {
                    "timeout" => Reason::Timeout,
                    "closed" => Reason::Closed,
                    "left" => Reason::Left,
                    "removed" => Reason::Removed,
                    _ => return None,
                }),
                ("removal", None) if text.is_none() && from.is_none() => {
                    Kind::Removal(fields.get("of")?.as_u64()?)
                }
                ("removed", None) if text.is_none() => Kind::Removed,
                _ => return None,
            };
            let is_owner = fields.get("owner").map(|owner| *owner == true);
            let may_be_owners = matches!(kind, Kind::Message | Kind::Introduction);
            let has_of = fields.contains_key("of") == matches!(kind, Kind::Removal(_));
            if !has_of || is_owner == Some(false) || (is_owner.is_some() && !may_be_owners) {
                return None;
            }
            let is_owner = is_owner.is_some();
            let (id, time) = (fields.get("id")?.as_u64()?, fields.get("time")?.as_u64()?);
            is_known.then_some(Self { id, kind, time, from, is_owner, text })
        };
        parse().ok_or_else(|| Fault::new(format!("not a message: {value}")))
    }
}

pub(crate) fn digest(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Part of an answer that is about one channel.
#[derive(Debug)]
pub struct Slice<'a> {
    pub messages: Vec<Message<'a>>,
    /// Id to continue from.
    pub next_id: u64,
    /// Messages were dropped before they could be read.
    pub is_missed: bool,
    /// The id that was asked for is of another numbering.
    pub is_reset: bool,
    /// The first of those messages that are in a row up to `next_id`, as an index.
    row: usize,
}

impl<'a> Slice<'a> {
    /// Parses a slice: its ids rise, and are below `next_id`; all flags in it are true.
    pub fn parse(value: &'a Value) -> Checked<Self> {
        let messages = value["messages"].as_array();
        let next_id = value["next_id"].as_u64().filter(|next_id| *next_id > 0);
        let (Some(messages), Some(next_id)) = (messages, next_id) else {
            return Err(Fault::new(format!("not an answer to a read: {value}")));
        };
        let messages = messages.iter().map(Message::parse).collect::<Checked<Vec<_>>>()?;
        let ids: Vec<_> = messages.iter().map(|message| message.id).collect();
        let is_sorted = ids.is_sorted_by(|one, other| one < other);
        let are_below = ids.iter().all(|id| (1..next_id).contains(id));
        ensure!(is_sorted && are_below, "ids do not rise up to {next_id}: {ids:?}");
        let in_row = ids.iter().rev().zip((0..next_id).rev()).take_while(|(id, row)| **id == *row);
        let row = ids.len() - in_row.count();
        let flag = |key| value.get(key).map(|flag| *flag == true);
        let [missed, reset] = ["missed", "reset"].map(flag);
        let is_right = missed != Some(false) && reset != Some(false) && missed.and(reset).is_none();
        ensure!(is_right, "`missed` and `reset` do not fit: {value}");
        Ok(Self { messages, next_id, is_missed: missed.is_some(), is_reset: reset.is_some(), row })
    }

    /// Returns the first id of the messages that are in a row up to `next_id`.
    pub fn first_id(&self) -> u64 {
        self.next_id - (self.messages.len() - self.row) as u64
    }

    /// Returns the messages before that row.
    pub fn before_row(&self) -> &[Message<'a>] {
        &self.messages[..self.row]
    }
}

/// Parses the answer to a read of these channels: a slice for each, in the order asked.
pub fn slices<'a>(answer: &'a Value, names: &[&str]) -> Checked<Vec<Slice<'a>>> {
    if names.len() == 1 {
        return Ok(vec![Slice::parse(answer)?]);
    }
    let slices = answer["channels"].as_array().map_or(&[][..], Vec::as_slice);
    let are_named =
        slices.iter().map(|slice| slice["channel"].as_str()).eq(names.iter().map(|it| Some(*it)));
    ensure!(are_named, "not a slice of each of {names:?}, in this order: {answer}");
    slices.iter().map(Slice::parse).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_have_the_keys_of_their_kind_and_no_others() {
        let goodbye = json!({"id": 3, "type": "goodbye", "time": 5, "from": 7, "reason": "left"});
        let parsed = Message::parse(&goodbye).unwrap();
        assert_eq!((parsed.id, parsed.kind), (3, Kind::Goodbye(Reason::Left)));
        let removal = json!({"id": 4, "type": "removal", "time": 5, "of": 3});
        assert_eq!(Message::parse(&removal).unwrap().kind, Kind::Removal(3));
        let removed = json!({"id": 3, "type": "removed", "time": 5, "from": 7});
        assert_eq!(Message::parse(&removed).unwrap().kind, Kind::Removed);
        let owners = json!({"id": 3, "type": "message", "time": 5, "owner": true, "message": "m"});
        assert!(Message::parse(&owners).unwrap().is_owner);
        let wrong = [
            json!({"id": 3, "type": "goodbye", "time": 5, "from": 7}),
            json!({"id": 3, "type": "goodbye", "time": 5, "reason": "left"}),
            json!({"id": 3, "type": "goodbye", "time": 5, "from": 7, "reason": "bored"}),
            json!({"id": 3, "type": "introduction", "time": 5, "message": "m"}),
            json!({"id": 3, "type": "message", "time": 5}),
            json!({"id": 3, "type": "message", "time": 5, "message": "m", "reason": "left"}),
            json!({"id": 3, "type": "message", "time": 5, "message": 1}),
            json!({"id": 3, "type": "message", "time": 5, "message": "m", "from": "7"}),
            json!({"id": 3, "type": "message", "time": 5, "message": "m", "channel": "c"}),
            json!({"id": -3, "type": "message", "time": 5, "message": "m"}),
            json!({"id": 3, "type": "message", "time": 5, "message": "m", "owner": false}),
            json!({"id": 3, "type": "message", "time": 5, "message": "m", "of": 1}),
            json!({"id": 3, "type": "removal", "time": 5}),
            json!({"id": 3, "type": "removal", "time": 5, "of": 1, "from": 7}),
            json!({"id": 3, "type": "removed", "time": 5, "message": ""}),
            json!({"id": 3, "type": "removed", "time": 5, "owner": true}),
            json!([]),
        ];
        for value in wrong {
            assert!(Message::parse(&value).is_err(), "{value}");
        }
    }

    fn answer(ids: &[u64], next_id: u64) -> Value {
        let message = |id| json!({"id": id, "type": "message", "time": 5, "message": "m"});
        json!({"messages": ids.iter().map(message).collect::<Vec<_>>(), "next_id": next_id})
    }

    #[test]
    fn a_slice_ends_with_a_row_of_ids_up_to_the_next() {
        let cases: [(&[u64], u64, u64, usize); 4] =
            [(&[], 4, 4, 0), (&[2, 3], 4, 2, 0), (&[1, 3, 4], 5, 3, 1), (&[1, 2], 4, 4, 2)];
        for (ids, next_id, first_id, before) in cases {
            let answer = answer(ids, next_id);
            let slice = Slice::parse(&answer).unwrap();
            assert_eq!((slice.first_id(), slice.before_row().len()), (first_id, before), "{ids:?}");
        }
    }

    #[test]
    fn ids_in_disorder_and_flags_that_do_not_fit_are_faults() {
        for (ids, next_id) in [(&[2, 1][..], 4), (&[2, 2], 4), (&[4], 4), (&[0], 4), (&[], 0)] {
            assert!(Slice::parse(&answer(ids, next_id)).is_err(), "{ids:?} {next_id}");
        }
        for flags in [json!({"missed": false}), json!({"missed": true, "reset": true})] {
            let mut answer = answer(&[], 4);
            answer.as_object_mut().unwrap().extend(flags.as_object().unwrap().clone());
            assert!(Slice::parse(&answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn several_channels_come_in_the_order_asked() {
        let slice = |name| json!({"channel": name, "messages": [], "next_id": 1});
        let answer = json!({"channels": [slice("a"), slice("b")]});
        assert_eq!(slices(&answer, &["a", "b"]).unwrap().len(), 2);
        for names in [&["b", "a"][..], &["a", "b", "c"]] {
            assert!(slices(&answer, names).is_err(), "{names:?}");
        }
    }
}
