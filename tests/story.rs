//! The story on the first page of the documentation, played over sockets.

mod common;

use common::Server;

#[test]
fn a_written_message_can_be_read() {
    let server = Server::start();
    let answer = server.get("/write", &[("channel", "test"), ("message", "howdy")]);
    assert_eq!(answer.ok().text(), r#"{"id":1}"#);

    let answer = server.get("/read", &[("channel", "test"), ("from_id", "1")]);
    let messages = answer.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0]["type"], "message");
    assert_eq!(messages[0]["message"], "howdy");
    assert_eq!(answer.next_id(), 2);
}

#[test]
fn two_people_meet_talk_and_part() {
    let server = Server::start();

    let josh = server.introduce("test", "Josh");
    let mut josh_reads = server.park(&josh.and(&[("channel", "test"), ("from_id", "2")]));

    // Ann joins and lists the members; Josh sees her join.
    let ann = server.introduce("test", "Ann");
    assert_eq!((josh.number, ann.number), (1, 2));
    let list = server.get("/read", &ann.and(&[("channel", "test"), ("from_id", "0")]));
    assert_eq!(list.texts(), ["Josh", "Ann"]);
    assert_eq!(list.next_id(), 3);
    let news = josh_reads.response();
    assert_eq!(news.texts(), ["Ann"]);
    assert_eq!(news.messages()[0]["from"], 2);

    // They talk.
    let mut ann_reads = server.park(&ann.and(&[("channel", "test"), ("from_id", "3")]));
    let written = server.call_as(&josh, "/write", "test", "howdy");
    assert_eq!(written.text(), r#"{"id":3}"#);
    let heard = ann_reads.response();
    assert_eq!(heard.texts(), ["howdy"]);
    assert_eq!(heard.messages()[0]["from"], 1);

    // Josh leaves; Ann gets his goodbye with its reason.
    let mut ann_reads = server.park(&ann.and(&[("channel", "test"), ("from_id", "4")]));
    server.goodbye(&josh);
    let goodbye = ann_reads.response();
    assert_eq!(goodbye.events(), ["goodbye left"]);
    assert_eq!(goodbye.messages()[0]["from"], 1);

    // Ann just closes her window; the remaining reader gets that goodbye too.
    let mut watcher = server.park(&[("channel", "test"), ("from_id", "5")]);
    drop(server.park(&ann.and(&[("channel", "test"), ("from_id", "5")])));
    let goodbye = watcher.response();
    assert_eq!(goodbye.events(), ["goodbye closed"]);
    assert_eq!(goodbye.messages()[0]["from"], 2);
}

#[test]
fn a_private_pair_is_an_inbox() {
    let server = Server::start();
    let pair = server.get("/create", &[]).ok().json();
    let read = pair["read"].as_str().expect("a name to read from");
    let write = pair["write"].as_str().expect("a name to write to");

    let mut owner = server.park(&[("channel", read)]);
    assert_eq!(server.write(write, "psst"), 1);
    assert_eq!(owner.response().texts(), ["psst"]);

    // The write name allows neither reading nor listing the readers.
    let peek = server.get("/read", &[("channel", write), ("from_id", "1")]);
    peek.fails_with(403, "not_readable");
    let forged = [("channel", read), ("message", "forged")];
    server.get("/write", &forged).fails_with(403, "not_writable");

    // A guest can introduce itself: only the owner sees it join and leave.
    let guest = server.introduce(write, "guest");
    let news = server.read(read, "2");
    assert_eq!(news.texts(), ["guest"]);
    assert_eq!(server.members(read)["members"][0]["message"], "guest");
    server.goodbye(&guest);
    assert_eq!(server.read(read, "3").events(), ["goodbye left"]);
}

#[test]
fn a_reader_continues_with_next_id() {
    let server = Server::start();
    let mut heard = Vec::new();
    let mut reader = server.park(&[("channel", "test")]);
    for round in 1..=20 {
        server.write("test", &format!("line {round}"));
        let answer = reader.response();
        heard.extend(answer.texts());
        let next_id = answer.next_id().to_string();
        reader.send_get("/read", &[("channel", "test"), ("from_id", &next_id)]);
    }
    let written: Vec<String> = (1..=20).map(|round| format!("line {round}")).collect();
    assert_eq!(heard, written);
}
