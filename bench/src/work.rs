//! Workloads that move messages through a crowd: fan-out, chat, and idle readers.

use std::ops::Range;
use std::time::{Duration, Instant};
use std::{cmp, slice};

use support::process::{self, Cores, Memory};
use support::random::Random;

use crate::churn;
use crate::client::POLL_TIMEOUT;
use crate::closed_loop::{self, Closed};
use crate::fanout::{CONNECT_BATCH, Crowd, Size};
use crate::result::Result;
use crate::sample::Sample;
use crate::server::Target;
use crate::stats::Histogram;
use crate::window::Window;
use crate::wire::Form;

/// In a chat, the loop does not sleep if the next message is due sooner than this.
const CHAT_SLEEP_MIN: Duration = Duration::from_millis(2);
/// Crowds that come and leave before memory is measured over TLS.
const TLS_WARM_UPS: usize = 40;
/// Servers may release pages some time after the clients left.
const RELEASE_STEP: Duration = Duration::from_millis(50);
const RELEASE_STEPS: usize = 10;

/// Rooms with users, at a fixed rate of messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Chat {
    pub(crate) rooms: usize,
    pub(crate) users: usize,
    pub(crate) per_second: f64,
    pub(crate) messages: usize,
    pub(crate) form: Form,
}

/// One room; one message at a time, each after all readers have the last one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fanout {
    pub(crate) readers: usize,
    pub(crate) messages: usize,
    pub(crate) form: Form,
}

/// The work of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Work {
    Fanout(Fanout),
    Chat(Chat),
    /// Writes.
    Publish(Closed),
    /// Reads of this many messages, answered at once.
    Poll(Closed, usize),
    /// Introduce, wait, close.
    Churn {
        cycles: usize,
    },
    /// Connect, write, close: the cost of a connection without a session.
    Connect {
        cycles: usize,
    },
    /// Readers that connect, wait, and leave without a message.
    Come {
        cycles: usize,
        form: Form,
    },
    /// Readers that all connect at once.
    Return {
        readers: usize,
        form: Form,
    },
    /// Handshakes of TLS without a request.
    Handshakes {
        cycles: usize,
    },
    /// Waiting readers.
    Idle {
        readers: usize,
        form: Form,
    },
}

impl Work {
    /// Runs the work on a fresh server.
    pub(crate) fn run(self, target: &Target, cores: Cores) -> Result<Sample> {
        match self {
            Work::Fanout(work) => fanout(slice::from_ref(target), cores, work),
            Work::Chat(work) => chat(target, cores, work),
            Work::Publish(work) => closed_loop::publish(target, cores, work),
            Work::Poll(work, messages) => closed_loop::poll(target, cores, work, messages),
            Work::Churn { cycles } => churn::churn(target, cores, cycles),
            Work::Connect { cycles } => churn::connect(target, cores, cycles),
            Work::Come { cycles, form } => come(target, cores, cycles, form),
            Work::Return { readers, form } => come_back(target, cores, readers, form),
            Work::Handshakes { cycles } => churn::handshakes(target, cores, cycles),
            Work::Idle { readers, form } => idle(target, cores, readers, form),
        }
    }
}

/// Runs a fan-out by servers of the same channels. The first one gets the writes, and the last one
/// the first reader.
pub(crate) fn fanout(targets: &[Target], cores: Cores, work: Fanout) -> Result<Sample> {
    fanout_to_rooms(targets, cores, work, 1)
}

/// Runs a fan-out by servers that share nothing. Each has its part of the readers, and gets each
/// message by a write.
pub(crate) fn fanout_apart(targets: &[Target], cores: Cores, work: Fanout) -> Result<Sample> {
    fanout_to_rooms(targets, cores, work, targets.len())
}

/// Sends each message to all rooms, and waits until all readers have it. Several rooms are each at
/// a server of its own.
fn fanout_to_rooms(targets: &[Target], cores: Cores, work: Fanout, rooms: usize) -> Result<Sample> {
    let Fanout { readers, messages, form } = work;
    let size = Size {
        rooms,
        readers_per_room: readers / rooms,
        writers: rooms,
        form,
        at_once: false,
        is_apart: rooms > 1,
    };
    let mut crowd = Crowd::gather(targets, size)?;
    let all = 0..rooms as u32;
    // The first message pays for allocations that later ones reuse.
    send_to_all(&mut crowd, all.clone(), 0, size.readers_per_room)?;
    let window = Window::open(targets, cores)?;
    let mut last = Histogram::default();
    for seq in 1..=messages as u32 {
        last.record(send_to_all(&mut crowd, all.clone(), seq, size.readers_per_room)?);
    }
    let deliveries = (size.readers_per_room * rooms * messages) as u64;
    let mut sample = finish(&crowd, window, deliveries, &last)?;
    let mut resident = 0;
    for target in targets.iter().filter(|target| target.process.is_some()) {
        resident += memory_of(target)?.total;
    }
    sample.extra.push(("resident_bytes", resident as f64));
    Ok(sample)
}

