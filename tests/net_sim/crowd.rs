//! A crowd that no seed brings about: one for which no turn is ever long enough.

use support::http::{get, request};
use support::ws::{HANDSHAKE, TEXT, client_frame};

use crate::network::Segment;
use crate::room::Room;

const SOCKETS: usize = 8;

/// Weight of a step with which a turn has time for one response.
/// Half of the time goes to clients that earlier turns left out.
const ONE_RESPONSE: usize = 2_000;
/// Weight of a step with which a turn has time for two responses. The turn notices the second one
/// after it has delivered.
const TWO_RESPONSES: usize = 600;

impl Room {
    /// Starts a server whose history is short; each step of a turn counts for so many.
    fn short(weight: usize) -> Self {
        Self::new(weight, ["--history=4"])
    }

    /// Opens sockets on one channel, for which each delivery keeps the others waiting.
    /// One may carry a session.
    fn open_sockets(&mut self, credentials: Option<(usize, &str)>) -> Vec<usize> {
        let sockets: Vec<usize> = (0..SOCKETS).map(|_| self.connect()).collect();
        for (place, socket) in sockets.iter().enumerate() {
            let own = credentials.filter(|(owner, _)| *owner == place);
            let query = own.map_or("", |(_, query)| query);
            let target = format!("/read?channel=c{query}");
            self.send(*socket, request("GET", &target, &HANDSHAKE, None));
        }
        self.rest();
        assert!(sockets.iter().all(|socket| self.has_got(*socket, "HTTP/1.1 101 ")));
        sockets
    }

    fn write(&self, writer: usize) {
        self.send(writer, get("/write?channel=c&message=m"));
    }
}

