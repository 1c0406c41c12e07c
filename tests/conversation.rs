//! One conversation, in all ways of reading, across a restart: what a build for another processor
//! has to do. `dist/processors.sh` runs it with each of them.

mod common;

use common::{Folder, Server, command, run};
use rustix::process::Signal;
use serde_json::json;

#[test]
fn a_conversation_continues_after_a_restart() {
    let mut version = command();
    version.arg("--version");
    let version = run(version);
    let expected = concat!("speak ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((version.code, &*version.stdout), (Some(0), expected), "{version:?}");

    let folder = Folder::new("conversation");
    let state = folder.file("state").display().to_string();
    // Emulators are slow: no time may run out.
    let options = ["--state", &state, "--connection-timeout", "1h", "--request-timeout", "1m"];
    let mut server = Server::with(&options);

    // More clients than one, also in a place that another had before.
    assert_eq!(server.write("room", "howdy"), 1);
    assert_eq!(server.read("room", "1").texts(), ["howdy"]);
    let josh = server.introduce("room", "Josh");
    let ann = server.introduce("room", "Ann");
    assert_eq!((josh.number, ann.number), (1, 2));
    let mut poll = server.park(&ann.and(&[("channel", "room"), ("from_id", "4")]));
    let mut events = server.events(&[("channel", "room"), ("from_id", "1")]);
    assert_eq!(events.texts(3), ["howdy", "Josh", "Ann"]);
    let mut socket = server.socket(&josh.and(&[("channel", "room"), ("from_id", "4")]));
    server.wait_for_readers("room", 3);

    let hello = json!({"call": "write", "channel": "room", "message": "h\u{e9}llo \u{1f600}",
        "connection": josh.number, "auth": josh.auth, "ref": "a"});
    assert_eq!(socket.call(&hello), json!({"ref": "a", "id": 4}));
    assert_eq!(socket.json()["messages"][0]["message"], "h\u{e9}llo \u{1f600}");
    assert_eq!(events.texts(1), ["h\u{e9}llo \u{1f600}"]);
    let answer = poll.response().ok();
    assert_eq!(answer.messages()[0]["from"], 1);
    let epoch = answer.json()["epoch"].clone();
    // The largest message, in pieces, to a new client.
    let large = "x".repeat(65_536);
    server.client().post("/write?channel=room", "text/plain", &large).ok();
    assert!(server.read("room", "5").texts() == [large], "another text");

    let mut poll = server.park(&[("channel", "room"), ("from_id", "6")]);
    server.signal(Signal::TERM);
    assert_eq!(poll.response().ok().ids(), [0; 0]);
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.log());

    let server = Server::with(&options);
    let answer = server.read("room", "0");
    assert_eq!(answer.texts()[..4], ["howdy", "Josh", "Ann", "h\u{e9}llo \u{1f600}"]);
    assert_eq!((answer.next_id(), &answer.json()["epoch"]), (6, &epoch));
    let again = josh.and(&[("channel", "room"), ("message", "back")]);
    assert_eq!(server.get("/write", &again).ok().text(), r#"{"id":6}"#);
    assert_eq!(server.get("/goodbye", &ann.and(&[])).ok().text(), r#"{"ok":true}"#);
    assert_eq!(server.read("room", "7").events(), ["goodbye left"]);
}