/// Sends by the clock, independent of the server: a latency counts from the time a message was due.
fn chat(target: &Target, cores: Cores, work: Chat) -> Result<Sample> {
    let size = Size {
        rooms: work.rooms,
        readers_per_room: work.users,
        writers: 64,
        form: work.form,
        at_once: false,
        is_apart: false,
    };
    let targets = slice::from_ref(target);
    let mut crowd = Crowd::gather(targets, size)?;
    let window = Window::open(targets, cores)?;
    let mut latency = Histogram::default();
    // The rooms only have to be mixed, and equally in each run.
    let mut random = Random::new(1);
    let start = Instant::now();
    let due = |seq: usize| start + Duration::from_secs_f64(seq as f64 / work.per_second);
    let mut sent = 0;
    let all = (work.messages * work.users) as u64;
    while crowd.delivered() < all || crowd.unanswered() > 0 {
        while sent < work.messages && due(sent) <= Instant::now() {
            crowd.write(random.index(work.rooms) as u32, sent as u32)?;
            sent += 1;
        }
        let timeout = if sent == work.messages {
            POLL_TIMEOUT
        } else {
            let gap = due(sent).saturating_duration_since(Instant::now());
            gap.checked_sub(CHAT_SLEEP_MIN).unwrap_or(Duration::ZERO)
        };
        crowd.turn(timeout, |delivery| {
            let due = due(delivery.seq as usize);
            latency.record(delivery.at.saturating_duration_since(due));
        })?;
    }
    finish(&crowd, window, all, &latency)
}

/// Closes the window and checks what all readers got.
fn finish(crowd: &Crowd, window: Window, all: u64, latency: &Histogram) -> Result<Sample> {
    let sample = Sample::new(window.close()?, all);
    crowd.check()?;
    Ok(Sample { latency: latency.summary(), answer_bytes: crowd.answer_bytes(), ..sample })
}

/// Writes a message to rooms of so many readers each, and waits until every reader has it. Returns
/// the time until the last one.
fn send_to_all(crowd: &mut Crowd, rooms: Range<u32>, seq: u32, readers: usize) -> Result<Duration> {
    let start = Instant::now();
    let wanted = crowd.delivered() + (rooms.len() * readers) as u64;
    for room in rooms {
        crowd.write(room, seq)?;
    }
    let mut last = start;
    while crowd.delivered() < wanted || crowd.unanswered() > 0 {
        crowd.turn(POLL_TIMEOUT, |delivery| last = delivery.at)?;
    }
    Ok(last - start)
}

/// Readers at a time of [`Work::Come`].
const COME_BATCH: usize = 40;

/// Measures readers that come, wait until they are in their room, and leave.
fn come(target: &Target, cores: Cores, cycles: usize, form: Form) -> Result<Sample> {
    let targets = slice::from_ref(target);
    let size = |readers_per_room| Size {
        rooms: 1,
        readers_per_room,
        writers: 0,
        form,
        at_once: false,
        is_apart: false,
    };
    drop(Crowd::gather(targets, size(COME_BATCH))?);
    let window = Window::open(targets, cores)?;
    for done in (0..cycles).step_by(COME_BATCH) {
        drop(Crowd::gather(targets, size(COME_BATCH.min(cycles - done)))?);
    }
    Ok(Sample::new(window.close()?, cycles as u64))
}

/// Measures readers that all connect at once. A latency is the time until one of them waits.
fn come_back(target: &Target, cores: Cores, readers: usize, form: Form) -> Result<Sample> {
    let targets = slice::from_ref(target);
    let size = |readers_per_room| Size {
        rooms: 1,
        readers_per_room,
        writers: 0,
        form,
        at_once: true,
        is_apart: false,
    };
    drop(Crowd::gather(targets, size(COME_BATCH))?);
    let window = Window::open(targets, cores)?;
    let crowd = Crowd::gather(targets, size(readers))?;
    let sample = Sample::new(window.close()?, readers as u64);
    Ok(Sample { latency: crowd.begun_after().summary(), ..sample })
}