/// A call in a frame.
fn call() -> Vec<u8> {
    client_frame(TEXT, br#"{"call":"write","channel":"d","message":"m","ref":77}"#)
}

#[test]
fn calls_of_sockets_that_get_messages_without_end_are_done() {
    let mut room = Room::short(ONE_RESPONSE);
    let writer = room.connect();
    let sockets = room.open_sockets(None);
    for turn in 0..500 {
        room.write(writer);
        if turn == 100 {
            for socket in &sockets {
                room.send(*socket, call());
            }
        }
        room.turn();
    }
    assert!(room.has_got(writer, r#"{"id":500"#));
    for socket in sockets {
        assert!(room.has_got(socket, r#""ref":77"#), "the call of {socket} was never done");
        let is_fed = (460..=500).any(|id| room.has_got(socket, &format!(r#"{{"id":{id},"#)));
        assert!(is_fed, "{socket} gets responses, and no messages");
    }
}

#[test]
fn calls_of_a_socket_before_it_closed_are_done_even_if_they_were_deferred() {
    let mut room = Room::short(ONE_RESPONSE);
    let writer = room.connect();
    let sockets = room.open_sockets(None);
    for turn in 0..300 {
        room.write(writer);
        if turn == 10 {
            for socket in &sockets {
                room.send(*socket, call().repeat(4));
                room.net.borrow_mut().send(*socket, Segment::Fin, 0);
            }
        }
        room.turn();
    }
    room.send(writer, get("/read?channel=d&from_id=0"));
    room.turn();
    assert!(
        room.has_got(writer, &format!(r#""next_id":{}"#, 4 * sockets.len() + 1)),
        "some of it was not done"
    );
    room.rest();
    assert!(sockets.iter().all(|socket| room.net.borrow().links[*socket].is_dropped));
}

#[test]
fn a_client_found_closed_late_in_a_turn_is_said_goodbye_to_all_the_same() {
    for place in 0..SOCKETS {
        let mut room = Room::short(TWO_RESPONSES);
        let (writer, waiting) = (room.connect(), room.connect());
        let credentials = room.introduce(writer);
        room.send(waiting, get("/read?channel=d"));
        let sockets = room.open_sockets(Some((place, &credentials)));
        room.write(writer);
        // The server notices that the client is gone when it sends.
        room.net.borrow_mut().links[sockets[place]].fuse = Some(1);
        room.rest();
        assert!(room.has_got(waiting, r#""reason":"closed""#), "{place}");
    }
}

#[test]
fn silent_sockets_are_closed_even_if_no_turn_has_time_for_them() {
    let mut room = Room::new(ONE_RESPONSE, ["--heartbeat=400ms"]);
    let writer = room.connect();
    let sockets = room.open_sockets(None);
    for _ in 0..1_250 {
        room.now_ms += 1;
        room.write(writer);
        room.turn();
    }
    assert!(sockets.iter().all(|socket| room.net.borrow().links[*socket].is_dropped));
}

#[test]
fn an_event_stream_that_ends_has_the_messages_of_its_last_turn() {
    // History retains none of them for the next stream.
    let options = ["--history=0", "--stream-life=1s", "--connection-timeout=1h"];
    let mut room = Room::new(1, options);
    let (writer, stream) = (room.connect(), room.connect());
    let target = format!("/read?channel=c{}", room.introduce(writer));
    room.send(stream, request("GET", &target, &[("Accept", "text/event-stream")], None));
    room.rest();
    let is_over = |room: &Room| room.net.borrow().links[stream].has_server_fin;
    while !is_over(&room) {
        room.now_ms += 1;
        room.write(writer);
        room.turn();
    }
    assert!((900..1_100).contains(&room.now_ms), "{} ms", room.now_ms);
    assert!(room.has_got(stream, &format!(r#"{{"id":{},"#, room.now_ms)));
}

#[test]
fn a_pipelining_client_is_limited_to_its_share_of_a_turn_and_to_less_if_others_wait() {
    let answers = |room: &Room, place: usize| {
        let net = room.net.borrow();
        net.links[place].tape.windows(9).filter(|bytes| bytes == b"HTTP/1.1 ").count()
    };
    // More than comes in one read, and far more than the share of a client.
    let flood = "GET /health HTTP/1.1\r\nHost:\r\n\r\n".repeat(8_000);
    let mut room = Room::short(1);
    let flooding: Vec<usize> = (0..3).map(|_| room.connect()).collect();
    room.rest();
    room.send(flooding[0], flood.as_bytes());
    room.turn();
    assert_eq!(answers(&room, flooding[0]), 1_024 - 16, "the read of 64 KiB counts too");
    for place in &flooding[1..] {
        room.send(*place, flood.as_bytes());
    }
    // They find only the first one waiting.
    room.turn();
    let before = flooding.iter().map(|place| answers(&room, *place)).collect::<Vec<_>>();
    room.turn();
    for (place, before) in flooding.iter().zip(before) {
        assert!((1..=64).contains(&(answers(&room, *place) - before)), "{place}");
    }
    room.rest();
    assert!(flooding.iter().all(|place| answers(&room, *place) == 8_000));
}

#[test]
fn a_channel_in_the_place_of_one_that_was_dropped_shares_none_of_its_messages() {
    // One long response exhausts the budget of deliveries, and a turn has time for all requests.
    let mut room = Room::new(20, ["--max-memory=215000", "--max-reply=1"]);
    let [writer, filler, early, late, stream, poll] = [(); 6].map(|()| room.connect());
    let slow = room.connect_from(None, 1_000);
    let events = |target: &str| request("GET", target, &[("Accept", "text/event-stream")], None);
    let write = |channel: &str, text: &[u8]| {
        let target = format!("/write?channel={channel}");
        request("POST", &target, &[("Content-Type", "text/plain")], Some(text))
    };
    for bytes in [2_000, 20_000] {
        room.send(writer, write("old", &vec![b'x'; bytes]));
    }
    room.rest();
    room.send(slow, events("/read?channel=old&channel=z&from_id=1&from_id=1"));
    room.send(poll, get("/read?channel=p"));
    room.rest();
    // All in one turn: the stream goes on, with half an update, and is closed.
    {
        let mut net = room.net.borrow_mut();
        net.drain(slow, usize::MAX);
        net.links[slow].capacity = 10_000;
    }
    let (mut all, _) = room.poll();
    room.net.borrow_mut().send(slow, Segment::Fin, 0);
    // There is memory for this message if the old channel is dropped.
    room.send(filler, write("p", &vec![1; 32 << 10]));
    room.send(early, write("new", b"first"));
    // Its next update has another channel too, so it is not encoded before it is sent.
    room.send(stream, events("/read?channel=new&channel=y&from_id=2&from_id=1"));
    room.send(late, write("new", b"second"));
    all.extend(room.poll().0);
    assert_eq!(all.len(), 6);
    room.turn_with((all, false));
    for place in [filler, early, late] {
        assert!(room.has_got(place, "200 OK"), "{}", room.text(place));
    }
    assert!(room.has_got(slow, r#""id":2,"#), "it has a part of the second message");
    let is_deferred = room.has_got(poll, r#""id":1,"#) && !room.has_got(stream, r#""id":2,"#);
    assert!(is_deferred, "the update waits for another turn");
    room.rest();
    let text = room.text(stream);
    assert!(text.contains(r#""message":"second""#) && !text.contains("xxx"), "{text}");
    room.send(writer, get("/read?channel=old&from_id=1&timeout=0"));
    room.rest();
    assert!(room.text(writer).ends_with(r#""missed":true}"#), "{}", room.text(writer));
}
