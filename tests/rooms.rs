//! Rooms: channels with an owner. What is removed, and who is sent away.

mod common;

use common::{Client, Folder, Identity, Response, Server};
use serde_json::{Value, json};
use support::http::Params;

struct Room<'s> {
    server: &'s Server,
    owner: String,
    channel: String,
}

/// Options with which `X-Forwarded-For` says from which address a call comes.
const FORWARDED: [&str; 2] = ["--trust-proxy", "127.0.0.1"];

const TROLL: &str = "192.0.2.66";
const NEIGHBOUR: &str = "192.0.2.7";

impl<'s> Room<'s> {
    #[track_caller]
    fn new(server: &'s Server) -> Self {
        let names = server.get("/create", &[("kind", "room")]).ok().json();
        let name = |key: &str| names[key].as_str().unwrap().to_owned();
        Self { server, owner: name("owner"), channel: name("channel") }
    }

    #[track_caller]
    fn remove(&self, id: u64) -> u64 {
        let answer =
            self.server.get("/remove", &[("channel", &*self.owner), ("id", &*id.to_string())]);
        let answer = answer.ok();
        let id = answer.json()["id"].as_u64().expect("the id of the removal");
        assert_eq!(answer.text(), format!(r#"{{"id":{id}}}"#));
        id
    }

    fn kick(&self, who: &Identity, more: &Params) -> Response {
        let mut params = vec![("channel", &*self.owner), ("connection", &*who.connection)];
        params.extend(more);
        self.server.get("/kick", &params)
    }

    /// Makes a call about the channel from an address.
    fn call_from(&self, address: &str, path: &str, more: &Params) -> Response {
        call_from(self.server, address, path, &self.channel, more)
    }

    #[track_caller]
    fn introduce_from(&self, address: &str, name: &str) -> Identity {
        let params = [("message", name)];
        Identity::from_answer(&self.call_from(address, "/introduce", &params).ok())
    }
}

fn call_from(server: &Server, address: &str, path: &str, channel: &str, more: &Params) -> Response {
    let mut params = vec![("channel", channel)];
    params.extend(more);
    server.client().get_with(path, &params, &[("X-Forwarded-For", address)])
}

fn kicked(answer: &Response) {
    assert_eq!((answer.status, answer.text()), (200, r#"{"ok":true}"#));
}

/// Returns a message without its time, which has to be that of this time.
fn timeless(mut message: Value) -> String {
    let time = message.as_object_mut().unwrap().remove("time").expect("a time");
    assert!(time.as_u64().is_some_and(|time| time > 1_700_000_000_000), "{message}");
    message.to_string()
}

fn timeless_all(answer: &Response) -> Vec<String> {
    answer.messages().into_iter().map(timeless).collect()
}

#[test]
fn everybody_reads_writes_and_introduces_themselves_in_a_room() {
    let server = Server::patient(&[]);
    let room = Room::new(&server);
    // printf %s "$OWNER" | openssl dgst -sha256 -binary | basenc --base64url | cut -c-22
    let known = ("~oABCDEFGHIJKLMNOPQRSTUV", "~cHs45Jyz2f3iV_TJuZy27a8");
    assert_eq!(server.write(known.0, "hello"), 1);
    assert_eq!(server.read(known.1, "1").texts(), ["hello"]);
    for (id, name) in [(1, &room.channel), (3, &room.owner)] {
        assert_eq!(server.introduce(name, "a member").id, id);
        assert_eq!(server.write(name, "howdy"), id + 1);
    }
    for name in [&room.channel, &room.owner] {
        assert_eq!(server.read(name, "1").ids(), [1, 2, 3, 4]);
        assert_eq!(server.members(name)["members"].as_array().map(Vec::len), Some(2));
    }
    // They are one channel, which a read names once.
    let both = [("channel", &*room.owner), ("channel", &*room.channel), ("timeout", "0")];
    server.get("/read", &both).fails_with(400, "bad_parameter");
}

#[test]
fn messages_under_the_owners_name_say_so_after_their_sender() {
    let server = Server::patient(&[]);
    let room = Room::new(&server);
    let me = server.introduce(&room.owner, "the host");
    server.write(&room.owner, "anonymous");
    server.call_as(&me, "/write", &room.owner, "known");
    server.call_as(&me, "/write", &room.channel, "under the other name");
    let text = server.read(&room.channel, "1").text().to_owned();
    for part in [
        r#","from":1,"owner":true,"message":"the host"}"#,
        r#"0,"owner":true,"message":"anonymous"}"#,
        r#","from":1,"owner":true,"message":"known"}"#,
        r#","from":1,"message":"under the other name"}"#,
    ] {
        // The digits of a time come before what has no sender.
        let part = part.trim_start_matches('0');
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert_eq!(text.matches(r#""owner":true"#).count(), 3);
}

#[test]
fn a_removed_message_keeps_its_place_and_loses_its_text() {
    let server = Server::patient(&[]);
    let room = Room::new(&server);
    let me = server.introduce(&room.channel, "Josh");
    server.call_as(&me, "/write", &room.channel, "shameful");
    server.write(&room.owner, "without a sender");
    let before = server.read(&room.channel, "1").messages();
    assert_eq!(room.remove(2), 4);
    assert_eq!(room.remove(3), 5);
    let after = server.read(&room.channel, "2");
    assert_eq!(
        timeless_all(&after),
        [
            r#"{"from":1,"id":2,"type":"removed"}"#,
            r#"{"id":3,"type":"removed"}"#,
            r#"{"id":4,"of":2,"type":"removal"}"#,
            r#"{"id":5,"of":3,"type":"removal"}"#,
        ]
    );
    let after = after.messages();
    assert_eq!((&after[0]["time"], &after[1]["time"]), (&before[1]["time"], &before[2]["time"]));
    let text = server.read(&room.channel, "0").text().to_owned();
    assert!(!text.contains("shameful") && !text.contains("without"), "{text}");
    let keys = format!(r#"{{"id":2,"type":"removed","time":{},"from":1}}"#, before[1]["time"]);
    assert!(text.contains(&keys), "{text}");
    // What is removed again stays so, and each removal has a message of its own. Removals and
    // goodbyes can be removed too.
    assert_eq!((room.remove(2), room.remove(4)), (6, 7));
    server.goodbye(&me);
    assert_eq!(room.remove(8), 9);
    let events = server.read(&room.channel, "1").events();
    let expected = "introduction removed removed removed removal removal removal removed removal";
    assert_eq!(events.join(" "), expected);
}

#[test]
fn readers_that_wait_get_the_removal() {
    let server = Server::patient(&[]);
    let room = Room::new(&server);
    server.write(&room.channel, "shameful");
    let params = [("channel", &*room.channel), ("from_id", "2")];
    let mut poll = server.park(&params);
    let mut script =
        server.park(&[("channel", &*room.channel), ("from_id", "2"), ("callback", "f")]);
    let mut events = server.events(&params);
    let mut socket = server.socket(&params);
    server.wait_for_readers(&room.channel, 4);
    let id = room.remove(1);
    let removal = format!(r#"{{"id":{id},"of":1,"type":"removal"}}"#);
    assert_eq!(timeless_all(&poll.response().ok()), [&*removal]);
    let text = script.response().ok().text().to_owned();
    assert!(text.starts_with("/**/f({") && text.contains(r#","of":1}"#), "{text}");
    assert_eq!(timeless(events.messages(1).remove(0)), removal);
    assert_eq!(timeless(socket.json()["messages"][0].take()), removal);
}

/// A message that is removed in the turn in which it came is never seen.
#[test]
fn a_read_that_begins_after_a_removal_does_not_get_the_text() {
    let server = Server::patient(&[]);
    let room = Room::new(&server);
    for number in 1..20 {
        let id = server.write(&room.channel, &format!("secret {number}"));
        room.remove(id);
        let text = server.read(&room.channel, "0").text().to_owned();
        assert!(!text.contains("secret"), "{text}");
    }
}

/// A slow reader has the text in its queue already, and gets the removal after it.
#[test]
fn a_reply_that_is_being_sent_ends_as_it_began() {
    let server = Server::patient(&["--max-message", "1m", "--max-backlog", "16m"]);
    let room = Room::new(&server);
    let params = [("channel", &*room.channel), ("from_id", "1")];
    let slow = Client::connect_narrow(server.address());
    let mut slow = common::Socket::open(slow, &params, &[]);
    server.wait_for_readers(&room.channel, 1);
    let text = "x".repeat(1 << 20);
    for _ in 0..4 {
        let target = format!("/write?channel={}", room.channel);
        server.client().post(&target, "text/plain", &text).ok();
    }
    let id = room.remove(1);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last: &Value| last["id"] != id) {
        let mut answer = slow.json();
        seen.append(answer["messages"].as_array_mut().unwrap());
    }
    let ids: Vec<_> = seen.iter().map(|message| message["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    for message in &seen[..4] {
        let is_whole = message["message"] == text;
        assert!(is_whole || message["type"] == "removed", "{}", message["type"]);
    }
    assert_eq!(seen[4]["of"], 1);
}

#[test]
fn a_member_whose_introduction_is_removed_stays_without_a_text() {
    for history in ["100", "1"] {
        let server = Server::patient(&["--history", history]);
        let room = Room::new(&server);
        let josh = server.introduce(&room.channel, "Josh");
        let host = server.introduce(&room.owner, "the host");
        server.write(&room.channel, "howdy");
        room.remove(josh.id);
        room.remove(host.id);
        let members = server.members(&room.channel)["members"].take();
        for (member, id) in members.as_array().unwrap().iter().zip([1, 2]) {
            assert_eq!((&member["message"], &member["id"]), (&json!(""), &json!(id)));
        }
        let all = timeless_all(&server.read(&room.channel, "0"));
        assert_eq!(
            all[..2],
            [
                r#"{"from":1,"id":1,"message":"","type":"introduction"}"#,
                r#"{"from":2,"id":2,"message":"","owner":true,"type":"introduction"}"#,
            ]
        );
        let ids: Vec<_> = server.read(&room.channel, "0").ids();
        assert!(ids.is_sorted_by(|one, next| one < next), "each once, by id: {ids:?}");
        let mut events = server.events(&[("channel", &*room.channel), ("from_id", "0")]);
        assert_eq!(events.messages(2).into_iter().map(timeless).collect::<Vec<_>>(), all[..2]);
        if history == "100" {
            // In the history both are removed.
            assert_eq!(server.read(&room.channel, "1").events()[..2], ["removed", "removed"]);
        }
        // A new introduction has a text again, and an old one that is removed changes nothing.
        let again = josh.and(&[("channel", &*room.channel), ("message", "Joshua")]);
        server.get("/introduce", &again).ok();
        room.remove(josh.id);
        assert_eq!(server.members(&room.channel)["members"][0]["message"], "Joshua");
        assert!(server.read(&room.channel, "0").texts().contains(&"Joshua".to_owned()));
        server.goodbye(&host);
        let all = server.read(&room.channel, "0").text().to_owned();
        assert!(!all.contains(r#""owner":true"#), "a goodbye ends the introduction: {all}");
    }
}

#[test]
fn an_id_that_was_given_is_removed_though_history_has_dropped_it() {
    let server = Server::patient(&["--history", "1"]);
    let room = Room::new(&server);
    (0..3).for_each(|_| _ = server.write(&room.channel, "m"));
    assert_eq!(room.remove(1), 4);
    assert_eq!(
        timeless_all(&server.read(&room.channel, "1")),
        [r#"{"id":4,"of":1,"type":"removal"}"#]
    );
    for id in ["0", "-1", "5", "9007199254740991", "9007199254740992", "", "x", "1.0"] {
        let params = [("channel", &*room.owner), ("id", id)];
        server.get("/remove", &params).fails_with(400, "bad_parameter");
    }
    server.get("/remove", &[("channel", &*room.owner)]).fails_with(400, "missing_parameter");
    server.get("/remove", &[("id", "1")]).fails_with(400, "missing_parameter");
    // In a room without a message, no id was given.
    let unused = Room::new(&server);
    let params = [("channel", &*unused.owner), ("id", "1")];
    server.get("/remove", &params).fails_with(400, "bad_parameter");
}

#[test]
fn only_the_secret_name_moderates() {
    let server = Server::patient(&[]);
    let [inbox, feed, room] = ["inbox", "feed", "room"].map(|kind| {
        let names = server.get("/create", &[("kind", kind)]).ok().json();
        let names: Vec<_> = names.as_object().unwrap().values().collect();
        let names: Vec<_> = names.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        let is_secret = |name: &&String| ["~r", "~f", "~o"].iter().any(|it| name.starts_with(it));
        let secret = names.iter().find(is_secret).unwrap().clone();
        let given = names.iter().find(|name| !is_secret(name)).unwrap().clone();
        (secret, given)
    });
    let writes = [&inbox.1, &feed.0, &room.1];
    for ((secret, given), write) in [&inbox, &feed, &room].into_iter().zip(writes) {
        let id = server.write(write, "m").to_string();
        server.get("/remove", &[("channel", &**given), ("id", &*id)]).fails_with(403, "not_owner");
        server.get("/remove", &[("channel", &**secret), ("id", &*id)]).ok();
    }
    server.write("lobby", "m");
    server.get("/remove", &[("channel", "lobby"), ("id", "1")]).fails_with(403, "not_owner");
    let me = server.introduce(&room.1, "Josh");
    for name in ["lobby", &inbox.0, &inbox.1, &feed.0, &feed.1, &room.1] {
        let params = [("channel", name), ("connection", &*me.connection)];
        server.get("/kick", &params).fails_with(403, "not_owner");
    }
    // A name that only looks like the owner's is that of another room.
    let crafted = format!("~o{}", room.1[2..].replace(['-', '_'], "x"));
    kicked(&server.get("/kick", &[("channel", &*crafted), ("connection", &*me.connection)]));
    server.get("/remove", &[("channel", &*crafted), ("id", "1")]).fails_with(400, "bad_parameter");
    assert_eq!(server.members(&room.1)["members"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_kick_is_a_goodbye_in_that_room_alone() {
    let server = Server::patient(&[]);
    let room = Room::new(&server);
    let josh = server.introduce(&room.channel, "Josh");
    let elsewhere = josh.and(&[("channel", "elsewhere"), ("message", "Josh")]);
    server.get("/introduce", &elsewhere).ok();
    let mut poll = server.park(&josh.and(&[("channel", "elsewhere"), ("from_id", "2")]));
    kicked(&room.kick(&josh, &[("message", "enough")]));
    assert_eq!(
        timeless_all(&server.read(&room.channel, "2")),
        [r#"{"from":1,"id":2,"message":"enough","reason":"removed","type":"goodbye"}"#]
    );
    assert_eq!(server.members(&room.channel)["members"].as_array().map(Vec::len), Some(0));
    // The connection lives on, its read goes on, and it may come again.
    server.write("elsewhere", "m");
    assert_eq!(poll.response().ok().texts(), ["m"]);
    server.get("/introduce", &josh.and(&[("channel", &*room.channel), ("message", "J")])).ok();
    kicked(&room.kick(&josh, &[("seconds", "0")]));
    let text = server.read(&room.channel, "4").text().to_owned();
    assert!(text.contains(r#","from":1,"reason":"removed"}"#), "without a message: {text}");
    // Not being there adds nothing.
    for connection in ["1", "2", "0", "-1", "9007199254740991"] {
        let params = [("channel", &*room.owner), ("connection", connection)];
        kicked(&server.get("/kick", &params));
    }
    assert_eq!(server.read(&room.channel, "5").events(), [""; 0]);
}

#[test]
fn readers_that_wait_see_a_kick() {
    let server = Server::patient(&[]);
    let room = Room::new(&server);
    let josh = server.introduce(&room.channel, "Josh");
    let mut own = server.park(&josh.and(&[("channel", &*room.channel), ("from_id", "2")]));
    let mut events = server.events(&[("channel", &*room.channel), ("from_id", "2")]);
    let mut socket = server.socket(&[("channel", &*room.channel), ("from_id", "2")]);
    server.wait_for_readers(&room.channel, 3);
    kicked(&room.kick(&josh, &[]));
    assert_eq!(own.response().ok().events(), ["goodbye removed"]);
    assert_eq!(events.messages(1)[0]["reason"], "removed");
    assert_eq!(socket.json()["messages"][0]["reason"], "removed");
    // The read goes on: the connection is still one.
    own.send_get(
        "/read",
        &josh.and(&[("channel", &*room.channel), ("from_id", "3"), ("timeout", "0")]),
    );
    own.response().ok();
}

#[test]
fn parameters_of_a_kick_are_checked_before_anything_happens() {
    let server = Server::patient(&["--max-message", "10"]);
    let room = Room::new(&server);
    let josh = server.introduce(&room.channel, "Josh");
    for seconds in ["-1", "86401", "", "x", "1.5", "9007199254740992"] {
        room.kick(&josh, &[("seconds", seconds)]).fails_with(400, "bad_parameter");
    }
    for connection in ["", "x", "9007199254740992"] {
        let params = [("channel", &*room.owner), ("connection", connection)];
        server.get("/kick", &params).fails_with(400, "bad_parameter");
    }
    let without = [("channel", &*room.owner)];
    server.get("/kick", &without).fails_with(400, "missing_parameter");
    room.kick(&josh, &[("message", "01234567890")]).fails_with(413, "message_too_large");
    room.kick(&josh, &[("seconds", "1"), ("seconds", "1")]).fails_with(400, "bad_parameter");
    let target = format!("/kick?channel={}&connection=1", room.owner);
    let form = server.client().post(&target, "multipart/form-data; boundary=x", "x");
    form.fails_with(415, "unsupported_media_type");
    assert_eq!(server.read(&room.channel, "2").events(), [""; 0]);
    // An auth code belongs to no parameter of it.
    kicked(&room.kick(&josh, &[("auth", "wrong"), ("seconds", "86400")]));
    // The body of a POST is the message.
    let ann = server.introduce(&room.owner, "Ann");
    let target = format!("/kick?channel={}&connection={}", room.owner, ann.number);
    kicked(&server.client().post(&target, "text/plain", "0123456789"));
    assert_eq!(server.read(&room.channel, "4").texts(), ["0123456789"]);
    let target = format!("/remove?channel={}&id=1", room.owner);
    server.client().post(&target, "text/plain", "1").ok();
    for path in ["/remove", "/kick"] {
        server.client().post_form(path, &[]).fails_with(400, "missing_parameter");
        let methods = server.client().call(support::http::request("PUT", path, &[], None));
        methods.fails_with(405, "method_not_allowed");
        assert_eq!(methods.header("allow"), Some("GET, POST, OPTIONS"));
    }
}

#[test]
fn frames_remove_and_kick() {
    let server = Server::patient(&[]);
    let room = Room::new(&server);
    let josh = server.introduce(&room.channel, "Josh");
    let mut socket = server.socket(&[("channel", "other")]);
    let (owner, channel, number) = (&room.owner, &room.channel, josh.number);
    let remove = |name: &str, number: u64| -> Value {
        json!({"call": "remove", "channel": name, "id": 1, "ref": number})
    };
    assert_eq!(socket.call(&remove(channel, 1))["error"], "not_owner");
    assert_eq!(socket.call(&remove(owner, 2)), json!({"ref": 2, "id": 2}));
    let kick = json!({"call": "kick", "channel": owner, "connection": number, "seconds": 5,
                      "message": "enough", "ref": 3});
    assert_eq!(socket.call(&kick), json!({"ref": 3, "ok": true}));
    assert_eq!(server.read(channel, "3").texts(), ["enough"]);
    // This socket has the address that was sent away.
    for call in ["write", "introduce"] {
        let call = json!({"call": call, "channel": channel, "message": "m", "ref": 4});
        assert_eq!(socket.call(&call)["error"], "removed");
    }
    let call = json!({"call": "write", "channel": owner, "message": "m", "ref": 5});
    assert_eq!(socket.call(&call)["id"], 4);
    for (call, field) in [("remove", "id"), ("kick", "seconds")] {
        let call = json!({"call": call, "channel": owner, "connection": 1, field: "x", "ref": 6});
        assert_eq!(socket.call(&call)["error"], "bad_parameter");
        let call = json!({"call": call["call"], "channel": owner, "connection": 1, field: true});
        assert_eq!(socket.call(&call)["error"], "bad_parameter");
    }
}

#[test]
fn an_address_that_was_sent_away_adds_nothing_until_its_time_is_over() {
    let server = Server::patient(&FORWARDED);
    let room = Room::new(&server);
    let troll = room.introduce_from(TROLL, "Troll");
    let other = room.introduce_from(TROLL, "Other troll");
    let neighbour = room.introduce_from(NEIGHBOUR, "Ann");
    kicked(&room.kick(&troll, &[("seconds", "3600")]));
    let message = [("message", "m")];
    for path in ["/write", "/introduce"] {
        room.call_from(TROLL, path, &message).fails_with(403, "removed");
        room.call_from(TROLL, path, &neighbour.and(&message)).fails_with(403, "removed");
    }
    // What leaves would add a goodbye.
    for params in [other.and(&message), other.and(&[])] {
        room.call_from(TROLL, "/goodbye", &params).fails_with(403, "removed");
    }
    let all =
        server.client().get_with("/goodbye", &other.and(&message), &[("X-Forwarded-For", TROLL)]);
    all.fails_with(403, "removed");
    assert_eq!(server.read(&room.channel, "5").events(), [""; 0]);
    // It reads, and adds elsewhere. Who was kicked may still leave what they are in.
    room.call_from(TROLL, "/read", &[("timeout", "0")]).ok();
    room.call_from(TROLL, "/members", &[]).ok();
    call_from(&server, TROLL, "/write", "lobby", &message).ok();
    kicked(&room.call_from(TROLL, "/goodbye", &troll.and(&[])));
    // Everybody else adds, and so does the owner wherever they are.
    room.call_from(NEIGHBOUR, "/write", &message).ok();
    room.call_from(NEIGHBOUR, "/write", &troll.and(&message)).ok();
    call_from(&server, TROLL, "/write", &room.owner, &message).ok();
    call_from(&server, TROLL, "/introduce", &room.owner, &message).ok();
    kicked(&call_from(&server, TROLL, "/goodbye", &room.owner, &other.and(&[])));
    // The room of another owner is not theirs.
    let elsewhere = Room::new(&server);
    elsewhere.call_from(TROLL, "/write", &message).ok();
}

#[test]
fn the_time_of_an_address_ends() {
    let server = Server::patient(&FORWARDED);
    let room = Room::new(&server);
    let troll = room.introduce_from(TROLL, "Troll");
    kicked(&room.kick(&troll, &[("seconds", "1")]));
    common::until("the troll may write again", || {
        let answer = room.call_from(TROLL, "/write", &[("message", "m")]);
        if answer.status == 200 {
            return true;
        }
        answer.fails_with(403, "removed");
        false
    });
    assert_eq!(room.introduce_from(TROLL, "Troll").number, 2);
}

#[test]
fn an_address_is_that_of_ipv4_or_the_network_of_ipv6() {
    let server = Server::patient(&FORWARDED);
    let cases = [
        ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
        ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
        ("::1", "::2", "127.0.0.1"),
    ];
    for (introduced, same, other) in cases {
        let room = Room::new(&server);
        let troll = room.introduce_from(introduced, "Troll");
        kicked(&room.kick(&troll, &[("seconds", "60")]));
        room.call_from(same, "/write", &[("message", "m")]).fails_with(403, "removed");
        room.call_from(other, "/write", &[("message", "m")]).ok();
    }
}

/// The newest introduction in the room counts, wherever the connection was introduced before.
#[test]
fn the_address_is_that_of_the_introduction_in_the_room() {
    let server = Server::patient(&FORWARDED);
    let room = Room::new(&server);
    let troll = call_from(&server, NEIGHBOUR, "/introduce", "lobby", &[("message", "Troll")]);
    let troll = Identity::from_answer(&troll.ok());
    room.call_from(TROLL, "/introduce", &troll.and(&[("message", "Troll")])).ok();
    kicked(&room.kick(&troll, &[("seconds", "60")]));
    room.call_from(TROLL, "/write", &[("message", "m")]).fails_with(403, "removed");
    room.call_from(NEIGHBOUR, "/write", &[("message", "m")]).ok();
}

/// 1,025 addresses: the one whose time ends first has to make room.
#[test]
fn a_room_remembers_1024_addresses() {
    let server = Server::patient(&FORWARDED);
    let room = Room::new(&server);
    let address = |number: usize| format!("10.0.{}.{}", number / 256, number % 256);
    let mut client = server.client();
    for number in 0..1025 {
        let from = address(number);
        let headers = [("X-Forwarded-For", &*from)];
        let params = [("channel", &*room.channel), ("message", "Troll")];
        let troll = Identity::from_answer(&client.get_with("/introduce", &params, &headers).ok());
        // The tenth ends first.
        let seconds = if number == 10 { "5000" } else { "9000" };
        let kick =
            [("channel", &*room.owner), ("connection", &*troll.connection), ("seconds", seconds)];
        kicked(&client.get("/kick", &kick));
    }
    let free: Vec<_> = (0..1025)
        .filter(|number| {
            let params = [("message", "m")];
            room.call_from(&address(*number), "/write", &params).status == 200
        })
        .collect();
    assert_eq!(free, [10]);
}

#[test]
fn a_kicked_client_without_an_address_is_only_kicked() {
    let folder = Folder::new("rooms");
    let socket = folder.file("socket");
    let listen = format!("unix:{}", socket.display());
    let server = Server::alone(&["--listen", &listen, "--connection-timeout", "1h"]);
    let room = Room::new(&server);
    let target = support::http::target(
        "/introduce",
        &[("channel", &room.channel), ("message", "over a socket")],
    );
    let answer = common::get_at(&socket, &target);
    assert!(answer.contains("\"connection\":1"), "{answer}");
    let params = [("channel", &*room.owner), ("connection", "1"), ("seconds", "60")];
    kicked(&server.get("/kick", &params));
    let target = support::http::target("/write", &[("channel", &*room.channel), ("message", "m")]);
    let answer = common::get_at(&socket, &target);
    assert!(answer.contains("{\"id\":3}"), "{answer}");
}

/// A process that continues knows who was sent away, and what was removed.
#[test]
fn a_restart_and_an_upgrade_keep_addresses_and_removals() {
    for keeps in ["state", "journal", "upgrade"] {
        let folder = Folder::new("rooms");
        let file = folder.file("kept").display().to_string();
        let mut options = vec!["--connection-timeout", "1h"];
        options.extend(FORWARDED);
        let option = format!("--{keeps}");
        if keeps != "upgrade" {
            options.extend([&*option, &*file]);
        }
        let mut server = Server::alone(&options);
        let (owner, channel) = {
            let room = Room::new(&server);
            let troll = room.introduce_from(TROLL, "Troll");
            room.introduce_from(NEIGHBOUR, "Ann");
            server.write(&room.owner, "shameful");
            kicked(&room.kick(&troll, &[("seconds", "3600")]));
            room.remove(2);
            room.remove(3);
            (room.owner, room.channel)
        };
        let before = server.read(&channel, "0").messages();
        if keeps == "upgrade" {
            server.upgrade();
        } else {
            server.stop();
            server = Server::alone(&options);
        }
        let room = Room { server: &server, owner, channel };
        assert_eq!(server.read(&room.channel, "0").messages(), before, "{keeps}");
        assert_eq!(before[1]["message"], "", "the introduction of a member");
        assert_eq!(server.members(&room.channel)["members"][0]["message"], "");
        let message = [("message", "m")];
        room.call_from(TROLL, "/write", &message).fails_with(403, "removed");
        room.call_from(NEIGHBOUR, "/write", &message).ok();
        // Ann's address is known too.
        let params = [("channel", &*room.owner), ("connection", "2"), ("seconds", "60")];
        kicked(&server.get("/kick", &params));
        room.call_from(NEIGHBOUR, "/write", &message).fails_with(403, "removed");
    }
}

#[test]
fn pages_of_other_origins_do_not_moderate() {
    let server = Server::patient(&["--allow-origin", "https://example.org"]);
    let room = Room::new(&server);
    let josh = server.introduce(&room.channel, "Josh");
    let remove = [("channel", &*room.owner), ("id", "1")];
    let kick = [("channel", &*room.owner), ("connection", &*josh.connection)];
    for (path, params) in [("/remove", remove), ("/kick", kick)] {
        for origin in [("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")] {
            let answer = server.client().get_with(path, &params, &[origin]);
            answer.fails_with(403, "bad_origin");
        }
        let prefetch = server.client().get_with(path, &params, &[("Sec-Purpose", "prefetch")]);
        prefetch.fails_with(403, "bad_request");
        let own = server.client().get_with(path, &params, &[("Origin", "https://example.org")]);
        assert_eq!(own.ok().header("access-control-allow-origin"), Some("https://example.org"));
    }
}

#[test]
fn a_script_tag_moderates_too() {
    let server = Server::patient(&[]);
    let room = Room::new(&server);
    let josh = server.introduce(&room.channel, "Josh");
    let script = |path: &str, params: &Params| {
        let params = [params, &[("callback", "f")]].concat();
        server.get(path, &params).ok().text().to_owned()
    };
    let remove = [("channel", &*room.owner), ("id", "1")];
    assert_eq!(script("/remove", &remove), r#"/**/f({"id":2});"#);
    let wrong = script("/remove", &[("channel", &*room.channel), ("id", "1")]);
    assert!(wrong.starts_with(r#"/**/f({"error":"not_owner""#), "{wrong}");
    assert!(wrong.ends_with(r#""status":403});"#), "{wrong}");
    let kick = [("channel", &*room.owner), ("connection", &*josh.connection)];
    assert_eq!(script("/kick", &kick), r#"/**/f({"ok":true});"#);
}

#[test]
fn removals_count_against_the_rate_of_an_address_and_kicks_do_not() {
    let server = Server::patient(&["--max-rate", "1"]);
    let room = Room::new(&server);
    let josh = server.introduce(&room.channel, "Josh");
    let remove = || server.get("/remove", &[("channel", &*room.owner), ("id", "1")]);
    let answers: Vec<_> = (0..50).map(|_| remove()).collect();
    assert!(answers.iter().any(|answer| answer.status == 429), "no limit of removals");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        answer.fails_with(429, "too_many_requests");
    }
    (0..50).for_each(|_| kicked(&room.kick(&josh, &[])));
}
