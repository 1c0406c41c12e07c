//! Removal of a message: what stays of it in the history and among the introductions.

use std::cell::Cell;
use std::mem;
use std::rc::Rc;

use super::channel::Channel;
use super::message::{NO_TEXT, push_number};

impl Channel {
    /// Replaces a message by one without a text, if history retains it, and takes the text of the
    /// introduction from its member. Complete pages of introductions count for `pages_total`.
    pub(super) fn remove_message(&mut self, id: u64, pages_total: &Rc<Cell<usize>>) {
        // Only the newest introduction of a member is among the introductions.
        if let Some(introduction) = self.introductions.get(id) {
            let blank = to_blank(introduction);
            if let Some((session, json)) = blank {
                self.introductions.replace(id, &json, pages_total);
                self.clear_member_text(session);
                self.has_blanks = true;
            }
        }
        let entry = id.checked_sub(self.first_id).and_then(|at| self.entries.get_mut(at as usize));
        if let Some(entry) = entry {
            let removed = to_removed(id, &entry.json);
            let before = mem::replace(&mut entry.json, removed);
            self.entries_bytes = self.entries_bytes + entry.json.len() - before.len();
        }
    }

    /// Returns the message that a read from 0 gets in the place of a retained one: an introduction
    /// that was removed is still that of a member, without a text.
    #[cold]
    #[inline(never)]
    pub(super) fn in_read_from_0<'h>(&'h self, json: &'h [u8]) -> &'h [u8] {
        removed_id(json).and_then(|id| self.introductions.get(id)).unwrap_or(json)
    }
}

/// Returns what stays of a message that is removed: its id, its time and its sender.
fn to_removed(id: u64, json: &[u8]) -> Box<[u8]> {
    let mut removed = b"{\"id\":".to_vec();
    push_number(&mut removed, id);
    removed.extend_from_slice(b",\"type\":\"removed\",\"time\":");
    let rest = after_time(json);
    let time = rest.map_or(&b""[..], digits);
    removed.extend_from_slice(if time.is_empty() { b"0" } else { time });
    if let Some(from) = rest.and_then(|rest| rest[time.len()..].strip_prefix(b",\"from\":")) {
        removed.extend_from_slice(b",\"from\":");
        removed.extend_from_slice(digits(from));
    }
    removed.push(b'}');
    removed.into()
}

/// Returns the session of an introduction, and the introduction without its text.
fn to_blank(json: &[u8]) -> Option<(u64, Vec<u8>)> {
    const TEXT: &[u8] = b",\"message\":";
    let from = digits(after_time(json)?);
    let from = &after_time(json)?[from.len()..];
    let session = str::from_utf8(digits(from.strip_prefix(b",\"from\":")?)).ok()?.parse().ok()?;
    // No earlier key or value has these bytes.
    let end = find(json, TEXT)? + TEXT.len();
    Some((session, [&json[..end], NO_TEXT, b"}"].concat()))
}

/// Returns the id of a message if it was removed.
fn removed_id(json: &[u8]) -> Option<u64> {
    let rest = json.strip_prefix(b"{\"id\":")?;
    let id = digits(rest);
    let is_removed = rest[id.len()..].starts_with(b",\"type\":\"removed\"");
    str::from_utf8(id).ok()?.parse().ok().filter(|_| is_removed)
}

/// Returns what follows the key of a message's time. The text of the message comes later.
fn after_time(json: &[u8]) -> Option<&[u8]> {
    const TIME: &[u8] = b",\"time\":";
    find(json, TIME).map(|at| &json[at + TIME.len()..])
}

/// Returns the decimal digits at the beginning.
fn digits(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit());
    &bytes[..end.unwrap_or(bytes.len())]
}

fn find(json: &[u8], key: &[u8]) -> Option<usize> {
    json.windows(key.len()).position(|window| window == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_id_time_and_sender_stay_of_a_message() {
        let cases: [(&[u8], &[u8]); 7] = [
            (
                br#"{"id":7,"type":"message","time":12,"from":3,"message":",\"time\":9,"}"#,
                br#"{"id":7,"type":"removed","time":12,"from":3}"#,
            ),
            (
                br#"{"id":7,"type":"message","time":12,"message":"x,\"from\":1"}"#,
                br#"{"id":7,"type":"removed","time":12}"#,
            ),
            (
                br#"{"id":7,"type":"introduction","time":12,"from":3,"owner":true,"message":"J"}"#,
                br#"{"id":7,"type":"removed","time":12,"from":3}"#,
            ),
            (
                br#"{"id":7,"type":"goodbye","time":12,"from":3,"message":"b","reason":"left"}"#,
                br#"{"id":7,"type":"removed","time":12,"from":3}"#,
            ),
            (
                br#"{"id":7,"type":"removal","time":12,"of":3}"#,
                br#"{"id":7,"type":"removed","time":12}"#,
            ),
            (
                br#"{"id":7,"type":"removed","time":12,"from":3}"#,
                br#"{"id":7,"type":"removed","time":12,"from":3}"#,
            ),
            (b"{}", br#"{"id":7,"type":"removed","time":0}"#),
        ];
        for (json, removed) in cases {
            assert_eq!(&*to_removed(7, json), removed);
            assert_eq!(removed_id(removed), Some(7));
            assert_eq!(removed_id(json), (json == removed).then_some(7));
        }
    }

    #[test]
    fn an_introduction_without_its_text_is_still_one() {
        let json =
            br#"{"id":7,"type":"introduction","time":12,"from":3,"owner":true,"message":"J"}"#;
        let blank =
            br#"{"id":7,"type":"introduction","time":12,"from":3,"owner":true,"message":""}"#;
        assert_eq!(to_blank(json), Some((3, blank.to_vec())));
        assert_eq!(to_blank(blank), Some((3, blank.to_vec())));
        assert_eq!(to_blank(b"{}"), None);
    }
}
