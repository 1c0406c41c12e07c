//! The server's loop, turned by a seed, and the crowd around it.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use speak::hub::{Millis, Now};
use speak::service::{ACCEPTS_A_TURN, NextWake, READ_BYTES, RESPONSE_BYTES_PER_TURN, Service};

use crate::ledger::{Channel, Ledger};
use crate::network::{Faults, Net, Network, Segment, SimListener, TurnWork, turn};
use crate::peer::{Kind, Peer, ReadRate, Request, Since};
use crate::plan::{Plan, Step};
use crate::random::Random;
use crate::record::Record;

/// Turns in a row in which the loop did not wait, and nothing came of it.
const SPINS_MAX: u32 = 2;

/// The largest answer there is in a simulation, beside which a turn's budget may be exceeded.
const ANSWER_BYTES_MAX: usize = 1_200_000;

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) net: Net,
    pub(crate) service: Service<SimListener>,
    pub(crate) random: Random,
    /// Each has the link of its own place.
    pub(crate) peers: Vec<Peer>,
    /// Those that are not over.
    pub(crate) present: Vec<usize>,
    pub(crate) ledger: Ledger,
    pub(crate) record: Record,
    pub(crate) now: Now,
    /// What the wall clock is off.
    wall_ms: u64,
    wait: NextWake,
    spins: u32,
    pub(crate) observer: Option<usize>,
    pub(crate) ended_claims: Vec<usize>,
    pub(crate) references: u64,
    pub(crate) stops_at: Option<u64>,
    /// The network is without faults, and everybody takes what is sent.
    pub(crate) is_healed: bool,
    /// When each channel last got something new.
    pub(crate) growth: Vec<(u64, u64)>,
}

thread_local! {
    static SECRETS: RefCell<Random> = RefCell::new(Random::new(0));
}

fn fill(bytes: &mut [u8]) {
    SECRETS.with_borrow_mut(|random| bytes.iter_mut().for_each(|byte| *byte = random.next() as u8));
}

impl World {
    pub(crate) fn new(mut random: Random, record: Record) -> Self {
        let plan = Plan::draw(&mut random);
        SECRETS.set(Random::new(random.next()));
        let wires = Network::new(Random::new(random.next()), Faults::default(), usize::MAX);
        let net: Net = Rc::new(RefCell::new(wires));
        let listeners = vec![SimListener(Rc::clone(&net))];
        let mut service = Service::new(&plan.options, listeners, plan.numbers.max_clients, fill);
        service.set_step_weight(plan.weight);
        let ledger = Ledger {
            channels: (0..plan.channels).map(|_| Channel::default()).collect(),
            timeout_ms: plan.numbers.connection_timeout,
            grace_ms: plan.numbers.grace,
            has_steady_clock: plan.steps.iter().all(|(step, _)| *step != Step::WallClock),
            ..Ledger::default()
        };
        let growth = vec![(0, 0); plan.channels];
        Self {
            net,
            service,
            random,
            peers: Vec::new(),
            present: Vec::new(),
            ledger,
            record,
            now: Now { mono: Millis(0), unix_ms: 1_700_000_000_000 },
            wall_ms: 1_700_000_000_000,
            wait: NextWake::Never,
            spins: 0,
            observer: None,
            ended_claims: Vec::new(),
            references: 0,
            stops_at: None,
            is_healed: false,
            growth,
            plan,
        }
    }

    pub(crate) fn run(&mut self) {
        self.record.note(|| {
            format!("{:?} {:?} {}", self.plan.numbers, self.plan.faults, self.plan.weight)
        });
        if self.plan.has_witness {
            self.add_observer();
        }
        {
            let mut net = self.net.borrow_mut();
            net.faults = self.plan.faults;
            net.descriptors_max = self.plan.descriptors;
        }
        for _ in 0..self.plan.length {
            let step = self.random.weighted(&self.plan.steps);
            self.step(step);
        }
        self.stop_faults();
        if self.plan.stops {
            self.stop();
        } else {
            self.leave();
        }
    }

    pub(crate) fn tally(&self, what: &str) {
        self.record.tally.count(what);
    }

