//! Overload: each client has its share of a turn, every refusal is a clear response, and afterwards
//! all memory is released.
//!
//! The tests assert causes: which client is served during a flood, in which order, with which
//! status. `make overload` runs the same tests with large numbers and prints the cost.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::iter;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Client, Crowd, Identity, Member, Over, Server, Turns, Waits, command, request, sized, target,
    until,
};
use serde_json::{Value, json};

fn get(path: &str, params: &common::Params) -> Vec<u8> {
    request("GET", &target(path, params), &[], None)
}

/// Returns a round of a bystander in its own channel: it waits for its own message.
fn bystander(server: &Server) -> impl FnMut() + Send {
    let (mut reader, mut writer) = (server.client(), server.client());
    let mut next_id = server.read("bystander", "0").next_id();
    move || {
        reader.send_get("/read", &[("channel", "bystander"), ("from_id", &next_id.to_string())]);
        writer.get("/write", &[("channel", "bystander"), ("message", "m")]).ok();
        let answer = reader.response().ok();
        assert_eq!(answer.ids(), [next_id], "a bystander misses nothing");
        next_id = answer.next_id();
    }
}

/// Runs `flood` together with a bystander, which must be served between its beginning and its end.
/// The flood can read how often the bystander was served and ask for more.
fn with_a_bystander<T>(server: &Server, what: &str, flood: impl FnOnce(&AtomicUsize) -> T) -> T {
    println!("{what}");
    let turns = Turns::of(server);
    Waits::quiet(bystander(server)).tell("before");
    let (is_over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let result = thread::scope(|scope| {
        let waits = scope.spawn(|| Waits::of(bystander(server), &is_over, &rounds));
        let over = Over(&is_over);
        let seen = rounds.load(Ordering::Relaxed);
        let result = flood(&rounds);
        assert!(rounds.load(Ordering::Relaxed) > seen, "no other client was served meanwhile");
        drop(over);
        waits.join().expect("no panic").tell("during");
        result
    });
    Turns::of(server).tell_since(&turns);
    Waits::quiet(bystander(server)).tell("after");
    result
}

fn tell_memory(server: &Server, before: u64, during: u64) {
    println!("    RSS {before} KiB before, {during} KiB during, {} KiB after", server.rss_kib());
}

/// Returns once the server has given back the memory that it took since `before`.
fn memory_is_released(server: &Server, before: u64, during: u64) {
    until("memory is back", || server.rss_kib() < before + 3_072);
    tell_memory(server, before, during);
}

#[test]
fn a_pipelining_client_is_limited_to_its_share_of_a_turn() {
    let server = Server::watched(&["--history", "10"]);
    let count = sized(6_000, 100_000);
    let before = server.rss_kib();
    let flood = get("/write", &[("channel", "c"), ("message", "m")]).repeat(count);
    with_a_bystander(&server, &format!("one client pipelines {count} writes"), |_| {
        server.client().send_meanwhile(iter::once(flood), |client| {
            for id in 1..=count {
                assert_eq!(client.response().ok().json()["id"], id);
            }
        });
    });
    memory_is_released(&server, before, server.rss_kib());
}

#[test]
fn pipelining_clients_take_turns() {
    let server = Server::watched(&["--history", "10"]);
    let (clients, each) = (sized(100, 500), sized(500, 1_000));
    let what = format!("{clients} clients pipeline {each} requests each");
    let mut crowd = with_a_bystander(&server, &what, |_| {
        let mut crowd = Crowd::connect(server.address(), clients);
        crowd.send_all(&get("/write", &[("channel", "c"), ("message", "m")]).repeat(each));
        let answer_bytes = 200;
        crowd.until("have all answers", clients, |member| {
            member.received.len() > each * answer_bytes
        });
        crowd
    });
    for member in &mut crowd.members {
        let ids = iter::from_fn(|| member.take_answer()).map(|(status, body)| {
            assert_eq!(status, 200);
            let answer: Value = serde_json::from_slice(&body).expect("JSON");
            answer["id"].as_u64().expect("an id")
        });
        assert!(ids.is_sorted(), "one client's requests are done in order");
    }
}

/// Messages that a reader of a crowd has seen, and its cursor.
#[derive(Default)]
struct Seen {
    next_id: u64,
    answers: usize,
    missed: usize,
}

impl Seen {
    /// Takes a response: no message twice, none out of order, gaps only where reported.
    fn take(&mut self, body: &[u8]) {
        let answer: Value = serde_json::from_slice(body).expect("JSON");
        let messages = answer["messages"].as_array().expect("messages");
        let next_id = answer["next_id"].as_u64().expect("a next_id");
        let begins = next_id - messages.len() as u64;
        let ids = messages.iter().map(|it| it["id"].as_u64());
        assert!(ids.eq((begins..next_id).map(Some)), "no row before its next_id: {answer}");
        let missed = answer["missed"] == true;
        let follows = begins == self.next_id || (missed && begins > self.next_id);
        assert!(follows, "{begins} after {}", self.next_id);
        self.next_id = next_id;
        self.answers += 1;
        self.missed += usize::from(missed);
    }
}

#[test]
fn a_busy_channel_with_many_readers_leaves_others_their_share_of_the_loop() {
    let readers = sized(2_500, 18_000);
    let server = Server::watched(&["--poll-timeout", "1h"]);
    let before = server.rss_kib();
    let mut crowd = Crowd::connect(server.address(), readers);
    let ask = |next_id: u64| get("/read", &[("channel", "c"), ("from_id", &next_id.to_string())]);
    crowd.send_all(&ask(1));
    server.wait_for_readers("c", readers as u64);
    let during = server.rss_kib();
    let mut seen: Vec<Seen> =
        (0..readers).map(|_| Seen { next_id: 1, ..Seen::default() }).collect();
    with_a_bystander(
        &server,
        &format!("a channel with {readers} readers and a write every millisecond"),
        |rounds| {
            let is_over = AtomicBool::new(false);
            let written = thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    let mut writer = server.client();
                    let mut written = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        let answer =
                            writer.get("/write", &[("channel", "c"), ("message", "m")]).ok();
                        written = answer.json()["id"].as_u64().expect("an id");
                        thread::sleep(Duration::from_millis(1));
                    }
                    written
                });
                let over = Over(&is_over);
                let at_first = rounds.load(Ordering::Relaxed);
                let began = Instant::now();
                // Until every reader was answered three times, each returning at once.
                while seen.iter().any(|seen| seen.answers < 3) {
                    assert!(began.elapsed() < 8 * common::GUARD, "some are not answered");
                    for number in crowd.turn(Duration::from_millis(50)) {
                        while let Some((status, body)) = crowd.members[number].take_answer() {
                            assert_eq!(status, 200);
                            seen[number].take(&body);
                            crowd.send(number, &ask(seen[number].next_id));
                        }
                    }
                }
                assert!(
                    rounds.load(Ordering::Relaxed) > at_first,
                    "no other client was served meanwhile"
                );
                drop(over);
                writer.join().expect("no panic")
            });
            let answers: usize = seen.iter().map(|it| it.answers).sum();
            let missed: usize = seen.iter().map(|it| it.missed).sum();
            println!("    {written} writes, {answers} answers, {missed} of them missed some");
        },
    );
    drop(crowd);
    server.wait_for_readers("c", 0);
    memory_is_released(&server, before, during);
}

