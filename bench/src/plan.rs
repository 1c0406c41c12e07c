//! The comparisons: servers, loads, durations, and the wanted ratios.

use std::time::Duration;

use crate::closed_loop::Closed;
use crate::server::Kind;
use crate::wire::Form;
use crate::work::{Chat, Fanout, Work};

/// Length of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Length {
    /// Under two minutes.
    #[default]
    Quick,
    Full,
    /// With what people would use instead of Speak, and over TLS.
    Peers,
}

impl Length {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Length::Quick => "quick",
            Length::Full => "full",
            Length::Peers => "peers",
        }
    }

    /// Returns the time after which no row is measured again.
    pub(crate) fn time_max(self) -> Duration {
        match self {
            Length::Quick | Length::Full => Duration::MAX,
            Length::Peers => Duration::from_mins(11),
        }
    }

    pub(crate) fn rounds(self) -> usize {
        match self {
            Length::Quick => 4,
            Length::Full => 5,
            Length::Peers => 3,
        }
    }
}

/// Reference of a figure of Speak.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Against {
    /// The same work done by a peer.
    Peer(Kind),
    /// Speak's own figure for a delivery to a long poll, in the row of this name.
    LongPoll(&'static str),
    /// A write, for each of two calls. The cost to connect and close is subtracted first.
    WritePerCall,
    /// No reference: the figure itself counts.
    Absolute,
    /// Memory after the readers left, as a multiple of the memory before they came.
    LeftOverBefore,
}

/// A wanted ratio.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) against: Against,
    pub(crate) at_most: f64,
    pub(crate) stretch: Option<f64>,
}

/// A row of the table.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) work: Work,
    pub(crate) targets: &'static [Kind],
    pub(crate) is_tls: bool,
    pub(crate) goals: Vec<Goal>,
}

const SPEAK: &[Kind] = &[Kind::Speak];
const PUBSUB: &[Kind] = &[Kind::Speak, Kind::Baseline, Kind::Nchan];
const WITH_NGINX: &[Kind] = &[Kind::Speak, Kind::Baseline, Kind::Nchan, Kind::Nginx];
const WITHOUT_BASELINE: &[Kind] = &[Kind::Speak, Kind::Nchan];
const BUILDS: &[Kind] = &[Kind::Speak, Kind::OtherBuild];

/// Returns the compared servers: two builds of Speak, or Speak and the usual peers.
pub(crate) fn kinds(has_other_build: bool) -> &'static [Kind] {
    if has_other_build { BUILDS } else { WITH_NGINX }
}

const DELIVERY: &str = "µs a delivery";
const REQUEST: &str = "µs a request";
const CLIENT: &str = "µs a client";

fn goal(against: Against, at_most: f64, stretch: Option<f64>) -> Goal {
    Goal { against, at_most, stretch }
}

fn peers(baseline: f64, stretch: f64, nchan: f64) -> Vec<Goal> {
    vec![
        goal(Against::Peer(Kind::Baseline), baseline, Some(stretch)),
        goal(Against::Peer(Kind::Nchan), nchan, None),
    ]
}

fn part(name: &'static str, label: &'static str, unit: &'static str, work: Work) -> Part {
    Part { name, label, unit, work, targets: PUBSUB, is_tls: false, goals: Vec::new() }
}

fn fanout(name: &'static str, label: &'static str, readers: usize, messages: usize) -> Part {
    let work = Work::Fanout(Fanout { readers, messages, form: Form::Plain });
    Part { goals: peers(1.10, 1.03, 0.70), ..part(name, label, DELIVERY, work) }
}

/// The same load with streams: each delivery must cost less than `long_poll` does.
fn stream(
    (name, label): (&'static str, &'static str),
    form: Form,
    (readers, messages): (usize, usize),
    long_poll: &'static str,
) -> Part {
    let work = Work::Fanout(Fanout { readers, messages, form });
    let goals = vec![goal(Against::LongPoll(long_poll), 1.0, None)];
    Part { goals, ..part(name, label, DELIVERY, work) }
}

fn chat(name: &'static str, label: &'static str, rooms: usize, users: usize, seconds: f64) -> Part {
    /// A rate that the slowest server sustains with half a core.
    const DELIVERIES_PER_SECOND: f64 = 15_000.0;
    let per_second = DELIVERIES_PER_SECOND / users as f64;
    #[expect(clippy::cast_sign_loss, reason = "both factors are above 0")]
    let messages = (per_second * seconds) as usize;
    let work = Work::Chat(Chat { rooms, users, per_second, messages, form: Form::Plain });
    Part { goals: peers(1.15, 1.08, 0.75), ..part(name, label, DELIVERY, work) }
}

fn closed(depth: usize, at_most: Duration) -> Closed {
    /// A bound that no server here reaches before the time limit.
    const REQUESTS_MAX: usize = 16_000_000;
    Closed { connections: 64, depth, requests: REQUESTS_MAX, at_most, warm_up: 64 * 16 }
}