    /// One who reads everything.
    fn add_observer(&mut self) {
        let place = self.connect(None, 1 << 30);
        self.observer = Some(place);
        self.net.borrow_mut().links[place].is_perfect = true;
        let peer = &mut self.peers[place];
        (peer.is_witness, peer.appetite, peer.answers_pings) = (true, ReadRate::Eager, true);
        let names: Vec<_> = (0..self.plan.channels)
            .map(|channel| format!("channel=c{channel}&from_id=0"))
            .collect();
        let query = names.join("&");
        let bytes =
            format!("GET /read?{query} HTTP/1.1\r\nHost: sim\r\nAccept: text/event-stream\r\n\r\n");
        let bytes = bytes.into_bytes();
        peer.sent = bytes.len() as u64;
        peer.ends.push_back(peer.sent);
        peer.outstanding.push_back(Request {
            kind: Kind::Events,
            end: bytes.len() as u64,
            text: None,
            channels: (0..self.plan.channels).collect(),
            since: vec![Since::All; self.plan.channels],
            carries: None,
            closes: false,
            is_script: false,
            is_frame: false,
            arrived_at: None,
            waits_since: None,
            seen: Vec::new(),
        });
        self.transmit(place, bytes);
        for _ in 0..4 {
            self.turn(usize::MAX);
        }
        assert!(self.peers[place].following.is_some(), "the witness is there");
    }

    fn connect(&mut self, address: Option<IpAddr>, capacity: usize) -> usize {
        let place = self.net.borrow_mut().connect(address, capacity);
        let appetite = self.random.weighted(&[
            (ReadRate::Eager, 6),
            (ReadRate::Slow, 3),
            (ReadRate::Never, 1),
        ]);
        let answers_pings = !self.random.once_in(4);
        self.peers.push(Peer::new(appetite, answers_pings, self.plan.channels));
        self.present.push(place);
        place
    }

    /// Some client that may ask something.
    fn asker(&mut self) -> Option<usize> {
        let present = self.present.len();
        let chosen = (present > 0).then(|| self.present[self.random.index(present)])?;
        (self.peers[chosen].may_ask() && !self.peers[chosen].is_witness).then_some(chosen)
    }

    /// Some client, but for the witness.
    fn random_session(&mut self) -> Option<usize> {
        let present = self.present.len();
        let chosen = (present > 0).then(|| self.present[self.random.index(present)])?;
        (!self.peers[chosen].is_witness && !self.peers[chosen].has_closed).then_some(chosen)
    }

    pub(crate) fn step(&mut self, step: Step) {
        self.record.step(|| format!("{} {step:?}", self.now.mono.0));
        match step {
            Step::Connect => {
                if self.present.len() < self.plan.clients_max {
                    let address = Ipv4Addr::new(
                        10,
                        0,
                        0,
                        self.random.below(self.plan.addresses.into()) as u8,
                    );
                    let capacity = self.random.pick(&self.plan.capacities.clone());
                    let place = self.connect(Some(address.into()), capacity);
                    self.record.note(|| format!("    {place} from {address}, {capacity} bytes"));
                }
            }
            Step::Write
            | Step::ReadNow
            | Step::Poll
            | Step::Events
            | Step::Frames
            | Step::Introduce
            | Step::Goodbye
            | Step::Lookup
            | Step::Nonsense => {
                if let Some(peer) = self.asker() {
                    let bytes = self.ask(peer, step);
                    self.note_bytes(peer, &bytes);
                    self.transmit(peer, bytes);
                }
            }
            Step::Pipeline => {
                let Some(peer) = self.asker() else { return };
                let mut all = Vec::new();
                for _ in 0..=self.random.below(6) {
                    let step = self.random.pick(&[
                        Step::Write,
                        Step::ReadNow,
                        Step::Poll,
                        Step::Lookup,
                        Step::Introduce,
                    ]);
                    if self.peers[peer].may_ask() {
                        let bytes = self.ask(peer, step);
                        all.extend(bytes);
                    }
                }
                self.note_bytes(peer, &all);
                self.transmit(peer, all);
            }
            Step::Stump => {
                if let Some(peer) = self.asker() {
                    let bytes = self.truncated(peer);
                    self.note_bytes(peer, &bytes);
                    self.transmit(peer, bytes);
                }
            }
            Step::Continue => {
                if let Some(peer) = self.random_session() {
                    self.go_on_sending(peer);
                }
            }
            Step::Drain => {
                if let Some(peer) = self
                    .random_session()
                    .filter(|peer| self.peers[*peer].appetite != ReadRate::Never)
                {
                    let mut net = self.net.borrow_mut();
                    let bytes = 1 + self.random.index(1 + net.links[peer].queued);
                    net.drain(peer, bytes);
                }
            }
            Step::HalfClose => self.end(|_, _| Segment::Fin, false),
            Step::Close => self.end(|_, _| Segment::Fin, true),
            Step::Reset => self.end(|_, _| Segment::Reset, true),
            Step::Fuse => {
                if let Some(peer) = self.random_session() {
                    let calls = 1 + self.random.below(4) as u32;
                    self.net.borrow_mut().links[peer].fuse = Some(calls);
                }
            }
            Step::Spurious => {
                if let Some(peer) = self.random_session() {
                    self.net.borrow_mut().make_ready(peer);
                }
            }
            Step::Starve => {
                let max = self.random.pick(&[1, 3, 10, 10_000]);
                self.net.borrow_mut().descriptors_max = max.min(self.plan.descriptors);
            }
            Step::WallClock => {
                let by = self.random.pick(&[1, 1_000, 86_400_000]);
                self.wall_ms = if self.random.once_in(2) {
                    self.wall_ms + by
                } else {
                    self.wall_ms.saturating_sub(by)
                };
            }
            Step::Jump => {
                let ms = self.random.pick(&[500, 5_000, 60_000]);
                self.pass(ms);
            }
            Step::Tick => {
                let ms = self.random.pick(&[1, 5, 20, 100, 500]);
                self.pass(ms);
            }
            Step::Turn => {
                let max = if self.random.once_in(3) { self.plan.events_max } else { usize::MAX };
                self.turn(max);
            }
        }
    }

