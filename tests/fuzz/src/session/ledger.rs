//! All that anybody was told, and was told to have written.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

#[derive(Default)]
pub(super) struct Ledger {
    /// By log, then by id.
    told: BTreeMap<String, BTreeMap<u64, Value>>,
    /// What a call was answered to have added: text and sender.
    written: HashMap<(String, u64), (String, Option<u64>)>,
}

impl Ledger {
    /// Somebody wrote, and was told the id.
    pub(super) fn write(&mut self, log: &str, id: u64, text: &str, from: Option<u64>) {
        assert!((1..1 << 53).contains(&id));
        let before = self.written.insert((log.to_owned(), id), (text.to_owned(), from));
        assert_eq!(before, None, "an id is given once");
    }

    /// Somebody was told a message. Everybody is told the same.
    pub(super) fn tell(&mut self, log: &str, id: u64, message: &Value) {
        let log_told = match self.told.get_mut(log) {
            Some(log_told) => log_told,
            None => self.told.entry(log.to_owned()).or_default(),
        };
        if let Some(before) = log_told.get(&id) {
            assert_eq!(before, message, "one message, told in two ways");
            return;
        }
        check_message(message);
        let key = (log.to_owned(), id);
        if let Some((text, from)) = self.written.get(&key) {
            assert_eq!(message["message"].as_str(), Some(&**text), "it was written otherwise");
            assert_eq!(
                message.get("from").and_then(Value::as_u64),
                *from,
                "somebody else wrote it"
            );
        }
        log_told.insert(id, message.clone());
    }

    /// The highest id that anybody has heard of, and 0 where nobody has of any.
    pub(super) fn last_id(&self, log: &str) -> u64 {
        self.told.get(log).and_then(|told| told.keys().next_back()).copied().unwrap_or(0)
    }

    /// Nobody said goodbye who had done so, and had not come again.
    pub(super) fn check_goodbyes(&self) {
        for told in self.told.values() {
            let (mut has_left, mut next_id) = (HashMap::new(), 0);
            for (id, message) in told {
                if *id != next_id {
                    // What was said in between nobody knows.
                    has_left.clear();
                }
                next_id = id + 1;
                let Some(from) = message.get("from").and_then(Value::as_u64) else { continue };
                match message["type"].as_str() {
                    Some("introduction") => drop(has_left.insert(from, false)),
                    Some("goodbye") => assert_ne!(
                        has_left.insert(from, true),
                        Some(true),
                        "two goodbyes of {from}"
                    ),
                    _ => {}
                }
            }
        }
    }
}

fn check_message(message: &Value) {
    let keys = message.as_object().expect("a message is an object");
    for key in keys.keys() {
        assert!(["id", "type", "time", "from", "message", "reason"].contains(&&**key), "{message}");
    }
    assert!(message["time"].is_u64());
    match message["type"].as_str() {
        Some("message") => assert!(message["message"].is_string() && !keys.contains_key("reason")),
        Some("introduction") => {
            assert!(
                message["message"].is_string()
                    && message["from"].is_u64()
                    && !keys.contains_key("reason")
            );
        }
        Some("goodbye") => {
            assert!(message["from"].is_u64());
            assert!(
                matches!(message["reason"].as_str(), Some("left" | "closed" | "timeout")),
                "{message}"
            );
        }
        other => panic!("type {other:?}"),
    }
}
