//! Crowds that make one turn cost much: each has its limit of work per turn and of memory, and
//! clients of other addresses are served between them.

use std::net::IpAddr;

use support::http::{get, request};
use support::ws::{HANDSHAKE, client_frame};

use crate::network::Segment;
use crate::room::Room;

/// Weight of a step. So shorter messages do, of which the crowd is as expensive.
const WEIGHT: usize = 2;
/// Long message, of characters that JSON writes as six bytes each.
const CONTROLS: &[u8] = &[1; 32 << 10];

/// Steps of a turn for requests, and for deliveries.
const TURN_STEPS: usize = 2_048;
const DELIVERY_STEPS: usize = 1_024;
const EXPIRY_STEPS: usize = 1_024;

/// Address of the crowd.
const CROWD: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));
/// Address of a client that has done nothing yet.
const IDLE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)));

fn post(target: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    request("POST", target, &[("Content-Type", content_type)], Some(body))
}

/// Says which of these clients got anything.
fn served(room: &Room, places: &[usize]) -> Vec<usize> {
    let net = room.net.borrow();
    places.iter().copied().filter(|place| !net.links[*place].tape.is_empty()).collect()
}

/// Clients whose requests arrive but for their last byte.
struct Withheld {
    name: &'static str,
    /// Sends what comes before, and returns the whole request.
    prepare: fn(&mut Room, usize) -> Vec<u8>,
    /// Least cost of a request, in steps.
    steps: usize,
}

const WITHHELD: [Withheld; 4] = [
    Withheld {
        name: "writes",
        prepare: |_, place| post(&format!("/write?channel=w{place}"), "text/plain", CONTROLS),
        // 32 KiB read and 192 KiB encoded, by 4 KiB.
        steps: WEIGHT * 56,
    },
    Withheld {
        name: "forms",
        prepare: |_, place| {
            let body = format!("message={}", "%01".repeat(CONTROLS.len()));
            let target = format!("/write?channel=w{place}");
            post(&target, "application/x-www-form-urlencoded", body.as_bytes())
        },
        // 96 KiB read and 192 KiB encoded.
        steps: WEIGHT * 72,
    },
    Withheld {
        name: "goodbyes",
        prepare: |room, place| {
            let member = room.connect();
            let me = room.introduce(member);
            for channel in 1..32 {
                let channel = 100 * place + channel;
                room.send(member, get(&format!("/introduce?channel={channel}&message=x{me}")));
            }
            room.rest();
            post(&format!("/goodbye?{me}"), "text/plain", CONTROLS)
        },
        // 192 KiB encoded in each of 32 channels.
        steps: WEIGHT * 32 * 48,
    },
    Withheld {
        name: "messages in fragments",
        prepare: |room, place| {
            room.send(place, request("GET", "/read?channel=s", &HANDSHAKE, None));
            room.rest();
            let call = format!(
                r#"{{"call":"members","channel":"w","more":[{}]}}"#,
                ["0"; 30_000].join(",")
            );
            let mut frames = client_frame(0x01, &call);
            frames.extend(client_frame(0x80, ""));
            frames
        },
        // 60,000 bytes, each of which counts 16 times.
        steps: WEIGHT * 16 * 60_000 / 4_096,
    },
];

