//! The server's loop, driven by a seed, and its clients.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use speak::hub::{Millis, Now};
use speak::service::{ACCEPTS_A_TURN, NextWake, READ_BYTES, RESPONSE_BYTES_PER_TURN, Service};
use support::http::request;
use support::ledger::Rules;
use support::random::Random;
use support::reader::{Reader, Since, Subscription, Terms};

use crate::model::Model;
use crate::network::{Faults, Net, Network, Segment, SimListener, TurnWork, turn};
use crate::peer::{Kind, Peer, ReadRate, Request};
use crate::plan::{Plan, Step};
use crate::record::Record;

/// Turns in a row in which the loop neither waited nor did anything.
const SPINS_MAX: u32 = 2;

/// Largest response of a simulation, by which a turn may exceed its budget.
const RESPONSE_BYTES_MAX: usize = 1_200_000;

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) net: Net,
    pub(crate) service: Service<SimListener>,
    pub(crate) random: Random,
    /// Each has the link with its index.
    pub(crate) peers: Vec<Peer>,
    /// Peers that are not over.
    pub(crate) present: Vec<usize>,
    pub(crate) model: Model,
    pub(crate) record: Record,
    pub(crate) now: Now,
    wall_ms: u64,
    wait: NextWake,
    spins: u32,
    pub(crate) observer: Option<usize>,
    /// Sessions that are said to have ended.
    pub(crate) ended_claims: Vec<u64>,
    pub(crate) references: u64,
    pub(crate) stops_at: Option<u64>,
    /// The network is without faults, and all clients take all.
    pub(crate) faults_stopped: bool,
    /// Next id of each channel, and when it last grew.
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
        let network = Network::new(Random::new(random.next()), Faults::default(), usize::MAX);
        let net: Net = Rc::new(RefCell::new(network));
        let listeners = vec![SimListener(Rc::clone(&net))];
        let mut service = Service::new(&plan.options, listeners, plan.numbers.max_clients, fill);
        service.set_step_weight(plan.weight);
        let rules = Rules {
            timeout_ms: plan.numbers.connection_timeout,
            grace_ms: plan.numbers.grace,
            history: None,
            has_own_texts: true,
            knows_ends: true,
            has_steady_clock: plan.steps.iter().all(|(step, _)| *step != Step::WallClock),
        };
        let mut model = Model::new(plan.channels, rules);
        if plan.numbers.is_cut {
            (0..plan.channels).for_each(|channel| model.ledger.channels[channel].is_large = true);
        }
        let growth = vec![(0, 0); plan.channels];
        Self {
            net,
            service,
            random,
            peers: Vec::new(),
            present: Vec::new(),
            model,
            record,
            now: Now { mono: Millis(0), unix_ms: 1_700_000_000_000 },
            wall_ms: 1_700_000_000_000,
            wait: NextWake::Never,
            spins: 0,
            observer: None,
            ended_claims: Vec::new(),
            references: 0,
            stops_at: None,
            faults_stopped: false,
            growth,
            plan,
        }
    }

    pub(crate) fn run(&mut self) {
        self.record.note(|| {
            format!("{:?} {:?} {}", self.plan.numbers, self.plan.faults, self.plan.weight)
        });
        if self.plan.has_observer {
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
        for (reason, times) in &self.model.ledger.goodbyes {
            self.record.tally.add(&format!("goodbye seen: {reason:?}"), *times);
        }
    }

    pub(crate) fn tally(&self, what: &str) {
        self.record.tally.count(what);
    }

    /// Adds a client that reads all channels.
    fn add_observer(&mut self) {
        let place = self.connect(None, 1 << 30);
        self.observer = Some(place);
        self.net.borrow_mut().links[place].is_perfect = true;
        let channels = || 0..self.plan.channels;
        let names = channels().map(|channel| format!("channel=c{channel}&from_id=0"));
        let target = format!("/read?{}", names.collect::<Vec<_>>().join("&"));
        let bytes = request("GET", &target, &[("Accept", "text/event-stream")], None);
        let subscribe = |channel| Subscription::new(channel, format!("c{channel}"), Since::All);
        let mut reader = Reader::new(channels().map(subscribe).collect());
        reader.observes = true;
        reader.terms = Terms { is_stream: true, may_be_ahead: false };
        let mut request = Request::new(Kind::Events);
        (request.end, request.channels) = (bytes.len() as u64, channels().collect());
        request.reader = Some(reader);
        let peer = &mut self.peers[place];
        (peer.is_observer, peer.rate, peer.answers_pings) = (true, ReadRate::Eager, true);
        peer.sent = request.end;
        peer.ends.push_back(request.end);
        peer.outstanding.push_back(request);
        self.transmit(place, bytes);
        for _ in 0..4 {
            self.turn(usize::MAX);
        }
        assert!(self.peers[place].following.is_some(), "the observer has its stream");
    }

    fn connect(&mut self, address: Option<IpAddr>, capacity: usize) -> usize {
        let place = self.net.borrow_mut().connect(address, capacity);
        let rate = self.random.weighted(&[
            (ReadRate::Eager, 6),
            (ReadRate::Slow, 3),
            (ReadRate::Never, 1),
        ]);
        let answers_pings = !self.random.once_in(4);
        self.peers.push(Peer::new(rate, answers_pings, self.plan.channels));
        self.present.push(place);
        place
    }

    /// Returns a client that may ask something.
    fn asker(&mut self) -> Option<usize> {
        let present = self.present.len();
        let chosen = (present > 0).then(|| self.present[self.random.index(present)])?;
        (self.peers[chosen].may_ask() && !self.peers[chosen].is_observer).then_some(chosen)
    }

    /// Returns a client that is not the observer.
    fn any_client(&mut self) -> Option<usize> {
        let present = self.present.len();
        let chosen = (present > 0).then(|| self.present[self.random.index(present)])?;
        (!self.peers[chosen].is_observer && !self.peers[chosen].has_closed).then_some(chosen)
    }

    pub(crate) fn step(&mut self, step: Step) {
        self.record.step(|| format!("{} {step:?}", self.now.mono.0));
        match step {
            Step::Connect => self.connect_any(),
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
                    self.send(peer, bytes);
                }
            }
            Step::Pipeline => self.pipeline(),
            Step::Truncated => {
                if let Some(peer) = self.asker() {
                    let bytes = self.truncated(peer);
                    self.send(peer, bytes);
                }
            }
            Step::Continue => {
                if let Some(peer) = self.any_client() {
                    self.send_rest(peer);
                }
            }
            Step::Drain => self.drain_any(),
            Step::HalfClose => self.end(Segment::Fin, false),
            Step::Close => self.end(Segment::Fin, true),
            Step::Reset => self.end(Segment::Reset, true),
            Step::Fuse => {
                if let Some(peer) = self.any_client() {
                    let calls = 1 + self.random.below(4) as u32;
                    self.net.borrow_mut().links[peer].fuse = Some(calls);
                }
            }
            Step::Spurious => {
                if let Some(peer) = self.any_client() {
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

    fn connect_any(&mut self) {
        if self.present.len() < self.plan.clients_max {
            let number = self.random.below(self.plan.addresses.into()) as u8;
            let address = Ipv4Addr::new(10, 0, 0, number);
            let capacity = self.random.pick(&self.plan.capacities.clone());
            let place = self.connect(Some(address.into()), capacity);
            self.record.note(|| format!("    {place} from {address}, {capacity} bytes"));
        }
    }

    fn pipeline(&mut self) {
        let Some(peer) = self.asker() else { return };
        let steps = [Step::Write, Step::ReadNow, Step::Poll, Step::Lookup, Step::Introduce];
        let mut all = Vec::new();
        for _ in 0..=self.random.below(6) {
            let step = self.random.pick(&steps);
            if self.peers[peer].may_ask() {
                all.extend(self.ask(peer, step));
            }
        }
        self.send(peer, all);
    }

    fn drain_any(&mut self) {
        if let Some(peer) = self.any_client()
            && self.peers[peer].rate != ReadRate::Never
        {
            let mut net = self.net.borrow_mut();
            let bytes = 1 + self.random.index(1 + net.links[peer].queued);
            net.drain(peer, bytes);
        }
    }

    fn send(&mut self, peer: usize, bytes: Vec<u8>) {
        self.record.note(|| {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).into_owned();
            format!("    {peer} sends {text:?}")
        });
        self.transmit(peer, bytes);
    }

    fn end(&mut self, piece: Segment, both_ways: bool) {
        let Some(peer) = self.any_client() else { return };
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
        // A turn is short here because it does little, not because it takes little time.
        if self.plan.weight > 1 && self.wait == NextWake::Now {
            self.settle();
        }
        self.net.borrow_mut().advance(ms);
        self.now.mono.0 += ms;
        self.wall_ms += ms;
        self.now.unix_ms = self.wall_ms;
    }

    /// Runs one turn of the loop, with so many events at most.
    pub(crate) fn turn(&mut self, events_max: usize) {
        let shuffles = self.plan.shuffles;
        let (events, has_arrivals) = {
            let mut net = self.net.borrow_mut();
            (net.calls, net.accepts) = (0, 0);
            net.poll_events(events_max, shuffles)
        };
        self.record.note(|| format!("    turn at {:?}: {events:?} {has_arrivals}", self.now));
        let has_events = !events.is_empty() || has_arrivals;
        turn(&self.net, &mut self.service, self.now, (events, has_arrivals));
        let is_spin = self.wait == NextWake::Now && !has_events && self.net.borrow().calls == 0;
        self.spins = if is_spin { self.spins + 1 } else { 0 };
        // A short turn may do no more than look at one of the calls that have arrived.
        let most = if self.plan.weight > 1 { 100 * SPINS_MAX } else { SPINS_MAX };
        assert!(self.spins <= most, "the loop turns for nothing");
        self.after_turn();
        self.wait = self.service.next_wake();
        if let NextWake::At(at) = self.wait {
            // A short turn may come to a client when all the time was over; the next begins with
            // that client.
            let is_done = at > self.now.mono || self.plan.weight > 1;
            assert!(is_done, "what was due at {at:?} is not done at {:?}", self.now.mono);
        }
        // If a turn was too short for a client, the next comes after a millisecond.
        let is_nap = self.wait == NextWake::At(self.now.mono.after(1));
        if self.wait != NextWake::Now && !is_nap && !self.net.borrow().has_events() {
            self.sleep();
        }
    }

    /// Takes all that a turn sent, and judges clients that it closed.
    fn after_turn(&mut self) {
        let mut touched = self.net.borrow_mut().take_touched();
        touched.sort_unstable();
        {
            let net = self.net.borrow();
            assert!(net.accepts <= ACCEPTS_A_TURN, "{} accepted in a turn", net.accepts);
            // The next client without a descriptor would get no response.
            assert!(!net.owes_reserve, "the reserve descriptor was given up for good");
        }
        for place in &touched {
            self.note_work(*place);
        }
        for place in &touched {
            if self.net.borrow().links[*place].is_dropped {
                self.note_closing(*place);
            }
        }
        if let Some(observer) = self.observer {
            self.receive(observer);
        }
        for place in &touched {
            self.receive(*place);
            if self.faults_stopped || self.peers[*place].rate == ReadRate::Eager {
                self.net.borrow_mut().drain(*place, usize::MAX);
            }
        }
        for place in &touched {
            self.note_end_of_events(*place);
        }
        for place in touched {
            if self.net.borrow().links[place].is_dropped {
                self.judge_drop(place);
            }
        }
        let gauges = self.service.gauges();
        let served = gauges.clients - gauges.rejected;
        assert!(served <= self.plan.numbers.max_clients, "{served} clients are served");
        for (channel, growth) in self.growth.iter_mut().enumerate() {
            let next_id = self.model.ledger.next_id(channel);
            if next_id > growth.0 {
                *growth = (next_id, self.now.mono.0);
            }
        }
    }

    /// Notes the server's work on one client in this turn, which has limits.
    fn note_work(&mut self, place: usize) {
        let now = self.now.mono.0;
        let mut net = self.net.borrow_mut();
        let link = &mut net.links[place];
        let TurnWork { events, bytes_read, bytes_written } = std::mem::take(&mut link.turn);
        let events = 1 + events as usize;
        assert!(bytes_read <= READ_BYTES * events, "{bytes_read} read in a turn");
        let most = (RESPONSE_BYTES_PER_TURN + RESPONSE_BYTES_MAX) * events;
        assert!(bytes_written <= most, "{bytes_written} written in a turn");
        let peer = &mut self.peers[place];
        if link.is_accepted {
            peer.accepted_at.get_or_insert(now);
        }
        if link.consumed != peer.consumed {
            (peer.consumed, peer.heard_at) = (link.consumed, now);
        }
        if peer.is_dismissed {
            // Requests after the last word are thrown away.
            let undone = std::mem::take(&mut peer.outstanding);
            self.model.refuse_all(undone.into_iter().map(|it| it.text));
        }
        for request in peer.outstanding.iter_mut().filter(|it| !it.has_arrived()) {
            if request.end > link.arrived {
                continue;
            }
            request.arrived_at = Some(now);
            if let Some(text) = request.text {
                self.model.ledger.permit(text);
            }
            if let (Kind::Fatal(0), Some(following)) = (request.kind, &peer.following)
                && let Some(session) = following.carries
            {
                // Its socket is closed for that, even if it gets the Close later.
                self.model.session(session).closings.push(now);
            }
            if let Some(session) = request.carries {
                self.model.known(session).busy_at = now;
            }
        }
        let is_overdue = |since: &u64| now >= since + self.plan.numbers.request_timeout;
        // It may get the 408 when the rest was thrown away already.
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

    /// Lets time pass, in which the loop does all that is due. Returns how often it woke.
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

    /// The faults stop, and all clients take all: each gets its responses in time.
    fn stop_faults(&mut self) {
        self.record.step(|| "faults stop".to_owned());
        self.faults_stopped = true;
        {
            let mut net = self.net.borrow_mut();
            net.faults = Faults::default();
            net.descriptors_max = usize::MAX;
            net.deliver_due();
        }
        for place in self.present.clone() {
            self.send_rest(place);
            self.peers[place].answers_pings = true;
            let mut net = self.net.borrow_mut();
            net.links[place].fuse = None;
            net.drain(place, usize::MAX);
        }
        // Listeners rest for a moment after descriptors ran out.
        self.run_on(200);
        self.record.tally.count_if(self.net.borrow().refusals > 0, "no descriptors");
        assert!(!self.net.borrow().has_backlog(), "each client was accepted or rejected");
        let numbers = self.plan.numbers;
        let longest = numbers.poll_timeout
            + numbers.request_timeout
            + numbers.connection_timeout
            + numbers.grace;
        // Long polls one after the other have each their own time.
        let row = self.peers.iter().map(|peer| peer.outstanding.len() as u64).max().unwrap_or(0);
        self.run_on((longest + 100) * (1 + row));
        for place in self.present.clone() {
            let peer = &self.peers[place];
            let waits = peer.outstanding.iter().find(|request| request.arrived_at.is_some());
            assert!(waits.is_none(), "client {place} waits for ever for {waits:?}");
        }
    }

    /// All clients close, and nothing is left of them.
    fn leave(&mut self) {
        self.record.step(|| "all leave".to_owned());
        for place in self.present.clone() {
            self.close(place, Segment::Fin, 0, true);
        }
        self.run_on(20_000);
        let gauges = self.service.gauges();
        assert_eq!((gauges.clients, gauges.streams, gauges.deferred), (0, 0, 0), "{gauges:?}");
        assert_eq!((gauges.rejected, gauges.addresses, gauges.timers), (0, 0, 0), "{gauges:?}");
        assert_eq!((gauges.memory, gauges.encoded_bytes), (0, 0), "{gauges:?}");
        let descriptors = self.net.borrow().descriptors;
        assert!(descriptors <= 1, "{descriptors} descriptors are open, and one is the reserve");
        let turns = self.run_on(2 * 3_600_000);
        assert_eq!(self.service.gauges(), speak::service::Gauges::default());
        assert_eq!(self.wait, NextWake::Never);
        // Each channel, session and message may have had some timers.
        let texts: u64 = self.peers.iter().map(|peer| u64::from(peer.texts)).sum();
        let sessions = self.model.ledger.sessions.len() + self.plan.channels;
        let most = 100 + 10 * (sessions as u64 + texts);
        assert!(turns <= most, "{turns} turns without a client");
    }

    /// The server stops: pending reads are answered, and it ends in time.
    fn stop(&mut self) {
        self.record.step(|| "stop".to_owned());
        let goodbyes = self.model.goodbyes();
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
        let has_none = self.model.goodbyes() == goodbyes;
        assert!(has_none || self.now.mono.0 > end - 4_000, "a stop says no goodbyes");
    }
}
