//! JSON bodies of responses.

use std::rc::Rc;

use super::error::Error;
use super::payload::{Chunk, Insertions};
use super::shared_reply::ReplySlice;
use crate::hub::{Epoch, Introduced, Members, Pair, push_number, push_string};

pub(super) fn push_error(json: &mut Vec<u8>, error: Error) {
    let (name, status) = error.name_and_status();
    json.extend_from_slice(b"{\"error\":\"");
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(b"\",\"detail\":");
    push_string(json, &error.detail());
    push_field(json, "status", u64::from(status));
    json.push(b'}');
}

/// Appends the response to a write. Not inlined: the compiler then inlines what it calls.
#[inline(never)]
pub(super) fn push_id(json: &mut Vec<u8>, id: u64) {
    json.extend_from_slice(b"{\"id\":");
    push_number(json, id);
    json.push(b'}');
}

pub(super) fn push_introduced(json: &mut Vec<u8>, introduced: &Introduced, timeout_ms: u64) {
    json.extend_from_slice(b"{\"connection\":");
    push_number(json, introduced.session);
    json.extend_from_slice(b",\"auth\":");
    push_string(json, introduced.auth.reveal());
    push_field(json, "id", introduced.id);
    json.extend_from_slice(b",\"timeout\":");
    push_seconds(json, timeout_ms);
    json.push(b'}');
}

/// Appends the response to `/members`, cut as a reply to a read is.
pub(super) fn push_members(json: &mut Vec<u8>, members: &Members<'_>) {
    json.extend_from_slice(b"{\"members\":[");
    let mut budget = members.max_bytes();
    let mut has_more = false;
    for (index, (connection, member)) in members.iter().enumerate() {
        let end = json.len();
        if index > 0 {
            json.push(b',');
        }
        let start = json.len();
        json.extend_from_slice(b"{\"connection\":");
        push_number(json, connection);
        json.extend_from_slice(b",\"message\":");
        json.extend_from_slice(&member.text_json);
        push_field(json, "id", member.id);
        push_field(json, "time", member.unix_ms);
        json.push(b'}');
        let bytes = json.len() - start;
        if index > 0 && bytes > budget {
            json.truncate(end);
            has_more = true;
            break;
        }
        budget = budget.saturating_sub(bytes);
    }
    json.push(b']');
    push_field(json, "readers", members.readers() as u64);
    if has_more {
        json.extend_from_slice(b",\"more\":true");
    }
    json.push(b'}');
}

pub(super) fn push_pair(json: &mut Vec<u8>, pair: &Pair) {
    for (separator, label, name) in
        [(b'{', pair.kind.labels()[0], &pair.secret), (b',', pair.kind.labels()[1], &pair.given)]
    {
        json.push(separator);
        push_string(json, label);
        json.push(b':');
        push_string(json, name);
    }
    json.push(b'}');
}

/// Appends the response to a read. `labels` are the names of its channels; they are used only if
/// there are several. Complete pages of introductions are only in `insertions`, if there are any.
pub(super) fn push_reply<'n>(
    json: &mut Vec<u8>,
    slices: &[impl ReplySlice],
    labels: impl Iterator<Item = &'n str>,
    epoch: Epoch,
    mut insertions: Option<&mut Insertions>,
) {
    if let [slice] = slices {
        json.push(b'{');
        push_slice(json, slice, insertions);
        push_epoch(json, epoch);
        push_gaps(json, slice);
    } else {
        json.extend_from_slice(b"{\"channels\":[");
        for (index, (slice, label)) in slices.iter().zip(labels).enumerate() {
            json.extend_from_slice(if index == 0 { b"{\"channel\":" } else { b",{\"channel\":" });
            push_string(json, label);
            json.push(b',');
            push_slice(json, slice, insertions.as_deref_mut());
            push_gaps(json, slice);
            json.push(b'}');
        }
        json.push(b']');
        push_epoch(json, epoch);
    }
    json.push(b'}');
}

#[inline]
fn push_slice(json: &mut Vec<u8>, slice: &impl ReplySlice, insertions: Option<&mut Insertions>) {
    json.extend_from_slice(b"\"messages\":[");
    if slice.has_introductions() {
        push_messages_and_introductions(json, slice, insertions);
    } else {
        push_messages(json, slice.retained());
    }
    json.push(b']');
    push_field(json, "next_id", slice.next_id());
}