#[test]
fn requests_that_are_complete_at_once_take_turns() {
    for Withheld { name, prepare, steps } in WITHHELD {
        // The last one may begin with one step left.
        let per_turn = TURN_STEPS.div_ceil(steps);
        let mut room = Room::new(WEIGHT, ["--history=1"]);
        let crowd: Vec<usize> =
            (0..2 * per_turn + 2).map(|_| room.connect_from(CROWD, 1 << 30)).collect();
        let others = [IDLE, CROWD].map(|address| room.connect_from(address, 1 << 30));
        room.rest();
        let mut last = Vec::new();
        for place in &crowd {
            let mut bytes = prepare(&mut room, *place);
            last.push(bytes.split_off(bytes.len() - 1));
            room.send(*place, bytes);
            room.rest();
        }
        for place in &crowd {
            room.net.borrow_mut().links[*place].tape.clear();
        }
        for (place, last) in crowd.iter().zip(last) {
            room.send(*place, last);
        }
        for place in others {
            room.send(place, get("/health"));
        }
        room.turn();
        let first = served(&room, &crowd).len();
        assert!((1..=per_turn).contains(&first), "{name}: {first} in the first turn");
        // One turn later, they do not wait for the others, which came before them.
        room.turn();
        assert_eq!(served(&room, &others), others, "{name}");
        let mut before = served(&room, &crowd).len();
        while !room.is_at_rest() {
            room.turn();
            let now = served(&room, &crowd).len();
            assert!(now - before <= per_turn, "{name}: {} in one turn", now - before);
            before = now;
        }
        assert_eq!(served(&room, &crowd), crowd, "{name}: all are served");
    }
}

/// Reads that wait on one channel, each with a response of its own.
struct Waiting {
    name: &'static str,
    parameters: fn(usize) -> String,
    /// Response to it, made of that to a plain read.
    body: fn(usize, &str) -> String,
}