#[test]
fn streams_get_everything_in_order_when_a_turn_has_no_budget_for_all() {
    let readers = sized(2_500, 18_000);
    let server = Server::watched(&["--heartbeat", "1h", "--history", "5000"]);
    let before = server.rss_kib();
    let mut crowd = Crowd::connect(server.address(), readers);
    let headers = [("Accept", "text/event-stream")];
    crowd.send_all(&request("GET", &target("/read", &[("channel", "c")]), &headers, None));
    server.wait_for_readers("c", readers as u64);
    let during = server.rss_kib();
    let count = sized(20, 200);
    with_a_bystander(&server, &format!("{readers} streams, {count} messages"), |_| {
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut writer = server.client();
                for number in 1..=count {
                    writer
                        .get("/write", &[("channel", "c"), ("message", &format!("<{number}>"))])
                        .ok();
                }
            });
            let last = format!("<{count}>");
            let has_all =
                |member: &Member| memchr::memmem::find(&member.received, last.as_bytes()).is_some();
            crowd.until("have all", readers, has_all);
        });
    });
    for member in &crowd.members {
        let text = std::str::from_utf8(&member.received).expect("UTF-8");
        let messages = text.split("\"message\":\"<").skip(1);
        let numbers = messages.map(|rest| rest.split_once('>').expect("its end").0);
        assert!(numbers.eq((1..=count).map(|number| number.to_string())), "{text}");
    }
    drop(crowd);
    server.wait_for_readers("c", 0);
    memory_is_released(&server, before, during);
}

