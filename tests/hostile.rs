//! Hostile clients: whatever they send or leave unread, memory and turns stay within their limits,
//! and other clients are served meanwhile.
//!
//! The tests assert causes: the memory that the server counts and the most that the kernel saw, the
//! order of the responses, and that no client is forgotten. `make overload` runs the same tests
//! with the numbers of the attacks and prints the cost.

mod common;

use std::iter;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Client, Crowd, GUARD, HANDSHAKE, Identity, Member, Memory, Over, Server, TEXT, Turns, Waits,
    masked, narrow_stream, request, sized, stream_from, target, until,
};
use serde_json::Value;
use support::ws::server_frame;

/// Address of all clients of a flood, and of one bystander.
const FLOOD: [u8; 4] = [127, 0, 0, 3];
/// Address of the other bystander.
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

const MIB: u64 = 1 << 20;

/// Longest message, of characters that JSON writes as six bytes each.
const CONTROLS: &[u8] = &[1; 64 << 10];

fn get(path: &str, params: &common::Params) -> Vec<u8> {
    request("GET", &target(path, params), &[], None)
}

fn post(target: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    request("POST", target, &[("Content-Type", content_type)], Some(body))
}

/// Asks at once for messages that there are not.
fn glance() -> Vec<u8> {
    get("/read", &[("channel", "bystander"), ("from_id", "1"), ("timeout", "0")])
}

/// Status and body of a response.
type Answer = (u16, Vec<u8>);

/// Takes the next response of a client, if it is there.
type Take = fn(&mut Member) -> Option<Answer>;

/// A server, a crowd that floods it, and two bystanders: one from the address of the crowd, and one
/// from another.
struct Attack {
    server: Server,
    /// `--max-memory` in MiB.
    memory_mib: u64,
    /// The clients of the flood, then the bystanders.
    crowd: Crowd,
    clients: usize,
}

impl Attack {
    /// Connects clients that take nothing of what they are sent.
    fn prepare(memory_mib: u64, options: &[&str], clients: usize) -> Self {
        let memory = format!("{memory_mib}m");
        let timeouts = [
            "--connection-timeout",
            "--heartbeat",
            "--keep-alive",
            "--poll-timeout",
            "--request-timeout",
        ];
        let hours = timeouts.map(|timeout| [timeout, "1h"]).concat();
        let server = Server::watched(&[&hours[..], &["--max-memory", &memory], options].concat());
        let mut crowd = Crowd::empty();
        for _ in 0..clients {
            let number = crowd.add(narrow_stream(FLOOD, server.address()));
            crowd.members[number].takes_nothing = true;
        }
        for address in [ELSEWHERE, FLOOD] {
            let number = crowd.add(stream_from(address, None, server.address()));
            crowd.send(number, &glance());
        }
        crowd.until("are answered", 2, |member| !member.received.is_empty());
        Self { server, memory_mib, crowd, clients }
    }

    fn bystanders(&self) -> Range<usize> {
        self.clients..self.clients + 2
    }

    fn send_each(&mut self, bytes: impl Fn(usize) -> Vec<u8>) {
        (0..self.clients).for_each(|number| self.crowd.send(number, &bytes(number)));
    }

    /// Returns once the server counts so many bytes, as it does when it has read them.
    fn wait_for_memory(&mut self, bytes: usize) {
        until("it has read all", || {
            self.crowd.turn(Duration::ZERO);
            Memory::of(&self.server).counted >= bytes as u64
        });
    }