/// Measures the server's memory per waiting reader, and whether it is released.
fn idle(target: &Target, cores: Cores, readers: usize, form: Form) -> Result<Sample> {
    let size = |rooms, readers_per_room| Size {
        rooms,
        readers_per_room,
        writers: 1,
        form,
        at_once: false,
        is_apart: false,
    };
    // Code is loaded on first use. That is no reader's memory, so each path runs once before.
    let targets = slice::from_ref(target);
    // Nor is the memory of handshakes, so as many are made at a time as later, and enough of them
    // to fill an allocator's caches: those of glibc take 0.2 MB, and no reader needs their blocks.
    let warm_up = CONNECT_BATCH / 2;
    for _ in 0..if target.is_tls { TLS_WARM_UPS } else { 0 } {
        drop(Crowd::gather(targets, size(2, warm_up))?);
    }
    let mut first = Crowd::gather(targets, size(2, warm_up))?;
    send_to_all(&mut first, 1..2, 0, warm_up)?;
    drop(first);
    let window = Window::open(targets, cores)?;
    let before = resting(target)?;
    let mut crowd = Crowd::gather(targets, size(1, readers))?;
    let waiting = resting(target)?;
    send_to_all(&mut crowd, 0..1, 0, readers)?;
    let notified = resting(target)?;
    let usage = window.close()?;
    crowd.check()?;
    drop(crowd);
    let left = released(target)?;

    let share = |now: u64, before: u64| (now as f64 - before as f64) / readers as f64;
    let each = |memory: Memory| share(memory.total, before.total);
    let mut sample = Sample::new(usage, readers as u64);
    // The cost is the larger of both.
    sample.cost = Some(each(waiting).max(each(notified)));
    sample.extra = vec![
        ("before_bytes", before.total as f64),
        ("waiting_bytes_each", each(waiting)),
        ("notified_bytes_each", each(notified)),
        ("notified_anonymous_bytes_each", share(notified.anonymous, before.anonymous)),
        ("left_bytes", left.total as f64),
        ("left_over_before", left.total as f64 / before.total as f64),
    ];
    Ok(sample)
}

fn resting(target: &Target) -> Result<Memory> {
    let processes: Vec<_> = target.processes().collect();
    process::settle(&processes)?;
    memory_of(target)
}

/// Returns the memory of all processes of a server.
fn memory_of(target: &Target) -> Result<Memory> {
    let mut sum = Memory { anonymous: 0, total: 0 };
    for process in target.processes() {
        let memory = process.memory()?;
        sum.anonymous += memory.anonymous;
        sum.total += memory.total;
    }
    if sum.total > 0 { Ok(sum) } else { Err("memory is measured of a known process".into()) }
}

/// Returns the memory after some time in which it may shrink.
fn released(target: &Target) -> Result<Memory> {
    let mut least = resting(target)?;
    for _ in 0..RELEASE_STEPS {
        std::thread::sleep(RELEASE_STEP);
        least = cmp::min_by_key(least, memory_of(target)?, |memory| memory.total);
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::Baseline;
    use crate::server::Kind;

    /// Starts a baseline in a thread, which ends with the tests.
    fn baseline() -> Target {
        let mut baseline = Baseline::bind().unwrap();
        let address = baseline.address().unwrap();
        std::thread::spawn(move || baseline.run().unwrap());
        Target::new(address, Kind::Baseline.dialect())
    }

    #[test]
    fn the_baseline_loses_nothing() {
        let closed = Closed {
            connections: 5,
            depth: 4,
            requests: 4000,
            at_most: Duration::MAX,
            warm_up: 40,
        };
        let works = [
            Work::Fanout(Fanout { readers: 50, messages: 30, form: Form::Plain }),
            Work::Fanout(Fanout { readers: 50, messages: 30, form: Form::Events }),
            Work::Fanout(Fanout { readers: 50, messages: 30, form: Form::Frames }),
            // Fast enough that readers lag and get several messages at once.
            Work::Chat(Chat {
                rooms: 5,
                users: 10,
                per_second: 50_000.0,
                messages: 2_000,
                form: Form::Plain,
            }),
            Work::Publish(closed),
            Work::Poll(closed, 1),
            Work::Poll(closed, 0),
        ];
        for work in works {
            let sample = work.run(&baseline(), Cores::choose().unwrap());
            let sample = sample.unwrap_or_else(|error| panic!("{work:?}: {error}"));
            assert!(sample.operations > 0 && sample.cost.is_none());
        }
    }

    #[test]
    fn servers_that_share_nothing_have_equal_parts_of_the_readers() {
        let work = Fanout { readers: 50, messages: 30, form: Form::Plain };
        let targets = [baseline(), baseline()];
        let sample = fanout_apart(&targets, Cores::choose().unwrap(), work).unwrap();
        assert_eq!(sample.operations, 50 * 30);
    }

    #[test]
    fn a_server_that_was_used_before_fails_the_check() {
        let target = baseline();
        let work = Work::Fanout(Fanout { readers: 3, messages: 3, form: Form::Plain });
        let cores = Cores::choose().unwrap();
        work.run(&target, cores).unwrap();
        assert!(work.run(&target, cores).is_err());
    }
}