#[test]
fn the_longest_waiting_reader_is_answered_first_also_across_turns() {
    let server = Server::patient(&[]);
    let mut bystander = server.client();
    // One turn answers so many, and several turns so many.
    for (channel, readers) in [("few", 600), ("many", 3_000)] {
        let mut crowd = Crowd::connect(server.address(), readers);
        for round in 1..=3 {
            // One after the other, so that the order of arrival is known.
            for number in (0..readers).rev() {
                crowd.send(number, &get("/read", &[("channel", channel)]));
                if number % 50 == 0 {
                    let there = (readers - number) as u64;
                    until("they wait", || {
                        let members = bystander.get("/members", &[("channel", channel)]);
                        members.ok().json()["readers"] == there
                    });
                }
            }
            server.write(channel, "m");
            // The last arrival has its response, so all have theirs: the kernel holds them by now.
            while crowd.members[0].received.is_empty() {
                crowd.turn(Duration::from_millis(50));
            }
            while !crowd.turn(Duration::ZERO).is_empty() {}
            for (number, member) in crowd.members.iter_mut().enumerate() {
                let (_, body) = member.take_answer().unwrap_or_default();
                let body = String::from_utf8_lossy(&body);
                let id = format!("{{\"messages\":[{{\"id\":{round},");
                assert!(body.starts_with(&id), "{channel} {round}, reader {number}: {body}");
            }
        }
    }
}

#[test]
fn readers_that_return_without_pause_do_not_starve_others() {
    let server = Server::watched(&[]);
    server.write("c", "m");
    with_a_bystander(&server, "readers that come back without pause", |rounds| {
        let mut crowd = Crowd::connect(server.address(), sized(30, 200));
        let at_once = get("/read", &[("channel", "c"), ("timeout", "0")]);
        let known = get("/read", &[("channel", "c"), ("from_id", "1")]);
        crowd.send_all(&at_once);
        let seen = rounds.load(Ordering::Relaxed);
        let (mut answers, enough) = (0, sized(6_000, 300_000));
        while answers < enough || rounds.load(Ordering::Relaxed) <= seen {
            for number in crowd.turn(Duration::from_secs(1)) {
                while let Some((status, _)) = crowd.members[number].take_answer() {
                    assert_eq!(status, 200);
                    answers += 1;
                    crowd.send(number, if answers % 2 == 0 { &at_once } else { &known });
                }
            }
        }
    });
}

#[test]
fn goodbyes_and_large_member_lists_do_not_block_the_loop() {
    let server = Server::watched(&["--connection-timeout", "1h"]);
    let members = sized(2_000, 20_000);
    let mut client = server.client();
    let introductions = get("/introduce", &[("channel", "c"), ("message", "user")]).repeat(members);
    let mut people = Vec::new();
    client.send_meanwhile(iter::once(introductions), |client| {
        people.extend((0..members).map(|_| Identity::from_answer(&client.response().ok())));
    });
    let askers = sized(20, 50);
    with_a_bystander(
        &server,
        &format!("{askers} clients ask for {members} members, each five times"),
        |rounds| {
            let seen = rounds.load(Ordering::Relaxed);
            let mut crowd = Crowd::connect(server.address(), askers);
            let ask = get("/members", &[("channel", "c")]);
            crowd.send_all(&ask.repeat(5));
            let mut answers = 0;
            // They continue until another client is served, which they must not delay for long.
            while answers < 5 * askers || rounds.load(Ordering::Relaxed) <= seen {
                for number in crowd.turn(Duration::from_secs(1)) {
                    while let Some((status, body)) = crowd.members[number].take_answer() {
                        // 20,000 members are more than one answer has.
                        let count = memchr::memmem::find_iter(&body, b"{\"connection\":").count();
                        let is_cut = body.ends_with(b"\"more\":true}");
                        assert!(status == 200 && (count < members) == is_cut, "{status} {count}");
                        answers += 1;
                        crowd.send(number, &ask);
                    }
                }
                assert!(answers < 500 * askers, "no other client was served meanwhile");
            }
        },
    );
    let goodbyes = people.iter().flat_map(|person| get("/goodbye", &person.and(&[]))).collect();
    client.send_meanwhile(iter::once(goodbyes), |client| {
        for _ in 0..members {
            client.response().ok();
        }
    });
    assert_eq!(server.members("c")["members"], json!([]));
}

/// Returns the statuses of a crowd's responses; 0 for clients closed without a response.
fn statuses(crowd: &mut Crowd) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    for member in &mut crowd.members {
        let answer = member.take_answer();
        if let Some((503, body)) = &answer {
            let body = String::from_utf8_lossy(body);
            assert!(body.starts_with("{\"error\":\"over_capacity\""), "{body}");
        }
        *statuses.entry(answer.map_or(0, |(status, _)| status)).or_default() += 1;
    }
    statuses
}

