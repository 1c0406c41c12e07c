//! What a seed does not bring about: a crowd for which no turn is ever long enough.

use std::cell::RefCell;
use std::ffi::OsString;
use std::rc::Rc;

use speak::hub::{Millis, Now};
use speak::options::{Command, parse};
use speak::service::{NextWake, Service};

use crate::asking::{SOCKET_KEY, masked};
use crate::network::{Faults, Net, Network, Segment, SimListener, turn};
use crate::random::Random;

const SOCKETS: usize = 8;

/// What a step counts for where a turn has time for one answer: all that was left from earlier turns gets half of what
/// there is. And where it has time for two, of which it finds out about the second when it has delivered.
const ONE_ANSWER: usize = 2_000;
const TWO_ANSWERS: usize = 600;

/// A server that has time to send one answer a turn, or two.
struct Room {
    net: Net,
    service: Service<SimListener>,
}

impl Room {
    /// Each step of a turn counts for so many.
    fn new(weight: usize) -> Self {
        let net =
            Rc::new(RefCell::new(Network::new(Random::new(1), Faults::default(), usize::MAX)));
        let Ok(Command::Run(options)) = parse([OsString::from("--history=4")], |_| None) else {
            panic!("an option is an option")
        };
        let mut service =
            Service::new(&options, vec![SimListener(Rc::clone(&net))], 100, |bytes| bytes.fill(7));
        service.set_step_weight(weight);
        Self { net, service }
    }

    fn connect(&mut self) -> usize {
        let place = self.net.borrow_mut().connect(None, 1 << 30);
        self.net.borrow_mut().links[place].is_perfect = true;
        place
    }

    fn send(&self, place: usize, bytes: impl Into<Vec<u8>>) {
        self.net.borrow_mut().send(place, Segment::Bytes(bytes.into()), 0);
    }

    /// All in the same moment: that a turn had no time for somebody is not for want of waiting.
    fn turn(&mut self) {
        let told = self.net.borrow_mut().poll_events(usize::MAX, false);
        turn(
            &self.net,
            &mut self.service,
            Now { mono: Millis(0), unix_ms: 1_700_000_000_000 },
            told,
        );
    }

    fn was_told(&self, place: usize, what: &str) -> bool {
        let net = self.net.borrow();
        net.links[place].tape.windows(what.len()).any(|bytes| bytes == what.as_bytes())
    }

    /// Sockets that follow one channel, of which each is a delivery that the others wait for. One may carry a connection.
    fn seat_sockets(&mut self, credentials: Option<(usize, &str)>) -> Vec<usize> {
        let sockets: Vec<usize> = (0..SOCKETS).map(|_| self.connect()).collect();
        for (place, socket) in sockets.iter().enumerate() {
            let own =
                credentials.filter(|(owner, _)| *owner == place).map_or("", |(_, query)| query);
            self.send(
                *socket,
                format!(
                    "GET /read?channel=c{own} HTTP/1.1\r\nHost: sim\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {SOCKET_KEY}\r\n\r\n"
                ),
            );
        }
        self.rest();
        assert!(sockets.iter().all(|socket| self.was_told(*socket, "HTTP/1.1 101 ")));
        sockets
    }

    /// Turns until nothing is left to be done.
    fn rest(&mut self) {
        let most = (0..500).find(|_| {
            self.turn();
            self.service.next_wake() != NextWake::Now && !self.net.borrow().has_events()
        });
        assert!(most.is_some(), "the loop never rests");
    }

    fn write(&self, writer: usize) {
        self.send(writer, "GET /write?channel=c&message=m HTTP/1.1\r\nHost: sim\r\n\r\n");
    }
}