#[inline]
fn push_messages<'m>(json: &mut Vec<u8>, messages: impl Iterator<Item = &'m [u8]>) {
    for (index, message) in messages.enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(message);
    }
}

/// Appends introductions, but for complete pages if there are `insertions`, and the messages.
#[cold]
fn push_messages_and_introductions(
    json: &mut Vec<u8>,
    slice: &impl ReplySlice,
    insertions: Option<&mut Insertions>,
) {
    let (Some(insertions), Some(introductions)) = (insertions, slice.introduction_pages()) else {
        return push_messages(json, slice.introductions().chain(slice.retained()));
    };
    let mut pages = introductions.pages().peekable();
    while let Some(page) = pages.next() {
        let mut runs = page.runs().peekable();
        while let Some(mut run) = runs.next() {
            if pages.peek().is_none() && runs.peek().is_none() {
                // Without the last comma.
                run.end -= 1;
            }
            let chunk = Chunk::Introductions(Rc::clone(page.shared()), run);
            insertions.push_to_json(json.len(), chunk);
        }
    }
    for message in introductions.rest().chain(slice.retained()) {
        json.push(b',');
        json.extend_from_slice(message);
    }
}

#[inline]
fn push_gaps(json: &mut Vec<u8>, slice: &impl ReplySlice) {
    if slice.missed() {
        json.extend_from_slice(b",\"missed\":true");
    }
    if slice.reset() {
        json.extend_from_slice(b",\"reset\":true");
    }
}

#[inline]
fn push_epoch(json: &mut Vec<u8>, epoch: Epoch) {
    json.extend_from_slice(b",\"epoch\":\"");
    json.extend_from_slice(epoch.as_bytes());
    json.push(b'"');
}

/// Appends `,"name":number`.
#[inline]
fn push_field(json: &mut Vec<u8>, name: &str, number: u64) {
    json.extend_from_slice(b",\"");
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(b"\":");
    push_number(json, number);
}

/// Appends milliseconds as seconds, with a fraction only if there is one.
fn push_seconds(json: &mut Vec<u8>, ms: u64) {
    push_number(json, ms / 1000);
    if !ms.is_multiple_of(1000) {
        let fraction = format!(".{:03}", ms % 1000);
        json.extend_from_slice(fraction.trim_end_matches('0').as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Auth, ChannelName, Config, Hub, Introducer, Millis, Now, TOKEN_BYTES};

    #[test]
    fn seconds_have_a_fraction_only_if_there_is_one() {
        for (ms, text) in [(0, "0"), (200, "0.2"), (5_000, "5"), (1_050, "1.05"), (1_001, "1.001")]
        {
            let mut json = Vec::new();
            push_seconds(&mut json, ms);
            assert_eq!(json, text.as_bytes());
        }
    }

    #[test]
    fn members_fill_a_response_up_to_its_limit() {
        let now = Now { mono: Millis(0), unix_ms: 7 };
        let member =
            |number| format!(r#"{{"connection":{number},"message":"m","id":{number},"time":7}}"#);
        let members_json = |max_reply| {
            let mut hub = Hub::new(Config { max_reply, ..Config::default() });
            let key = ChannelName::parse("c").unwrap().for_writing().unwrap();
            for _ in 0..3 {
                let introducer = Introducer::New(Auth::new([b'A'; TOKEN_BYTES]));
                assert!(hub.introduce(now, &key, "m", introducer, None).is_ok());
            }
            let mut json = Vec::new();
            push_members(&mut json, &hub.members(now, &key, 0));
            String::from_utf8(json).unwrap()
        };
        let exactly_two = member(1).len() + member(2).len();
        let expected =
            format!(r#"{{"members":[{},{}],"readers":0,"more":true}}"#, member(1), member(2));
        assert_eq!(members_json(exactly_two), expected);
        let expected = format!(r#"{{"members":[{}],"readers":0,"more":true}}"#, member(1));
        assert_eq!(members_json(exactly_two - 1), expected);
        assert_eq!(members_json(0), expected, "one at least");
    }

    #[test]
    fn errors_are_json_with_name_detail_and_status() {
        let mut json = Vec::new();
        push_error(&mut json, Error::MissingParameter("/write", "message"));
        let expected =
            r#"{"error":"missing_parameter","detail":"/write needs 'message'","status":400}"#;
        assert_eq!(str::from_utf8(&json), Ok(expected));
    }
}
