//! What a read is given of each of its channels.

use serde_json::Value;

use super::asked::{Asked, Since, log_to_read};
use super::ledger::Ledger;
use super::settings::EPOCH;

/// What somebody reads, and where each channel goes on.
#[derive(Clone, Debug)]
pub(super) struct Follows {
    pub(super) channels: Vec<String>,
    pub(super) since: Vec<Since>,
    pub(super) same_epoch: bool,
}

impl Follows {
    pub(super) fn of(asked: &Asked, is_event_stream: bool) -> Self {
        let (since, same_epoch) = asked.since(is_event_stream);
        Self { channels: asked.channels(), since, same_epoch }
    }

    /// Where each channel goes on, as far as that is known.
    pub(super) fn next_ids(&self) -> impl Iterator<Item = (&str, u64)> {
        let known = self.channels.iter().zip(&self.since);
        known.filter_map(
            |(channel, since)| {
                if let Since::Id(id) = since { Some((&**channel, *id)) } else { None }
            },
        )
    }

    /// A read waits, since there is nothing to tell: these are the ids that come next.
    pub(super) fn wait(&mut self, next_ids: &[u64], is_stream: bool) {
        for (since, next_id) in self.since.iter_mut().zip(next_ids) {
            *since = match since {
                Since::All if !is_stream => Since::All,
                Since::Id(id) => {
                    assert_eq!(id, next_id, "there was something to tell");
                    Since::Id(*next_id)
                }
                _ if is_stream => Since::Id(*next_id),
                _ => Since::Behind(*next_id),
            };
        }
        self.same_epoch = true;
    }

    /// Checks the answer of a read, and goes on behind it.
    pub(super) fn take(&mut self, answer: &Value, ledger: &mut Ledger) {
        assert_eq!(answer["epoch"].as_str(), Some(EPOCH), "{answer}");
        let parts = if self.channels.len() == 1 {
            std::slice::from_ref(answer)
        } else {
            answer["channels"].as_array().expect("several channels")
        };
        assert_eq!(parts.len(), self.channels.len());
        for ((part, channel), since) in parts.iter().zip(&self.channels).zip(&mut self.since) {
            if self.channels.len() > 1 {
                assert_eq!(part["channel"].as_str(), Some(&**channel));
            }
            *since = Since::Id(take_part(part, channel, *since, self.same_epoch, ledger));
        }
        self.same_epoch = true;
    }
}

/// Returns the id to go on from.
fn take_part(
    part: &Value,
    channel: &str,
    since: Since,
    same_epoch: bool,
    ledger: &mut Ledger,
) -> u64 {
    let is_told = |key| part.get(key).is_some_and(|told| told == true);
    let (missed, reset) = (is_told("missed"), is_told("reset"));
    assert!(!(missed && reset), "{part}");
    let next_id = part["next_id"].as_u64().expect("a cursor");
    let messages = part["messages"].as_array().expect("messages");
    let ids: Vec<_> =
        messages.iter().map(|message| message["id"].as_u64().expect("an id")).collect();
    assert!(ids.is_sorted_by(|earlier, later| earlier < later), "ids rise: {ids:?}");
    assert!(ids.iter().all(|id| (1..next_id).contains(id)), "{ids:?} before {next_id}");
    let log = log_to_read(channel);
    for (id, message) in ids.iter().zip(messages) {
        ledger.tell(&log, *id, message);
    }
    // Behind introductions that history has dropped stands a row without gaps, up to the cursor.
    let row = ids
        .iter()
        .rev()
        .zip((0..next_id).rev())
        .take_while(|(id, expected)| **id == *expected)
        .count();
    let first_id = next_id - row as u64;
    let dropped = &messages[..messages.len() - row];
    assert!(
        dropped.iter().all(|message| message["type"] == "introduction"),
        "a gap: {ids:?} before {next_id}"
    );
    match since {
        Since::Id(_) if reset => {}
        _ if reset => panic!("a reset of who named no id"),
        Since::Id(id) => {
            assert!(same_epoch, "no reset for an id of another numbering");
            assert!(dropped.is_empty());
            assert!(if missed { first_id > id } else { first_id == id }, "from {id} on: {part}");
        }
        Since::All => assert!(!missed),
        Since::Last(_) | Since::Now => assert!(!missed && dropped.is_empty()),
        Since::Behind(id) => {
            assert!(!missed && dropped.is_empty() && first_id >= id, "from {id} on: {part}");
        }
    }
    next_id
}