    /// Returns a round of a client from another address, which reads every two milliseconds.
    fn round(&self) -> impl FnMut() + Send + use<> {
        let mut client = Client::connect_from(ELSEWHERE, self.server.address());
        move || {
            client.call(glance()).ok();
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends the flood, and then a request of each bystander, while the server is stopped: it finds
    /// all of that in one turn. Returns once `is_done` with each client, at the first bytes that
    /// come for it or later, or once it is closed.
    fn launch(
        &mut self,
        what: &str,
        flood: impl FnOnce(&mut Self),
        is_done: impl FnMut(usize, &mut Member) -> bool,
    ) {
        println!("{what}");
        let (before, turns) = (Memory::of(&self.server), Turns::of(&self.server));
        Waits::quiet(self.round()).tell("before");
        self.crowd.forget();
        // Otherwise the pause would count as part of a turn.
        until("it is idle", || self.server.is_asleep());
        self.server.pause();
        flood(self);
        self.ask_as_bystanders();
        self.server.resume();
        let (is_over, rounds, round) = (AtomicBool::new(false), AtomicUsize::new(0), self.round());
        let Self { server, crowd, clients, .. } = self;
        let most = thread::scope(|scope| {
            let waits = scope.spawn(|| Waits::of(round, &is_over, &rounds));
            let most = scope.spawn(|| Memory::most(server, &is_over));
            let over = Over(&is_over);
            wait(crowd, *clients, is_done);
            drop(over);
            waits.join().expect("no panic").tell("during");
            most.join().expect("no panic")
        });
        Turns::of(&self.server).tell_since(&turns);
        Waits::quiet(self.round()).tell("after");
        println!("    {before} before; {most} at most; {} after", Memory::of(&self.server));
        self.is_within_memory(most);
    }

    #[track_caller]
    fn is_within_memory(&self, most: Memory) {
        let bound = self.memory_mib * MIB * 5 / 4 + 32 * MIB;
        let is_within = most.counted <= bound && most.rss_kib * 1_024 <= bound;
        assert!(is_within, "{most} for --max-memory {}m", self.memory_mib);
    }

    fn ask_as_bystanders(&mut self) {
        self.bystanders().for_each(|number| self.crowd.send(number, &glance()));
    }

    /// Returns the number of clients of the flood that were answered before each bystander.
    fn served_before_bystanders(&self) -> [usize; 2] {
        [0, 1].map(|bystander| {
            let is_its = |number: &&usize| **number == self.clients + bystander;
            let before = self.crowd.arrivals.iter().take_while(|number| !is_its(number));
            before.filter(|number| **number < self.clients).count()
        })
    }

    /// Claims that each bystander was answered before most of the flood was, although it came last.
    #[track_caller]
    fn bystanders_came_early(&self) {
        let before = self.served_before_bystanders();
        println!("    responses of the flood before those of the bystanders: {before:?}");
        assert!(before.iter().all(|before| *before < self.clients / 2), "{before:?}");
    }

    /// Has all clients take what they are sent, some at a time, and checks the outcome of each.
    /// Returns the number of those that were closed without a response.
    fn take_all(&mut self, take: Take, mut check: impl FnMut(usize, Answer)) -> usize {
        let mut closed = 0;
        let numbers: Vec<usize> = (0..self.clients).collect();
        for some in numbers.chunks(100) {
            for number in some {
                self.crowd.take_all(*number);
            }
            let began = Instant::now();
            let mut left = some.to_vec();
            while !left.is_empty() {
                left.retain(|number| {
                    let member = &mut self.crowd.members[*number];
                    let answer = take(member);
                    let is_left = answer.is_none() && !member.is_closed;
                    closed += usize::from(answer.is_none() && !is_left);
                    if let Some(answer) = answer {
                        check(*number, answer);
                    }
                    is_left
                });
                assert!(began.elapsed() < 8 * GUARD, "{left:?} are forgotten");
                self.crowd.turn(Duration::from_millis(10));
            }
        }
        self.is_within_memory(Memory { counted: 0, rss_kib: self.server.peak_rss_kib() });
        closed
    }
}

/// Receives until `is_done` with each of so many clients and both bystanders have something.
fn wait(crowd: &mut Crowd, clients: usize, mut is_done: impl FnMut(usize, &mut Member) -> bool) {
    let (mut waits, mut last) = (vec![true; clients + 2], Instant::now());
    let mut changed = crowd.arrivals.clone();
    while waits.contains(&true) {
        for number in changed {
            last = Instant::now();
            let member = &mut crowd.members[number];
            if waits[number] && (number >= clients || is_done(number, member) || member.is_closed) {
                waits[number] = false;
            }
        }
        changed = crowd.turn(Duration::from_millis(50));
        let left = waits.iter().filter(|waits| **waits).count();
        assert!(last.elapsed() < 8 * GUARD, "{left} clients wait in vain");
    }
}

/// Reads that wait in a crowd and get the same message, each in a response of its own.
struct Waiting {
    what: &'static str,
    /// Parameters of the read of a client.
    params: fn(usize) -> String,
    /// Body of its response, made of that of a plain read.
    body: fn(usize, &str) -> String,
    clients: usize,
    text: Vec<u8>,
}

/// The response has a script's function around it.
fn waiting_scripts() -> Waiting {
    Waiting {
        what: "with a callback, and the message has control characters",
        params: |number| format!("channel=a&callback=c{number}"),
        body: |number, plain| format!("/**/c{number}({plain});"),
        clients: sized(300, 4_000),
        text: CONTROLS.to_vec(),
    }
}

/// The response also has a channel that no other client reads.
fn waiting_on_two_channels() -> Waiting {
    Waiting {
        what: "on two channels each, one of them its own",
        params: |number| format!("channel=a&channel=b{number}"),
        body: |number, plain| {
            let (slice, epoch) = plain.rsplit_once(",\"epoch\"").expect("an epoch");
            let slice = slice.strip_prefix('{').expect("an object");
            let other = format!(r#"{{"channel":"b{number}","messages":[],"next_id":1}}"#);
            format!(r#"{{"channels":[{{"channel":"a",{slice}}},{other}],"epoch"{epoch}"#)
        },
        clients: sized(300, 5_000),
        text: vec![b'x'; sized(300 << 10, 64 << 10)],
    }
}

impl Waiting {
    /// Starts a server in which all of them wait.
    fn prepare(&self) -> Attack {
        let options = ["--max-message", "512k"];
        let mut attack = Attack::prepare(sized(16, 64) as u64, &options, self.clients);
        self.begin(&mut attack);
        attack
    }

    fn begin(&self, attack: &mut Attack) {
        attack.send_each(|number| {
            request("GET", &format!("/read?{}", (self.params)(number)), &[], None)
        });
        attack.server.wait_for_readers("a", self.clients as u64);
    }

    fn message(&self) -> Vec<u8> {
        post("/write?channel=a", "text/plain", &self.text)
    }

    /// Claims that each client takes its whole response.
    fn take_all(&self, attack: &mut Attack, next_id: u64) {
        let since = (next_id - 1).to_string();
        let plain = attack.server.read("a", &since);
        assert_eq!(plain.next_id(), next_id, "no further message");
        let closed = attack.take_all(Member::take_answer, |number, (status, body)| {
            let expected = (self.body)(number, plain.text());
            assert_eq!((status, body.len()), (200, expected.len()), "{number}");
            assert!(body == expected.as_bytes(), "{number} got something else");
        });
        assert_eq!(closed, 0, "the responses share the message, so there is memory for all");
    }
}

#[test]
fn responses_to_waiting_reads_share_their_messages() {
    for waiting in [waiting_scripts(), waiting_on_two_channels()] {
        let mut attack = waiting.prepare();
        let mut writer = Client::connect_from(FLOOD, attack.server.address());
        let what = format!("{} reads wait {}", waiting.clients, waiting.what);
        attack.launch(&what, |_| writer.send(waiting.message()), |_, _| true);
        writer.response().ok();
        waiting.take_all(&mut attack, 2);
    }
}

/// Stops the server while it answers waiting reads, sends a request of each bystander, and claims
/// that these are answered before the last of the reads.
#[test]
fn a_client_is_served_while_waiting_reads_are_answered() {
    for waiting in [waiting_scripts(), waiting_on_two_channels()] {
        let mut attack = waiting.prepare();
        let mut writer = Client::connect_from(FLOOD, attack.server.address());
        let is_caught = (1..=10).any(|id| {
            attack.crowd.forget();
            writer.call(waiting.message()).ok();
            attack.server.pause();
            while !attack.crowd.turn(Duration::ZERO).is_empty() {}
            let answered = attack.crowd.arrivals.len();
            attack.ask_as_bystanders();
            attack.server.resume();
            wait(&mut attack.crowd, attack.clients, |_, _| true);
            // If this process is slow, most reads are answered before it stops the server.
            let is_caught = answered < attack.clients / 2;
            if is_caught {
                let most = attack.served_before_bystanders().into_iter().max();
                assert!(most < Some(attack.clients), "they are served after all others");
            }
            waiting.take_all(&mut attack, id + 1);
            if !is_caught {
                waiting.begin(&mut attack);
            }
            is_caught
        });
        assert!(is_caught, "the server is never stopped while it answers");
    }
}

/// Requests of a crowd of which only the last bytes are left to send.
struct Withheld {
    what: &'static str,
    clients: usize,
    memory_mib: usize,
    /// Has the clients do what comes before, and returns the bytes of each request.
    prepare: fn(&mut Attack) -> Vec<Vec<u8>>,
    /// Number of bytes that are left.
    left: usize,
    take: Take,
    /// Beginning of the body of each response.
    outcome: &'static str,
}

/// Returns what each client sends in the end.
fn withheld() -> [Withheld; 4] {
    [
        Withheld {
            what: "writes",
            clients: sized(50, 1_000),
            memory_mib: sized(16, 128),
            prepare: |attack| {
                let write = |number| {
                    let channel = format!("w{}", number % 50);
                    post(&target("/write", &[("channel", &channel)]), "text/plain", CONTROLS)
                };
                (0..attack.clients).map(write).collect()
            },
            left: 1,
            take: Member::take_answer,
            outcome: r#"{"id":"#,
        },
        Withheld {
            what: "forms, of which each byte is encoded",
            clients: sized(40, 800),
            memory_mib: sized(32, 256),
            prepare: |attack| {
                let form = ["message=", &"%01".repeat(CONTROLS.len())].concat();
                let write = |number| {
                    let channel = format!("w{}", number % 50);
                    let target = target("/write", &[("channel", &channel)]);
                    post(&target, "application/x-www-form-urlencoded", form.as_bytes())
                };
                (0..attack.clients).map(write).collect()
            },
            left: 1,
            take: Member::take_answer,
            outcome: r#"{"id":"#,
        },
        Withheld {
            what: "goodbyes to 32 channels each",
            clients: sized(8, 60),
            memory_mib: sized(16, 64),
            prepare: |attack| (0..attack.clients).map(|number| goodbye(attack, number)).collect(),
            left: 1,
            take: Member::take_answer,
            outcome: r#"{"ok":true}"#,
        },
        Withheld {
            what: "WebSocket messages in fragments",
            clients: sized(10, 300),
            memory_mib: sized(32, 256),
            prepare: fragments,
            left: masked(LAST_FRAGMENT, "").len(),
            take: take_frame,
            outcome: r#"{"members":["#,
        },
    ]
}

/// Introduces a session in 32 channels, and returns its goodbye to all of them.
fn goodbye(attack: &Attack, number: usize) -> Vec<u8> {
    let mut client = Client::connect_from(FLOOD, attack.server.address());
    let channels: Vec<String> = (0..32).map(|other| format!("g{number} {other}")).collect();
    let introduction = |channel| [("channel", channel), ("message", "x")];
    let first = client.get("/introduce", &introduction(&channels[0])).ok();
    let me = Identity::from_answer(&first);
    for channel in &channels[1..] {
        client.get("/introduce", &me.and(&introduction(channel))).ok();
    }
    post(&target("/goodbye", &me.and(&[])), "text/plain", CONTROLS)
}

/// First bytes of the frames of a message in fragments: the first, the next, and the last.
const FIRST_FRAGMENT: u8 = TEXT & 0x7f;
const NEXT_FRAGMENT: u8 = 0;
const LAST_FRAGMENT: u8 = 0x80;

/// Opens a WebSocket for each client. Its message is long, and its last fragment is empty.
fn fragments(attack: &mut Attack) -> Vec<Vec<u8>> {
    attack.send_each(|_| request("GET", "/read?channel=w", &HANDSHAKE, None));
    attack.server.wait_for_readers("w", attack.clients as u64);
    (0..attack.clients).for_each(|number| attack.crowd.take_all(number));
    attack.crowd.until("have a socket", attack.clients + 2, |it| !it.received.is_empty());
    attack.crowd.forget();
    let numbers = vec!["0"; 210_000].join(",");
    let call = format!(r#"{{"call":"members","channel":"m","more":[{numbers}]}}"#);
    let mut frames = Vec::new();
    for (place, piece) in call.as_bytes().chunks(64 << 10).enumerate() {
        frames.extend(masked(if place == 0 { FIRST_FRAGMENT } else { NEXT_FRAGMENT }, piece));
    }
    frames.extend(masked(LAST_FRAGMENT, ""));
    vec![frames; attack.clients]
}

fn take_frame(member: &mut Member) -> Option<(u16, Vec<u8>)> {
    let (frame, length) = server_frame(&member.received).expect("a frame")?;
    let body = frame.payload.to_vec();
    member.received.drain(..length);
    Some((200, body))
}

#[test]
fn requests_that_are_complete_at_once_are_handled_in_turns() {
    for withheld in withheld() {
        let Withheld { what, clients, left, take, outcome, .. } = withheld;
        let mut attack = Attack::prepare(withheld.memory_mib as u64, &[], clients);
        let mut requests = (withheld.prepare)(&mut attack);
        let last: Vec<_> =
            requests.iter_mut().map(|bytes| bytes.split_off(bytes.len() - left)).collect();
        let bytes = requests.iter().map(Vec::len).sum();
        attack.send_each(|number| requests[number].clone());
        attack.wait_for_memory(bytes);
        let what = format!("{clients} {what} get their last byte at once");
        attack.launch(&what, |attack| attack.send_each(|number| last[number].clone()), |_, _| true);
        attack.bystanders_came_early();
        let closed = attack.take_all(take, |number, (status, body)| {
            let is_right = body.starts_with(outcome.as_bytes());
            assert!(status == 200 && is_right, "{number}: {}", String::from_utf8_lossy(&body));
        });
        assert_eq!(closed, 0, "all requests fit into memory, and messages are evicted for them");
    }
}

/// Whole messages of 1 MiB, as much as a response holds.
fn fill(server: &Server) -> String {
    server.fill("large", &"x".repeat((64 << 10) - 100), 16);
    let read = server.read("large", "1");
    assert_eq!(read.ids().len(), 16);
    read.text().to_owned()
}

#[test]
fn pipelined_reads_of_large_responses_leave_other_clients_their_share() {
    let (clients, each, memory_mib) = (sized(40, 1_500), sized(2, 3), sized(64, 256));
    let mut attack = Attack::prepare(memory_mib as u64, &[], clients);
    let whole = fill(&attack.server);
    (0..clients).for_each(|number| attack.crowd.take_all(number));
    let read = get("/read", &[("channel", "large"), ("from_id", "1")]);
    let mut answers = vec![0; clients];
    attack.launch(
        &format!("{clients} clients pipeline {each} reads of 1 MiB"),
        |attack| attack.send_each(|_| read.repeat(each)),
        |number, member| {
            while let Some((status, body)) = member.take_answer() {
                assert!(status == 200 && body == whole.as_bytes(), "{number} got something else");
                answers[number] += 1;
            }
            answers[number] == each
        },
    );
    attack.bystanders_came_early();
    let whole = answers.iter().filter(|answers| **answers == each).count();
    println!("    {whole} clients got all, and {} were closed", clients - whole);
    // If this process is slow to receive, some clients are closed to keep within memory.
    assert!(whole == clients || clients > memory_mib, "{answers:?}");
}

#[test]
fn long_lists_of_members_stay_within_memory() {
    let (members, clients, memory_mib) = (sized(400, 14_080), 20, sized(16, 256));
    let mut attack = Attack::prepare(memory_mib as u64, &["--history", "1"], clients);
    introduce_many(&attack, members);
    attack.launch(
        &format!("{clients} clients ask for {members} members and take nothing"),
        |attack| attack.send_each(|_| get("/members", &[("channel", "m")])),
        |_, _| true,
    );
    let mut answered = 0;
    let closed = attack.take_all(Member::take_answer, |number, (status, body)| {
        if status == 200 {
            let list: Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(list["members"][0]["connection"], 1, "{number}");
            answered += 1;
        } else {
            assert_eq!(status, 503, "{number}");
        }
    });
    println!("    {answered} clients got a list, and {closed} were closed without a response");
    assert!(answered > 0, "there was memory for some");
}

/// Readers that begin get all introductions in their first response, however many these are.
#[test]
fn readers_that_begin_among_very_many_members_stay_within_memory() {
    let (members, clients, memory_mib) = (sized(1_000, 18_000), 20, sized(16, 256));
    let mut attack = Attack::prepare(memory_mib as u64, &["--history", "1"], clients);
    introduce_many(&attack, members);
    attack.launch(
        &format!("{clients} clients read {members} introductions and take nothing"),
        |attack| {
            attack.send_each(|number| {
                let fields = [&[][..], &[("Accept", "text/event-stream")], &HANDSHAKE][number % 3];
                request("GET", "/read?channel=m&from_id=0", fields, None)
            });
        },
        |_, _| true,
    );
    let (introduction, mut counts) = (br#""type":"introduction""#, vec![0; clients]);
    attack.launch(
        "they take all",
        |attack| (0..clients).for_each(|number| attack.crowd.take_all(number)),
        |number, member| {
            let received = &mut member.received;
            counts[number] += memchr::memmem::find_iter(received, introduction).count();
            // Not all at once: that is some gigabytes.
            received.drain(..received.len().saturating_sub(introduction.len() - 1));
            counts[number] >= members
        },
    );
    assert_eq!(counts, vec![members; clients]);
}

/// Introduces members of a channel, as long as an introduction may be.
fn introduce_many(attack: &Attack, members: usize) {
    let introduction = post("/introduce?channel=m", "text/plain", &CONTROLS[..1_024]);
    let mut client = Client::connect_from(FLOOD, attack.server.address());
    client.send_meanwhile(iter::repeat_n(introduction, members), |client| {
        (0..members).for_each(|_| drop(client.response().ok()));
    });
}

/// Reads of a session on 32 channels each, of which 31 are the same for all reads.
fn own_read(me: &Identity, number: usize, is_reversed: bool) -> Vec<u8> {
    let mut channels: Vec<String> = (0..31).map(|channel| format!("shared {channel}")).collect();
    channels.push(format!("own {number}"));
    if is_reversed {
        channels.reverse();
    }
    let channels: Vec<_> = channels.iter().map(|channel| ("channel", &**channel)).collect();
    get("/read", &me.and(&channels))
}

#[test]
fn reads_of_a_connection_with_very_many_reads_cost_no_more_than_others() {
    // As many reads as a connection may have pending.
    let (pending, clients, each) = (256, sized(80, 100), sized(60, 200));
    let mut attack = Attack::prepare(64, &[], clients);
    let me = attack.server.introduce("m", "x");
    let mut reads = Crowd::connect(attack.server.address(), 2 * pending);
    (0..pending).for_each(|number| reads.send(number, &own_read(&me, number, false)));
    attack.server.wait_for_readers("shared 0", pending as u64);
    // Further ones are refused, but only after a look for one that they would supersede.
    (0..clients).for_each(|number| attack.crowd.take_all(number));
    let further = own_read(&me, pending, true).repeat(each);
    let mut answers = vec![0; clients];
    attack.launch(
        &format!("{clients} clients pipeline {each} reads of a connection with {pending} reads"),
        |attack| attack.send_each(|_| further.clone()),
        |number, member| {
            while let Some((status, _)) = member.take_answer() {
                assert_eq!(status, 400, "{number}");
                answers[number] += 1;
            }
            answers[number] == each
        },
    );
    attack.bystanders_came_early();
    assert_eq!(answers, vec![each; clients]);
    // Each of those that are pending is found among the others.
    for number in (0..pending).rev() {
        reads.send(pending + number, &own_read(&me, number, true));
        while reads.members[number].received.is_empty() {
            reads.turn(Duration::from_millis(50));
        }
        let (status, body) = reads.members[number].take_answer().expect("a response");
        let body = String::from_utf8_lossy(&body);
        let own = format!(r#"{{"channel":"own {number}","messages":[],"#);
        assert!(status == 200 && body.contains(&own), "{body}");
    }
    assert_eq!(reads.arrivals, (0..pending).rev().collect::<Vec<_>>(), "only these");
    attack.server.wait_for_readers("shared 0", pending as u64);
}

#[test]
fn a_flood_from_one_site_limits_no_other_address() {
    let server = Server::with(&["--max-rate", "1", "--trust-proxy", "127.0.0.1"]);
    let mut client = server.client();
    let mut send = |addresses: &mut dyn Iterator<Item = String>| {
        let target = target("/write", &[("channel", "c"), ("message", "m")]);
        let requests: Vec<Vec<u8>> = addresses
            .map(|address| request("GET", &target, &[("X-Forwarded-For", &address)], None))
            .collect();
        let count = requests.len();
        let mut statuses = Vec::new();
        client.send_meanwhile(iter::once(requests.concat()), |client| {
            statuses.extend((0..count).map(|_| client.response().status));
        });
        statuses
    };
    let subnets = sized(4_000, 40_000);
    let flood = send(&mut (0..subnets).map(|subnet| format!("2001:db8:7:{subnet:x}::1")));
    let limited = flood.iter().filter(|status| **status == 429).count();
    println!("one /48 with {subnets} /64s: {limited} calls are limited");
    assert_eq!(flood[..160], [200; 160], "sixteen times the burst of an address");
    assert!(limited > 0, "a site is not limited");
    let others = (0..250).map(|number| format!("192.0.2.{number}"));
    let sites = (0..250).map(|number| format!("2001:db8:{:x}::1", 0x100 + number));
    assert_eq!(send(&mut others.chain(sites)), [200; 500], "strangers are limited");
}