/// A process with clients of its own: one process may not have as many as a storm needs. This is no
/// test of its own: a test runs it, and it ends when its standard input does.
#[test]
#[ignore = "run by the test of a storm, in a process of its own"]
fn half_a_storm() {
    let Ok(task) = std::env::var("SPEAK_HALF_A_STORM") else { return };
    let (address, count) = task.split_once(' ').expect("an address and a count");
    let count = count.parse().expect("a count");
    let mut crowd = Crowd::connect(address.parse().expect("an address"), count);
    crowd.send_all(&get("/health", &[]));
    crowd.until("are answered, or closed", count, |member| {
        member.is_closed || !member.received.is_empty()
    });
    println!("STORM {}", serde_json::to_string(&statuses(&mut crowd)).expect("JSON"));
    // The clients stay until the parent ends this process's input.
    let _ = std::io::stdin().lock().lines().next();
}

#[test]
fn a_storm_of_connects_is_served_to_the_limit_and_the_rest_is_rejected() {
    let (halves, each, room) = (2, sized(700, 10_000), sized(1_000, 19_000));
    let server = Server::with(&["--max-clients", &room.to_string(), "--keep-alive", "1h"]);
    server.get("/health", &[]).ok();
    let (before, files) = (server.rss_kib(), server.open_files());
    println!("{} connects at once, with room for {room}", halves * each);
    let exe = std::env::current_exe().expect("this test");
    let mut storms: Vec<_> = (0..halves)
        .map(|_| {
            Command::new(&exe)
                .args(["--exact", "half_a_storm", "--ignored", "--nocapture"])
                .env("SPEAK_HALF_A_STORM", format!("{} {each}", server.address()))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("half a storm")
        })
        .collect();
    let mut statuses_seen: BTreeMap<u16, usize> = BTreeMap::new();
    for storm in &mut storms {
        let lines = BufReader::new(storm.stdout.as_mut().expect("a pipe")).lines();
        let line = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("STORM ").map(str::to_owned));
        let statuses: BTreeMap<u16, usize> =
            serde_json::from_str(&line.expect("a line with statuses")).expect("JSON");
        for (status, count) in statuses {
            *statuses_seen.entry(status).or_default() += count;
        }
    }
    let during = server.rss_kib();
    println!("    {statuses_seen:?}");
    // Clients are served up to the limit, and every refusal is a clear response.
    assert_eq!(statuses_seen, BTreeMap::from([(200, room), (503, halves * each - room)]));
    for mut storm in storms {
        drop(storm.stdin.take());
        storm.wait().expect("our own child");
    }
    until("all descriptors are free", || server.open_files() <= files);
    server.get("/health", &[]).ok();
    memory_is_released(&server, before, during);
}

#[test]
fn out_of_descriptors_present_clients_are_served_and_new_ones_rejected() {
    for limit in [40, 64, 100] {
        with_few_descriptors(limit);
    }
}

/// Checks a server whose limit on open files is `limit`: new clients, present ones, and those of
/// the admin listener.
fn with_few_descriptors(limit: usize) {
    let mut shell = Command::new("sh");
    let listeners = "--listen 127.0.0.1:0 --admin-listen 127.0.0.1:0";
    let line = format!("ulimit -n {limit}; exec \"$0\" {listeners} --poll-timeout 1h");
    shell.args(["-c", &line]).arg(command().get_program());
    // As many clients as half of the file limit; the process's own files take the other half.
    let server = Server::spawn(shell, 2);
    let mut crowd = Crowd::connect(server.address(), 200);
    crowd.send_all(&get("/health", &[]));
    crowd.until("are answered, or closed", 200, |member| {
        member.is_closed || !member.received.is_empty()
    });
    let mut guests: Vec<usize> = Vec::new();
    let mut refused = 0;
    for number in 0..200 {
        match crowd.members[number].take_answer() {
            Some((200, _)) => guests.push(number),
            Some((503, _)) => refused += 1,
            other => panic!("{number} got {other:?}"),
        }
    }
    assert!(guests.len() >= limit / 3, "{} served of {limit}", guests.len());
    assert_eq!(refused, 200 - guests.len());
    // Descriptors are kept for the operator, who wants to know why.
    let mut operators = [(); 3].map(|()| server.operator());
    for operator in &mut operators {
        operator.get("/metrics", &[]).ok();
        operator.get("/health", &[]).ok();
    }
    assert_eq!(server.logged("Too many open files"), 0);
    // The present clients are still served.
    for number in &guests {
        crowd.send(*number, &get("/write", &[("channel", "c"), ("message", "m")]));
    }
    crowd.until("go on", guests.len(), |member| !member.received.is_empty());
    drop(crowd);
    until("there is room again", || {
        let mut client = Client::connect(server.address());
        client.try_send(get("/health", &[])) && client.response().status == 200
    });
}