    fn note_bytes(&self, peer: usize, bytes: &[u8]) {
        self.record.note(|| {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).into_owned();
            format!("    {peer} sends {text:?}")
        });
    }

    fn end(&mut self, piece: impl Fn(&mut Self, usize) -> Segment, both_ways: bool) {
        let Some(peer) = self.random_session() else { return };
        let piece = piece(self, peer);
        let delay_ms = self.random.below(self.plan.delay_ms_max + 1);
        self.record.note(|| format!("    {peer} {piece:?}"));
        self.close(peer, piece, delay_ms, both_ways);
    }

    fn close(&mut self, peer: usize, piece: Segment, delay_ms: u64, both_ways: bool) {
        self.peers[peer].has_closed = true;
        let mut net = self.net.borrow_mut();
        net.links[peer].is_peer_gone |= both_ways;
        net.send(peer, piece, delay_ms);
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        // A turn is short here because it does little, not because it takes long.
        if self.plan.weight > 1 && self.wait == NextWake::Now {
            self.settle();
        }
        self.net.borrow_mut().advance(ms);
        self.now.mono.0 += ms;
        self.wall_ms += ms;
        self.now.unix_ms = self.wall_ms;
    }

    /// One turn of the loop, in which the poll tells so many events at most.
    pub(crate) fn turn(&mut self, events_max: usize) {
        let shuffles = self.plan.shuffles;
        let (events, has_arrivals) = {
            let mut net = self.net.borrow_mut();
            (net.calls, net.accepts) = (0, 0);
            net.poll_events(events_max, shuffles)
        };
        self.record.note(|| format!("    turn at {:?}: {events:?} {has_arrivals}", self.now));
        let is_told = !events.is_empty() || has_arrivals;
        turn(&self.net, &mut self.service, self.now, (events, has_arrivals));
        let is_spin = self.wait == NextWake::Now && !is_told && self.net.borrow().calls == 0;
        self.spins = if is_spin { self.spins + 1 } else { 0 };
        // A short turn may do no more than to look at one of the calls that lie here.
        let most = if self.plan.weight > 1 { 100 * SPINS_MAX } else { SPINS_MAX };
        assert!(self.spins <= most, "the loop turns for nothing");
        self.after_turn();
        self.wait = self.service.next_wake();
        if let NextWake::At(at) = self.wait {
            // A short turn may come to somebody when all the time was over already; the next begins with that.
            let is_done = at > self.now.mono || self.plan.weight > 1;
            assert!(is_done, "what was due at {at:?} is not done at {:?}", self.now.mono);
        }
        // Where a turn was too short for somebody, the next comes after a millisecond.
        let is_nap = self.wait == NextWake::At(self.now.mono.after(1));
        if self.wait != NextWake::Now && !is_nap && !self.net.borrow().has_events() {
            self.sleep();
        }
    }

    /// What came of a turn: who was told what, and who was closed.
    fn after_turn(&mut self) {
        let now = self.now.mono.0;
        let mut touched = self.net.borrow_mut().take_touched();
        touched.sort_unstable();
        {
            let mut net = self.net.borrow_mut();
            assert!(net.accepts <= ACCEPTS_A_TURN, "{} accepted in a turn", net.accepts);
            // Who comes next without a descriptor would not be told.
            assert!(!net.owes_spare, "the spare descriptor was given up for good");
            for place in &touched {
                let link = &mut net.links[*place];
                let TurnWork { events, bytes_read, bytes_written } = std::mem::take(&mut link.turn);
                let events = 1 + events as usize;
                assert!(bytes_read <= READ_BYTES * events, "{bytes_read} read in a turn");
                let answers = (RESPONSE_BYTES_PER_TURN + ANSWER_BYTES_MAX) * events;
                assert!(bytes_written <= answers, "{bytes_written} written in a turn");
                let peer = &mut self.peers[*place];
                if link.is_accepted {
                    peer.accepted_at.get_or_insert(now);
                }
                if link.consumed != peer.consumed {
                    (peer.consumed, peer.heard_at) = (link.consumed, now);
                }
                if peer.is_told_to_go {
                    // Whatever it asks after that is thrown away.
                    let unheard = std::mem::take(&mut peer.outstanding);
                    unheard
                        .iter()
                        .filter_map(|it| it.text)
                        .for_each(|text| self.ledger.refuse(text));
                }
                for request in peer.outstanding.iter_mut().filter(|it| it.arrived_at.is_none()) {
                    if request.end <= link.arrived {
                        request.arrived_at = Some(now);
                        request
                            .text
                            .into_iter()
                            .for_each(|text| self.ledger.sayings[text].has_arrived = true);
                        if let (Kind::Fatal(0), Some(following)) = (request.kind, &peer.following) {
                            // Its socket is closed for that, even if it hears so later.
                            following
                                .carries
                                .into_iter()
                                .for_each(|it| self.ledger.connections[it].closings.push(now));
                        }
                        request
                            .carries
                            .into_iter()
                            .for_each(|it| self.ledger.connections[it].busy_at = now);
                    }
                }
                let is_overdue = |since: &u64| now >= since + self.plan.numbers.request_timeout;
                // It may hear so when the rest of it was thrown away already.
                peer.overdue_since = peer.partial_since.filter(is_overdue).or(peer.overdue_since);
                while peer.ends.front().is_some_and(|end| *end <= link.consumed) {
                    peer.whole = peer.ends.pop_front().expect("just looked");
                    peer.partial_since = None;
                }
                if peer.whole >= link.consumed {
                    peer.partial_since = None;
                } else {
                    peer.partial_since.get_or_insert(now);
                }
            }
        }
        for place in &touched {
            if self.net.borrow().links[*place].is_dropped {
                self.note_closing(*place);
            }
        }
        if let Some(witness) = self.observer {
            self.listen(witness);
        }
        for place in &touched {
            self.listen(*place);
            if self.is_healed || self.peers[*place].appetite == ReadRate::Eager {
                self.net.borrow_mut().drain(*place, usize::MAX);
            }
        }
        for place in &touched {
            self.note_farewell(*place);
        }
        for place in touched {
            if self.net.borrow().links[place].is_dropped {
                self.judge_drop(place);
            }
        }
        let census = self.service.gauges();
        let served = census.clients - census.rejected;
        assert!(served <= self.plan.numbers.max_clients, "{served} clients are served");
        for (channel, growth) in self.ledger.channels.iter().zip(&mut self.growth) {
            if channel.next_id > growth.0 {
                *growth = (channel.next_id, now);
            }
        }
    }

    /// Turns until there is nothing to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..20_000 {
            self.turn(usize::MAX);
            if self.wait != NextWake::Now && !self.net.borrow().has_events() {
                return;
            }
        }
        panic!("the loop never rests");
    }

    /// Lets time pass, in which the loop does what is due. Returns how often it woke.
    pub(crate) fn run_on(&mut self, ms: u64) -> u64 {
        let end = self.now.mono.0 + ms;
        let mut turns = 0;
        loop {
            self.settle();
            turns += 1;
            let next = match self.wait {
                NextWake::At(Millis(at)) => at.min(end),
                NextWake::Now | NextWake::Never => end,
            };
            let landing = self.net.borrow().next_landing().unwrap_or(end).max(self.now.mono.0 + 1);
            let next = next.min(landing).min(end);
            if self.now.mono.0 >= end {
                return turns;
            }
            self.pass(next - self.now.mono.0);
        }
    }

    /// The network heals, and everybody takes what is sent: whatever anybody waits for comes in its time.
    fn stop_faults(&mut self) {
        self.record.step(|| "healed".to_owned());
        self.is_healed = true;
        {
            let mut net = self.net.borrow_mut();
            net.faults = Faults::default();
            net.descriptors_max = usize::MAX;
            net.deliver_due();
        }
        for place in self.present.clone() {
            self.go_on_sending(place);
            self.peers[place].answers_pings = true;
            let mut net = self.net.borrow_mut();
            net.links[place].fuse = None;
            net.drain(place, usize::MAX);
        }
        // The doors are left alone for a moment after descriptors ran out.
        self.run_on(200);
        self.record.tally.count_if(self.net.borrow().refusals > 0, "no descriptors");
        assert!(!self.net.borrow().has_backlog(), "who connected was let in, or sent away");
        let numbers = self.plan.numbers;
        let longest = numbers.poll_timeout
            + numbers.request_timeout
            + numbers.connection_timeout
            + numbers.grace;
        // Reads that wait one behind the other have each their own time.
        let row = self.peers.iter().map(|peer| peer.outstanding.len() as u64).max().unwrap_or(0);
        self.run_on((longest + 100) * (1 + row));
        for place in self.present.clone() {
            let peer = &self.peers[place];
            let waits = peer.outstanding.iter().find(|request| request.arrived_at.is_some());
            assert!(waits.is_none(), "client {place} waits for ever for {waits:?}");
        }
    }

    /// Everybody goes, and nothing is left of anybody.
    fn leave(&mut self) {
        self.record.step(|| "all leave".to_owned());
        for place in self.present.clone() {
            self.close(place, Segment::Fin, 0, true);
        }
        self.run_on(20_000);
        let census = self.service.gauges();
        assert_eq!((census.clients, census.streams, census.deferred), (0, 0, 0), "{census:?}");
        assert_eq!((census.rejected, census.addresses, census.timers), (0, 0, 0), "{census:?}");
        assert_eq!((census.memory, census.encoded_bytes), (0, 0), "{census:?}");
        let held = self.net.borrow().descriptors;
        assert!(held <= 1, "{held} descriptors are held, and one is to be spared");
        let turns = self.run_on(2 * 3_600_000);
        let census = self.service.gauges();
        assert_eq!(census, speak::service::Gauges::default());
        assert_eq!(self.wait, NextWake::Never);
        // Each channel and connection may have had some alarms.
        let bound = 10
            * (self.ledger.channels.len()
                + self.ledger.connections.len()
                + self.ledger.sayings.len()) as u64;
        assert!(turns <= 100 + bound, "{turns} turns in which nobody was there");
    }

    /// The server stops: whoever waits is answered, and it ends in time.
    fn stop(&mut self) {
        self.record.step(|| "stop".to_owned());
        let goodbyes = self.ledger.goodbyes;
        self.stops_at = Some(self.now.mono.0);
        self.service.begin_turn(self.now);
        self.service.end_turn(|_, _| Ok(()));
        self.after_turn();
        self.service.shut_down();
        self.after_turn();
        let end = self.now.mono.0 + speak::service::SHUTDOWN_TIMEOUT_MS;
        while !self.service.is_stopped() {
            assert!(self.now.mono.0 <= end, "it stops in time");
            self.turn(usize::MAX);
            self.pass(10);
        }
        self.tally("stopped");
        assert!(
            self.ledger.goodbyes == goodbyes || self.now.mono.0 > end - 4_000,
            "a stop says no goodbyes"
        );
    }
}
