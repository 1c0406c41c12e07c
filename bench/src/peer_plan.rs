//! The comparison with what people would use instead: each server with its best transport.

use crate::plan::{Against, Goal, Part};
use crate::server::Kind;
use crate::wire::Form;
use crate::work::{Chat, Fanout, Work};

pub(crate) const KINDS: &[Kind] =
    &[Kind::Speak, Kind::Nchan, Kind::Ws, Kind::SocketIo, Kind::Pushpin];
/// Those with TLS of their own, or nginx's.
const WITH_TLS: &[Kind] = &[Kind::Speak, Kind::Nchan, Kind::Ws, Kind::SocketIo];
/// Those with long polls and event streams that the generator knows.
const OVER_HTTP: &[Kind] = &[Kind::Speak, Kind::Nchan];

/// Readers in one room, and messages to them. Larger crowds get fewer messages, which is enough for
/// the same number of deliveries.
const FANOUTS: [(&str, &str, usize, usize); 5] = [
    ("frames100", "100 WebSockets", 100, 200),
    ("frames1000", "1,000 WebSockets", 1_000, 50),
    ("frames3000", "3,000 WebSockets", 3_000, 16),
    ("frames10000", "10,000 WebSockets", 10_000, 6),
    ("frames18000", "18,000 WebSockets", 18_000, 4),
];

/// Numbers of readers in the short table, too.
const IN_TABLE: [usize; 2] = [1_000, 10_000];

/// Deliveries a second in 100 rooms of 10.
const LOADS: [(&str, &str, f64); 7] = [
    ("load1000", "1,000 deliveries a second", 1e3),
    ("load3000", "3,000 deliveries a second", 3e3),
    ("load10000", "10,000 deliveries a second", 1e4),
    ("load20000", "20,000 deliveries a second", 2e4),
    ("load40000", "40,000 deliveries a second", 4e4),
    ("load80000", "80,000 deliveries a second", 8e4),
    ("load160000", "160,000 deliveries a second", 16e4),
];
/// Time of each load.
const LOAD_SECONDS: f64 = 0.6;
const USERS: usize = 10;

const DELIVERY: &str = "µs a delivery";
const READER: &str = "µs a reader";
const BYTES: &str = "bytes a reader";

impl Part {
    fn over_tls(self) -> Self {
        Self { is_tls: true, ..self }
    }

    fn goal(mut self, against: Against, at_most: f64) -> Self {
        self.goals.push(Goal { against, at_most, stretch: None });
        self
    }
}

fn part(
    (name, label): (&'static str, &'static str),
    unit: &'static str,
    targets: &'static [Kind],
    work: Work,
) -> Part {
    Part { name, label, unit, work, targets, is_tls: false, goals: Vec::new() }
}

fn fanout(
    labels: (&'static str, &'static str),
    targets: &'static [Kind],
    form: Form,
    (readers, messages): (usize, usize),
) -> Part {
    part(labels, DELIVERY, targets, Work::Fanout(Fanout { readers, messages, form }))
}

fn chat(labels: (&'static str, &'static str), rooms: usize, per_second: f64, seconds: f64) -> Part {
    let per_second = per_second / USERS as f64;
    #[expect(clippy::cast_sign_loss, reason = "both factors are above 0")]
    let messages = (per_second * seconds).ceil() as usize;
    let work = Chat { rooms, users: USERS, per_second, messages, form: Form::Frames };
    part(labels, DELIVERY, KINDS, Work::Chat(work))
}

/// Returns the rows of a run. The curves come last: if time is short, they have fewer rounds.
pub(crate) fn parts() -> Vec<Part> {
    let form = Form::Frames;
    let (mut parts, mut curves) = (Vec::new(), Vec::new());
    for (name, label, readers, messages) in FANOUTS {
        let part = fanout((name, label), KINDS, form, (readers, messages));
        if IN_TABLE.contains(&readers) { parts.push(part) } else { curves.push(part) }
    }
    let http = [
        ("fanout1000", "1,000 long polls", Form::Plain, (1_000, 50)),
        ("fanout10000", "10,000 long polls", Form::Plain, (10_000, 6)),
        ("events1000", "1,000 event streams", Form::Events, (1_000, 50)),
        ("events10000", "10,000 event streams", Form::Events, (10_000, 6)),
    ];
    parts
        .extend(http.map(|(name, label, form, size)| fanout((name, label), OVER_HTTP, form, size)));
    parts.push(chat(("chat500x10", "chat, 500 rooms × 10"), 500, 15_000.0, 1.0));
    let come = Work::Come { cycles: 1_000, form };
    parts.push(part(("come", "connect, wait, leave"), "µs a client", KINDS, come));
    let idle = Work::Idle { readers: 10_000, form };
    parts.push(part(("idle", "memory, 10,000 WebSockets"), BYTES, KINDS, idle));
    parts.extend(over_tls());
    parts.extend(LOADS.map(|(name, label, rate)| chat((name, label), 100, rate, LOAD_SECONDS)));
    parts.extend(curves);
    parts
}

/// The rows over TLS, with the goals of Speak's own TLS.
fn over_tls() -> Vec<Part> {
    let form = Form::Frames;
    let idle = |form| Work::Idle { readers: 10_000, form };
    [
        fanout(("tls-fanout1000", "TLS: 1,000 long polls"), OVER_HTTP, Form::Plain, (1_000, 50))
            .goal(Against::LongPoll("fanout1000"), 1.25)
            .goal(Against::Peer(Kind::Nchan), 0.6),
        fanout(("tls-frames1000", "TLS: 1,000 WebSockets"), WITH_TLS, form, (1_000, 50)),
        part(
            ("tls-handshakes", "TLS: full handshake"),
            "µs a handshake",
            WITH_TLS,
            Work::Handshakes { cycles: 1_000 },
        )
        .goal(Against::Peer(Kind::Nchan), 0.75),
        part(
            ("tls-idle-poll", "TLS: memory, 10,000 long polls"),
            BYTES,
            OVER_HTTP,
            idle(Form::Plain),
        )
        .goal(Against::Absolute, 320.0)
        .goal(Against::LeftOverBefore, 1.10),
        part(("tls-idle", "TLS: memory, 10,000 WebSockets"), BYTES, WITH_TLS, idle(form)),
        part(
            ("tls-return", "TLS: 10,000 WebSockets come back at once"),
            READER,
            WITH_TLS,
            Work::Return { readers: 10_000, form },
        ),
    ]
    .map(Part::over_tls)
    .into()
}