#[test]
fn channels_created_by_reads_do_not_evict_messages() {
    let server = Server::with(&["--max-memory", "2m", "--history", "100"]);
    let before = server.rss_kib();
    let mut writer = server.client();
    server.fill("kept", "history", 20);
    // Each frame subscribes the socket to 32 unknown channels and leaves those of the frame before.
    let mut socket = server.socket(&[("channel", "c")]);
    let frames = sized(400, 20_000);
    for frame in 0..frames {
        let channels: Vec<String> =
            (0..32).map(|place| format!("never mind {frame} {place}")).collect();
        let answer = socket.call(&json!({"call": "read", "channel": channels}));
        assert_eq!(answer["error"], Value::Null, "{answer}");
        writer.get("/write", &[("channel", "c"), ("message", "m")]).ok();
    }
    let kept = server.read("kept", "1");
    assert!(kept.ids().into_iter().eq(1..=20) && !kept.is("missed"), "history was evicted");
    println!("{} channels that only reads made:", 32 * frames);
    tell_memory(&server, before, server.rss_kib());
}

#[test]
fn immediate_reads_and_member_lists_create_no_channel() {
    let server = Server::with(&["--max-channels", "1"]);
    for number in 0..100 {
        let name = format!("c{number}");
        server.read(&name, "0");
        server.members(&name);
    }
    server.write("the one", "m");
    let mut reader = server.client();
    reader.get("/read", &[("channel", "another")]).fails_with(503, "over_capacity");
}

#[test]
fn an_unused_channel_is_evicted_for_another() {
    let server = Server::with(&["--max-channels", "3"]);
    server.write("one", "m");
    for number in 0..50 {
        let name = format!("c{number}");
        // A read waits and its client leaves: the channel is empty.
        drop(server.park(&[("channel", &name)]));
        server.wait_for_readers(&name, 0);
    }
    let _waits = server.park(&[("channel", "two")]);
    assert_eq!(server.write("three", "m"), 1);
    let mut reader = server.client();
    reader.get("/read", &[("channel", "four")]).fails_with(503, "over_capacity");
    assert_eq!(server.write("one", "m"), 2, "one that is used goes on");
}

#[test]
fn memory_of_messages_is_released_when_they_expire() {
    let server =
        Server::watched(&["--max-memory", "20m", "--retention", "2s", "--history", "1000000"]);
    server.get("/health", &[]).ok();
    let before = server.rss_kib();
    let count = sized(40_000, 400_000);
    let write = get("/write", &[("channel", "c"), ("message", &"m".repeat(400))]);
    let mut during = 0;
    server.client().send_meanwhile(iter::repeat_n(write, count), |client| {
        for number in 0..count {
            client.response().ok();
            if number % 1_000 == 0 {
                during = during.max(server.rss_kib());
            }
        }
    });
    assert!(
        (before + 4_096..before + 40 * 1_024).contains(&during),
        "{during} KiB for --max-memory 20m"
    );
    println!("{count} messages");
    memory_is_released(&server, before, during);
}

#[test]
fn memory_of_channels_is_bounded_and_released_when_they_are_unused() {
    let memory = if common::is_full() { "200m" } else { "20m" };
    let server = Server::watched(&["--max-memory", memory, "--retention", "1s"]);
    server.get("/health", &[]).ok();
    let before = server.rss_kib();
    let count = sized(40_000, 1_000_000);
    with_a_bystander(&server, &format!("{count} channels with one message each"), |_| {
        let writes = (0..count).map(|number| {
            get("/write", &[("channel", &format!("channel-{number}")), ("message", "m")])
        });
        server.client().send_meanwhile(writes, |client| {
            for _ in 0..count {
                client.response().ok();
            }
        });
    });
    let during = server.rss_kib();
    assert!(during < before + sized(40, 400) as u64 * 1_024, "{during} KiB for --max-memory");
    // Empty channels stay for a minute, too long for a test that runs each time.
    if common::is_full() {
        thread::sleep(Duration::from_secs(62));
        memory_is_released(&server, before, during);
    }
}