#[test]
fn sockets_that_are_told_without_end_are_heard_as_well() {
    let mut room = Room::new(ONE_ANSWER);
    let writer = room.connect();
    let sockets = room.seat_sockets(None);
    for turn in 0..500 {
        room.write(writer);
        if turn == 100 {
            for socket in &sockets {
                room.send(
                    *socket,
                    masked(0x81, br#"{"call":"write","channel":"d","message":"m","ref":77}"#),
                );
            }
        }
        room.turn();
    }
    assert!(room.was_told(writer, r#"{"id":500"#));
    for socket in sockets {
        assert!(room.was_told(socket, r#""ref":77"#), "{socket} was never heard");
        let is_told = (460..=500).any(|id| room.was_told(socket, &format!(r#"{{"id":{id},"#)));
        assert!(is_told, "{socket} is heard, and told nothing");
    }
}

#[test]
fn what_a_socket_said_before_it_closed_is_done_also_where_it_was_held() {
    let mut room = Room::new(ONE_ANSWER);
    let writer = room.connect();
    let sockets = room.seat_sockets(None);
    for turn in 0..300 {
        room.write(writer);
        if turn == 10 {
            for socket in &sockets {
                let calls = (0..4).map(|_| {
                    masked(0x81, br#"{"call":"write","channel":"d","message":"m","ref":77}"#)
                });
                room.send(*socket, calls.collect::<Vec<_>>().concat());
                room.net.borrow_mut().send(*socket, Segment::Fin, 0);
            }
        }
        room.turn();
    }
    room.send(writer, "GET /read?channel=d&from_id=0 HTTP/1.1\r\nHost: sim\r\n\r\n");
    room.turn();
    assert!(
        room.was_told(writer, &format!(r#""next_id":{}"#, 4 * sockets.len() + 1)),
        "some of it was not done"
    );
    room.rest();
    assert!(sockets.iter().all(|socket| room.net.borrow().links[*socket].is_dropped));
}

#[test]
fn who_turns_out_to_be_gone_when_a_turn_is_nearly_over_is_said_goodbye_to_all_the_same() {
    for place in 0..SOCKETS {
        let mut room = Room::new(TWO_ANSWERS);
        let (writer, waiting) = (room.connect(), room.connect());
        room.send(writer, "GET /introduce?channel=d&message=Josh HTTP/1.1\r\nHost: sim\r\n\r\n");
        room.rest();
        let answer = String::from_utf8_lossy(&room.net.borrow().links[writer].tape).into_owned();
        let (_, json) = answer.split_once("\r\n\r\n").expect("a body");
        let me: serde_json::Value = serde_json::from_str(json).expect("JSON");
        let credentials = format!(
            "&connection={}&auth={}",
            me["connection"],
            me["auth"].as_str().expect("a secret")
        );
        room.send(waiting, "GET /read?channel=d HTTP/1.1\r\nHost: sim\r\n\r\n");
        let sockets = room.seat_sockets(Some((place, &credentials)));
        room.write(writer);
        // Nobody is told that it is gone before it is sent something.
        room.net.borrow_mut().links[sockets[place]].fuse = Some(1);
        room.rest();
        assert!(room.was_told(waiting, r#""reason":"closed""#), "{place}");
    }
}

#[test]
fn who_pipelines_has_a_share_of_a_turn_and_less_where_others_wait() {
    let answers = |room: &Room, place: usize| {
        let net = room.net.borrow();
        net.links[place].tape.windows(9).filter(|bytes| bytes == b"HTTP/1.1 ").count()
    };
    // More than comes in one read, and far more than anybody's share.
    let flood = "GET /health HTTP/1.1\r\nHost:\r\n\r\n".repeat(8_000);
    let mut room = Room::new(1);
    let flooding: Vec<usize> = (0..3).map(|_| room.connect()).collect();
    room.rest();
    room.send(flooding[0], flood.as_bytes());
    room.turn();
    assert_eq!(answers(&room, flooding[0]), 1_024 - 16, "the read of 64 KiB counts too");
    for place in &flooding[1..] {
        room.send(*place, flood.as_bytes());
    }
    // They find nobody waiting yet but the first.
    room.turn();
    let before = flooding.iter().map(|place| answers(&room, *place)).collect::<Vec<_>>();
    room.turn();
    for (place, before) in flooding.iter().zip(before) {
        assert!((1..=64).contains(&(answers(&room, *place) - before)), "{place}");
    }
    room.rest();
    assert!(flooding.iter().all(|place| answers(&room, *place) == 8_000));
}