/// Publish and poll, one request at a time and sixteen.
fn requests(at_most: Duration) -> Vec<Part> {
    let (one, sixteen) = (closed(1, at_most), closed(16, at_most));
    let pipelined = vec![goal(Against::Absolute, 1.2, Some(0.9))];
    let (publish, poll) = ("write, 64 connections", "immediate read, 64 connections");
    let (publish16, poll16) = ("write, 16 pipelined", "immediate read, 16 pipelined");
    let poll_goals = vec![
        goal(Against::Peer(Kind::Nginx), 1.0, None),
        goal(Against::Peer(Kind::Baseline), f64::INFINITY, Some(1.05)),
    ];
    let with = |part: Part, targets, goals| Part { targets, goals, ..part };
    let request = |name, label, work| part(name, label, REQUEST, work);
    vec![
        with(request("publish", publish, Work::Publish(one)), PUBSUB, peers(1.20, 1.10, 0.65)),
        with(request("poll", poll, Work::Poll(one, 1)), WITH_NGINX, poll_goals),
        with(request("publish16", publish16, Work::Publish(sixteen)), PUBSUB, pipelined.clone()),
        with(request("poll16", poll16, Work::Poll(sixteen, 1)), WITH_NGINX, pipelined),
    ]
}

/// Comparisons with Speak's own figures.
fn own(readers: usize, messages: usize, scale: usize, against: &'static str) -> Vec<Part> {
    let fanout = Work::Fanout(Fanout { readers, messages, form: Form::Jsonp });
    let cycles = 1_000 * scale;
    let mut jsonp = part("jsonp", "fan-out, a callback name each", DELIVERY, fanout);
    jsonp.goals = vec![goal(Against::LongPoll(against), 1.15, Some(1.05))];
    let connect = part("connect", "connect, write, close", CLIENT, Work::Connect { cycles });
    let mut churn =
        part("churn", "connect, introduce, wait, close", CLIENT, Work::Churn { cycles });
    churn.goals = vec![goal(Against::WritePerCall, 3.0, Some(2.0))];
    [jsonp, connect, churn].map(|part| Part { targets: SPEAK, ..part }).into()
}

/// Memory of idle readers, of event streams and of as many sockets.
fn idle(
    labels: [&'static str; 3],
    readers: usize,
    streams: usize,
    of: &'static [Kind],
) -> Vec<Part> {
    let (small, large) =
        (goal(Against::Absolute, 320.0, Some(200.0)), goal(Against::Absolute, 600.0, None));
    let kinds = [
        ("idle", "bytes a reader", Form::Plain, readers, small),
        ("idle-events", "bytes a stream", Form::Events, streams, large),
        ("idle-frames", "bytes a socket", Form::Frames, streams, large),
    ];
    let parts = labels.into_iter().zip(kinds).map(|(label, (name, unit, form, readers, bytes))| {
        let targets = if form.stays() { of } else { WITHOUT_BASELINE };
        let goals = vec![bytes, goal(Against::LeftOverBefore, 1.10, None)];
        Part { targets, goals, ..part(name, label, unit, Work::Idle { readers, form }) }
    });
    parts.collect()
}

/// Makes another build of Speak the only peer of each row. This build must cost at most 1.03 times
/// as much.
pub(crate) fn against(parts: &mut [Part]) {
    for part in parts {
        part.targets = BUILDS;
        // The rest of a smaller base is a larger fraction of it, so bytes per reader are compared
        // with the peer's.
        part.goals = vec![goal(Against::Peer(Kind::OtherBuild), 1.03, None)];
    }
}

/// Returns the rows of a quick or full run.
pub(crate) fn parts(length: Length) -> Vec<Part> {
    let is_full = length == Length::Full;
    let (fanout_messages, messages) = if is_full { (100, 100) } else { (30, 20) };
    let thousand = (1_000, messages);
    let events = ("events1000", "fan-out, 1,000 event streams");
    let frames = ("frames1000", "fan-out, 1,000 WebSockets");
    let mut parts = vec![
        fanout("fanout1000", "fan-out, 1,000 readers", 1_000, fanout_messages),
        stream(events, Form::Events, thousand, "fanout1000"),
        stream(frames, Form::Frames, thousand, "fanout1000"),
    ];
    if is_full {
        let events = ("events10000", "fan-out, 10,000 event streams");
        let frames = ("frames10000", "fan-out, 10,000 WebSockets");
        parts.extend([
            fanout("fanout10000", "fan-out, 10,000 readers", 10_000, 15),
            stream(events, Form::Events, (10_000, 15), "fanout10000"),
            stream(frames, Form::Frames, (10_000, 15), "fanout10000"),
            fanout("fanout18000", "fan-out, 18,000 readers", 18_000, 10),
            chat("chat500x10", "chat, 500 rooms × 10", 500, 10, 6.0),
            chat("chat1800x10", "chat, 1,800 rooms × 10", 1_800, 10, 6.0),
            chat("chat20x500", "chat, 20 rooms × 500", 20, 500, 6.0),
        ]);
        parts.extend(requests(Duration::from_secs(2)));
        parts.extend(own(1_000, 100, 4, "fanout1000"));
        let labels =
            ["memory, 18,000 readers", "memory, 10,000 event streams", "memory, 10,000 WebSockets"];
        parts.extend(idle(labels, 18_000, 10_000, WITHOUT_BASELINE));
    } else {
        parts.push(chat("chat500x10", "chat, 500 rooms × 10", 500, 10, 1.5));
        parts.extend(requests(Duration::from_millis(500)));
        parts.extend(own(1_000, 30, 1, "fanout1000"));
        let labels =
            ["memory, 4,000 readers", "memory, 4,000 event streams", "memory, 4,000 WebSockets"];
        parts.extend(idle(labels, 4_000, 4_000, SPEAK));
    }
    parts
}