const WAITING: [Waiting; 2] = [
    Waiting {
        name: "scripts",
        parameters: |place| format!("channel=a&callback=c{place}"),
        body: |place, plain| format!("/**/c{place}({plain});"),
    },
    Waiting {
        name: "two channels",
        parameters: |place| format!("channel=a&channel=b{place}"),
        body: |place, plain| {
            let (slice, epoch) = plain.rsplit_once(",\"epoch\"").expect("an epoch");
            let slice = slice.strip_prefix('{').expect("an object");
            let other = format!(r#"{{"channel":"b{place}","messages":[],"next_id":1}}"#);
            format!(r#"{{"channels":[{{"channel":"a",{slice}}},{other}],"epoch"{epoch}"#)
        },
    },
];

/// `--max-memory` of the crowds that wait.
const MAX_MEMORY: usize = 1_200_000;
/// Longest response to one of them.
const ONE_REPLY: usize = 6 * CONTROLS.len() + 1_000;

#[test]
fn responses_to_waiting_reads_take_turns_and_share_the_message() {
    // 192 KiB encoded by 4 KiB, and sent by 16 KiB.
    let per_turn = DELIVERY_STEPS.div_ceil(WEIGHT * 60);
    for Waiting { name, parameters, body } in WAITING {
        let mut room = Room::new(WEIGHT, ["--max-memory=1200000"]);
        let writer = room.connect();
        // The responses would need ten times the memory.
        let crowd: Vec<usize> = (0..60).map(|_| room.connect_from(CROWD, 500)).collect();
        let other = room.connect_from(IDLE, 1 << 30);
        for place in &crowd {
            room.send(*place, get(&format!("/read?{}", parameters(*place))));
        }
        room.rest();
        room.send(writer, post("/write?channel=a", "text/plain", CONTROLS));
        room.turn();
        room.send(other, get("/health"));
        let mut before = 0;
        for turn in 0.. {
            let now = served(&room, &crowd).len();
            assert!(now - before <= per_turn, "{name}: {} in turn {turn}", now - before);
            assert_eq!(served(&room, &[other]).len(), usize::from(turn > 0), "{name}: turn {turn}");
            let memory = room.counted();
            assert!(memory <= MAX_MEMORY, "{name}: {memory} bytes in turn {turn}");
            if room.is_at_rest() {
                break;
            }
            before = now;
            room.turn();
        }
        room.send(writer, get("/read?channel=a&from_id=1"));
        room.rest();
        let text = room.text(writer);
        let (_, plain) = text.rsplit_once("\r\n\r\n").expect("a body");
        for place in crowd {
            room.take_all(place);
            let text = room.text(place);
            let (_, json) = text.split_once("\r\n\r\n").expect("a body");
            assert!(json == body(place, plain), "{name}: {place} got {json}");
        }
        assert_eq!(room.service.gauges().encoded_bytes, 0, "{name}");
    }
}

#[test]
fn writes_are_refused_while_responses_that_are_not_taken_hold_the_memory() {
    let mut room = Room::new(WEIGHT, ["--max-memory=1200000"]);
    let crowd: Vec<usize> = (0..20).map(|_| room.connect_from(CROWD, 500)).collect();
    for place in &crowd {
        room.send(*place, get(&format!("/read?channel=b{place}&from_id=1&callback=f")));
    }
    room.rest();
    let mut written = Vec::new();
    for place in &crowd {
        let writer = room.connect();
        room.rest();
        room.send(writer, post(&format!("/write?channel=b{place}"), "text/plain", CONTROLS));
        while !room.is_at_rest() {
            room.turn();
            // The response and the message, of which history may keep nothing.
            assert!(room.counted() <= MAX_MEMORY + ONE_REPLY, "{} bytes", room.counted());
        }
        if room.has_got(writer, "200 OK") {
            written.push(*place);
        } else {
            assert!(room.has_got(writer, "over_capacity"), "{}", room.text(writer));
        }
    }
    assert!((1..crowd.len()).contains(&written.len()), "there was memory for some: {written:?}");
    let controls = "\\u0001".repeat(CONTROLS.len());
    for place in crowd {
        room.take_all(place);
        assert_eq!(room.has_got(place, &controls), written.contains(&place), "{place}");
        assert!(!room.net.borrow().links[place].is_dropped, "{place}");
    }
}

/// Weight of a step with which a turn has time for few goodbyes.
const FEW_GOODBYES: usize = 20;
/// Least cost of the end of a session in 32 channels, in steps.
const END_STEPS: usize = FEW_GOODBYES * 17;

/// Has a crowd wait with sessions of 32 channels each, and returns its clients.
fn wait_in_32_channels(room: &mut Room, clients: usize) -> Vec<usize> {
    let crowd: Vec<usize> = (0..clients).map(|_| room.connect_from(CROWD, 1 << 30)).collect();
    for place in &crowd {
        let me = room.introduce(*place);
        for channel in 1..32 {
            let channel = 100 * place + channel;
            room.send(*place, get(&format!("/introduce?channel={channel}&message=x{me}")));
        }
        room.send(*place, get(&format!("/read?channel=q&timeout=1{me}")));
        room.rest();
    }
    crowd
}

/// Checks that sessions end in several turns, and that another client is served between them.
fn ends_take_turns(room: &mut Room, per_turn: usize) {
    let sessions = |room: &Room| room.service.gauges().hub.sessions;
    let other = room.connect_from(IDLE, 1 << 30);
    let mut before = sessions(room);
    for turn in 0.. {
        room.turn();
        let now = sessions(room);
        assert!(before - now <= per_turn, "{} in turn {turn}", before - now);
        if turn == 0 {
            assert!(0 < now && now < before, "some end in the first turn");
            room.send(other, get("/health"));
        }
        assert_eq!(served(room, &[other]).len(), usize::from(turn > 0), "turn {turn}");
        before = now;
        if room.is_at_rest() {
            break;
        }
    }
    assert_eq!(before, 0);
}

#[test]
fn goodbyes_of_clients_that_leave_at_once_take_turns() {
    let mut room = Room::new(FEW_GOODBYES, ["--history=1"]);
    for place in wait_in_32_channels(&mut room, 40) {
        room.net.borrow_mut().send(place, Segment::Fin, 0);
    }
    ends_take_turns(&mut room, TURN_STEPS.div_ceil(END_STEPS));
}

#[test]
fn goodbyes_of_sessions_that_time_out_at_once_take_turns() {
    let mut room = Room::new(FEW_GOODBYES, ["--history=1"]);
    wait_in_32_channels(&mut room, 40);
    room.now_ms += 1_000;
    room.rest();
    assert_eq!(room.service.gauges().hub.sessions, 40);
    room.now_ms += 5_000;
    ends_take_turns(&mut room, EXPIRY_STEPS.div_ceil(END_STEPS));
}

#[test]
fn streams_that_are_drained_at_once_take_turns() {
    // Sent: 192 KiB by 8 KiB, twice. Encoded: 192 KiB by 4 KiB.
    let per_turn = TURN_STEPS.div_ceil(WEIGHT * (24 + 24 + 48));
    let event_stream = [("Accept", "text/event-stream")];
    for (name, fields) in [("events", &event_stream[..]), ("frames", &HANDSHAKE[..])] {
        // An update has one message, and the kernel takes none of it.
        let mut room = Room::new(WEIGHT, ["--max-reply=1"]);
        let (writer, other) = (room.connect(), room.connect_from(IDLE, 1 << 30));
        for _ in 0..3 {
            room.send(writer, post("/write?channel=a", "text/plain", CONTROLS));
        }
        room.rest();
        let crowd: Vec<usize> = (0..40).map(|_| room.connect_from(CROWD, 500)).collect();
        for place in &crowd {
            room.send(*place, request("GET", "/read?channel=a&from_id=1", fields, None));
        }
        room.rest();
        for place in &crowd {
            let mut net = room.net.borrow_mut();
            net.links[*place].capacity = 1 << 30;
            net.drain(*place, usize::MAX);
            net.links[*place].tape.clear();
        }
        room.turn();
        room.send(other, get("/health"));
        let mut before = served(&room, &crowd).len();
        assert!((1..=per_turn).contains(&before), "{name}: {before} in the first turn");
        while !room.is_at_rest() {
            room.turn();
            let now = served(&room, &crowd).len();
            assert!(now - before <= per_turn, "{name}: {} in one turn", now - before);
            assert_eq!(served(&room, &[other]), [other], "{name}");
            before = now;
        }
        assert!(crowd.iter().all(|place| room.has_got(*place, "\"id\":3,")), "{name}");
    }
}

/// Streams at different places of a history, which take nothing until all of them take all at once.
#[test]
fn streams_that_can_go_on_at_once_take_turns_and_leave_deferred_sends_theirs() {
    const STREAMS: usize = 40;
    // The rest of an update is sent, by 2 KiB, and the next one encoded, by 4 KiB, and sent.
    let per_turn = TURN_STEPS.div_ceil(WEIGHT * (1 + 95 + 48 + 1 + 24));
    for other in ["", "&channel=other&from_id=1"] {
        let mut room = Room::new(WEIGHT, ["--max-reply=1", "--history=100"]);
        let (writer, late) = (room.connect(), room.connect());
        for _ in 0..STREAMS + 2 {
            room.send(writer, post("/write?channel=h", "text/plain", CONTROLS));
        }
        room.rest();
        let events = [("Accept", "text/event-stream")];
        let streams: Vec<usize> = (1..=STREAMS)
            .map(|from_id| {
                let place = room.connect_from(CROWD, 1_000);
                let target = format!("/read?channel=h&from_id={from_id}{other}");
                room.send(place, request("GET", &target, &events, None));
                place
            })
            .collect();
        let polls: Vec<usize> = (0..60).map(|_| room.connect_from(IDLE, 1 << 30)).collect();
        for place in &polls {
            room.send(*place, get(&format!("/read?channel=p&callback=c{place}")));
        }
        room.rest();
        // Some of the responses to these are left for later turns.
        room.send(late, post("/write?channel=p", "text/plain", CONTROLS));
        room.turn();
        let mut answered = served(&room, &polls).len();
        for place in &streams {
            let mut net = room.net.borrow_mut();
            net.links[*place].capacity = 1 << 30;
            net.drain(*place, usize::MAX);
        }
        let next = |room: &Room| {
            let has_next = |(from_id, place): &(usize, &usize)| {
                room.has_got(**place, &format!(r#""id":{},"#, from_id + 2))
            };
            (0..).zip(&streams).filter(has_next).count()
        };
        assert_eq!(next(&room), 0, "they wait");
        let mut before = 0;
        while before < STREAMS {
            room.turn();
            let now = next(&room);
            assert!(now - before <= per_turn, "{} went on in one turn{other}", now - before);
            before = now;
            // The response that the polls share may be there.
            let encoded = room.service.gauges().encoded_bytes;
            assert!(encoded <= ONE_REPLY, "{encoded} bytes are encoded for later{other}");
            let polls_before = std::mem::replace(&mut answered, served(&room, &polls).len());
            let is_served = answered > polls_before || answered == polls.len();
            assert!(is_served, "{answered} polls are answered after {now} streams{other}");
        }
        room.rest();
        assert_eq!(served(&room, &polls), polls);
        for (place, from_id) in streams.iter().zip(1..) {
            let text = room.text(*place);
            let mut ids = text.split(r#""id":"#).skip(1).map(|rest| rest.split_once(','));
            let is_all = (from_id..=STREAMS + 2)
                .all(|id| ids.next().flatten().is_some_and(|(got, _)| got == id.to_string()));
            assert!(is_all && ids.next().is_none(), "{place} got all from {from_id} on");
        }
    }
}

/// Streams that can go on at once while sends of their channel are deferred: each would hold an
/// update of its own.
#[test]
fn updates_that_wait_for_earlier_sends_of_their_channel_are_within_the_memory_limit() {
    let mut room = Room::new(WEIGHT, ["--max-memory=1200000", "--max-reply=1"]);
    let writer = room.connect();
    for text in [&[b'x'; 2_000], CONTROLS] {
        room.send(writer, post("/write?channel=h", "text/plain", text));
    }
    room.rest();
    let events = [("Accept", "text/event-stream")];
    let streams: Vec<usize> = (0..40).map(|_| room.connect_from(CROWD, 500)).collect();
    for place in &streams {
        room.send(*place, request("GET", "/read?channel=h&from_id=1", &events, None));
    }
    let polls: Vec<usize> = (0..60).map(|_| room.connect_from(IDLE, 1 << 30)).collect();
    for place in &polls {
        room.send(*place, get(&format!("/read?channel=h&callback=c{place}")));
    }
    room.rest();
    room.send(writer, post("/write?channel=h", "text/plain", CONTROLS));
    room.turn();
    for place in &streams {
        let mut net = room.net.borrow_mut();
        net.links[*place].capacity = 1 << 30;
        net.drain(*place, usize::MAX);
    }
    while !room.is_at_rest() {
        room.turn();
        let memory = room.counted();
        assert!(memory <= MAX_MEMORY + ONE_REPLY, "{memory} bytes");
    }
    assert_eq!(served(&room, &polls), polls);
    for place in streams {
        assert!(room.has_got(place, r#""id":3,"#), "{place} got all");
    }
}

/// Header fields of a request.
type Fields = &'static [(&'static str, &'static str)];

/// Forms in which a reader gets all introductions: its parameters and its header fields.
const READERS: [(&str, &str, Fields); 5] = [
    ("JSON", "channel=m&from_id=0", &[]),
    ("a script", "channel=m&from_id=0&callback=f", &[]),
    ("two channels", "channel=m&channel=n&from_id=0&from_id=0", &[]),
    ("events", "channel=m&from_id=0", &[("Accept", "text/event-stream")]),
    ("a frame", "channel=m&from_id=0", &HANDSHAKE),
];

/// Returns the ids of all messages in a text, in order.
fn ids(text: &str) -> Vec<u64> {
    let all = text.split(r#""id":"#).skip(1);
    all.map(|rest| rest.split_once(',').expect("a comma").0.parse().expect("a number")).collect()
}

#[test]
fn readers_share_the_introductions_of_very_many_members() {
    const MEMBERS: u64 = 600;
    let options = ["--max-memory=11m", "--history=1", "--connection-timeout=1h"];
    let mut room = Room::new(1, options);
    let host = room.connect();
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        room.net.borrow_mut().links[host].tape.clear();
        room.send(host, post("/introduce?channel=m", "text/plain", &CONTROLS[..1_024]));
        room.rest();
        let text = room.text(host);
        let (_, json) = text.split_once("\r\n\r\n").expect("a body");
        let me: serde_json::Value = serde_json::from_str(json).expect("JSON");
        let auth = me["auth"].as_str().expect("a secret");
        members.push(format!("connection={}&auth={auth}", me["connection"]));
    }
    let leave = |room: &mut Room, member: usize| {
        room.send(host, get(&format!("/goodbye?channel=m&{}", members[member])));
        room.rest();
    };
    // Every third one is gone: no page is as it was.
    (0..members.len()).step_by(3).for_each(|member| leave(&mut room, member));
    let is_left = |id: &u64| !(id - 1).is_multiple_of(3);
    let mut expected: Vec<u64> = (1..=MEMBERS).filter(is_left).collect();
    // History has nothing but the last goodbye.
    expected.push(MEMBERS + members.len().div_ceil(3) as u64);
    let all = expected.len() * 6 * 1_024;
    let crowd: Vec<(usize, &str)> = (0..50)
        .map(|number| {
            let (what, parameters, fields) = READERS[number % READERS.len()];
            let place = room.connect_from(CROWD, 500);
            room.send(place, request("GET", &format!("/read?{parameters}"), fields, None));
            (place, what)
        })
        .collect();
    while !room.is_at_rest() {
        room.turn();
        assert!(room.counted() <= 11 << 20, "{} bytes", room.counted());
    }
    // What is there for them stays as it was, although members go and come.
    for member in (0..members.len()).skip(1).step_by(3) {
        leave(&mut room, member);
        room.send(host, get(&format!("/introduce?channel=m&message=x&{}", members[member])));
        room.rest();
    }
    assert!(room.counted() <= 11 << 20, "{} bytes", room.counted());
    for (place, what) in crowd {
        room.net.borrow_mut().links[place].capacity = 1 << 30;
        room.net.borrow_mut().drain(place, usize::MAX);
        let mut got = 0;
        while !room.is_at_rest() {
            room.turn();
            let before = std::mem::replace(&mut got, room.net.borrow().links[place].tape.len());
            assert!(got - before <= 600 << 10, "{what}: {} bytes in one turn", got - before);
        }
        let text = room.text(place);
        assert!(got > all, "{what}: {got} bytes");
        let got = ids(&text);
        assert_eq!(got[..expected.len()], expected, "{what}");
        let is_whole = match what {
            "events" => {
                let introductions = text.matches("\r\ndata: {\"id\":").count();
                introductions == 0 && text.matches("\ndata: {\"id\":").count() == got.len()
            }
            "a frame" => {
                let (_, frames) = text.split_once("\r\n\r\n").expect("a head");
                // Its length is in ten bytes, of which some are no UTF-8.
                let at = frames.find('{').expect("an object");
                let mut frames = serde_json::Deserializer::from_str(&frames[at..]).into_iter();
                let first: serde_json::Value = frames.next().expect("a frame").expect("JSON");
                first["messages"].as_array().map(Vec::len) == Some(expected.len())
            }
            _ => {
                let (head, body) = text.split_once("\r\n\r\n").expect("a body");
                let length = head.split_once("Content-Length: ").expect("a length").1;
                let json = body.trim_start_matches("/**/f(").trim_end_matches(");");
                let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
                let slice = if what == "two channels" { &json["channels"][0] } else { &json };
                length.lines().next() == Some(&body.len().to_string())
                    && slice["messages"].as_array().map(Vec::len) == Some(expected.len())
            }
        };
        assert!(is_whole, "{what}");
    }
    assert_eq!(room.service.gauges().encoded_bytes, 0);
}
