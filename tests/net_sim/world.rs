//! The server's loop, driven by a seed, and its clients.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::ClientConfig;
use speak::hub::{Millis, Now};
use speak::service::{NextWake, Service};
use support::http::request;
use support::ledger::Rules;
use support::random::Random;
use support::reader::{Reader, Since, Subscription, Terms};

use crate::disk::SharedDisk;
use crate::model::Model;
use crate::network::{Faults, Segment};
use crate::peer::{Kind, Peer, ReadRate, Request};
use crate::plan::{Plan, Step};
use crate::process::start_new;
use crate::record::Record;
use crate::socket::{Net, SimListener, start};
use crate::tls::client_config;

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) net: Net,
    pub(crate) service: Service<SimListener>,
    pub(crate) disk: Option<SharedDisk>,
    pub(crate) random: Random,
    pub(crate) tls_config: Arc<ClientConfig>,
    /// Each has the link with its index.
    pub(crate) peers: Vec<Peer>,
    /// Peers that are not over.
    pub(crate) present: Vec<usize>,
    pub(crate) model: Model,
    pub(crate) record: Record,
    pub(crate) now: Now,
    pub(crate) wall_ms: u64,
    pub(crate) wait: NextWake,
    pub(crate) spins: u32,
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

pub(crate) fn fill(bytes: &mut [u8]) {
    SECRETS.with_borrow_mut(|random| bytes.iter_mut().for_each(|byte| *byte = random.next() as u8));
}

impl World {
    pub(crate) fn new(mut random: Random, record: Record) -> Self {
        let plan = Plan::draw(&mut random);
        SECRETS.set(Random::new(random.next()));
        let net_random = Random::new(random.next());
        let (net, mut service) =
            start(&plan.options, plan.numbers.max_clients, plan.weight, net_random, fill);
        let now = Now { mono: Millis(0), unix_ms: 1_700_000_000_000 };
        let mut disk = None;
        if let Some((its, with_journal)) = start_new(&plan, &net, &mut random, now, fill) {
            (disk, service) = (Some(its), with_journal);
            net.borrow_mut().owes_reserve = false;
        }
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
        let tls_config = client_config(&mut random.clone());
        Self {
            net,
            service,
            disk,
            random,
            tls_config,
            peers: Vec::new(),
            present: Vec::new(),
            model,
            record,
            now,
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
            self.restart_after_failure();
        }
        if self.loses_records() {
            self.lose_records();
        } else {
            self.stop_faults();
            if self.plan.stops {
                self.stop();
            } else {
                self.leave();
            }
        }
        if let Some(disk) = &self.disk {
            let events = std::mem::take(&mut disk.borrow_mut().machine.tally);
            for what in events {
                self.record.tally.count(what);
            }
        }
        let moved = self.net.borrow().moved;
        if moved > 0 {
            self.record.tally.add("TLS state moved", moved);
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
        let all = |channel| Subscription::new(channel, format!("c{channel}"), Since::All);
        self.observe((0..self.plan.channels).map(all).collect());
    }

    /// The observer has lost its stream, and continues it.
    pub(crate) fn observe_again(&mut self, old: &Reader) {
        let again = |its: &Subscription| {
            let since = its.id().map_or(Since::All, Since::Id);
            Subscription::new(its.channel, format!("c{}", its.channel), since)
        };
        let healthy = (Faults::default(), usize::MAX);
        let faults = self.net.borrow_mut().set_faults(healthy);
        self.observe(old.subscriptions.iter().map(again).collect());
        self.net.borrow_mut().set_faults(faults);
    }

    fn observe(&mut self, subscriptions: Vec<Subscription>) {
        let place = self.connect(None, 1 << 30);
        self.observer = Some(place);
        self.net.borrow_mut().links[place].is_perfect = true;
        let channels: Vec<_> = subscriptions.iter().map(|its| its.channel).collect();
        let names = subscriptions.iter().map(|its| {
            let id = its.id().unwrap_or(0);
            format!("channel=c{}&from_id={id}", its.channel)
        });
        let target = format!("/read?{}", names.collect::<Vec<_>>().join("&"));
        let bytes = request("GET", &target, &[("Accept", "text/event-stream")], None);
        let mut reader = Reader::new(subscriptions);
        reader.observes = true;
        reader.terms = Terms { is_stream: true, may_be_ahead: false };
        let mut request = Request::new(Kind::Events);
        (request.reader, request.channels) = (Some(reader), channels);
        let peer = &mut self.peers[place];
        (peer.is_observer, peer.rate, peer.answers_pings) = (true, ReadRate::Eager, true);
        let bytes = self.enqueue(place, request, bytes);
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

    /// Draws a client. Returns it if it has this property and is not the observer.
    fn draw(&mut self, is_right: impl Fn(&Peer) -> bool) -> Option<usize> {
        let chosen = self.random.pick_any(&self.present)?;
        let peer = &self.peers[chosen];
        (!peer.is_observer && is_right(peer)).then_some(chosen)
    }

    /// Draws a client that may ask something.
    fn asker(&mut self) -> Option<usize> {
        self.draw(Peer::may_ask)
    }

    fn any_client(&mut self) -> Option<usize> {
        self.draw(|peer| !peer.has_closed)
    }

    pub(crate) fn step(&mut self, step: Step) {
        self.record.step(|| format!("{} {step:?}", self.now.mono.0));
        match step {
            Step::Connect => self.connect_any(),
            Step::Pipeline => self.pipeline(),
            Step::Continue => {
                if let Some(peer) = self.any_client() {
                    self.send_rest(peer);
                }
            }
            Step::Withhold => {
                for _ in 0..=self.random.below(10) {
                    if let Some(peer) = self.asker() {
                        self.withhold(peer);
                    }
                }
            }
            Step::Release => {
                let withheld = |peer: &&usize| self.peers[**peer].rest.is_some();
                let peers: Vec<_> = self.present.iter().filter(withheld).copied().collect();
                self.record.tally.count_if(peers.len() > 10, "many requests complete at once");
                for peer in peers {
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
            Step::Cut => {
                if let Some(peer) = self.any_client() {
                    self.net.borrow_mut().links[peer].is_cut = true;
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
            Step::FillDisk => self.fill_disk(),
            Step::Crash => self.crash(),
            Step::Upgrade => self.upgrade(),
            Step::MoveTls => self.move_tls(),
            Step::Tick => {
                let ms = self.random.pick(&[1, 5, 20, 100, 500]);
                self.pass(ms);
            }
            Step::Turn => {
                let max = if self.random.once_in(3) { self.plan.events_max } else { usize::MAX };
                self.turn(max);
            }
            // All others send bytes.
            _ => {
                if let Some(peer) = self.asker() {
                    let bytes = self.ask(peer, step);
                    self.send(peer, bytes);
                }
            }
        }
    }

    fn connect_any(&mut self) {
        if self.present.len() < self.plan.clients_max {
            let is_first = self.plan.is_crowded && !self.random.once_in(20);
            let addresses = if is_first { 1 } else { self.plan.addresses.into() };
            let number = self.random.below(addresses) as u8;
            // The first address is that of all Unix sockets.
            let address = (number > 0).then(|| Ipv4Addr::new(10, 0, 0, number).into());
            let capacity = self.random.pick(&self.plan.capacities.clone());
            let place = self.connect(address, capacity);
            self.record.note(|| format!("    {place} from {address:?}, {capacity} bytes"));
            if self.plan.tls > 0 && self.random.once_in(self.plan.tls) {
                self.begin_tls(place);
            }
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

    /// Sends a request but for its last byte.
    fn withhold(&mut self, peer: usize) {
        let steps = [Step::Write, Step::ReadNow, Step::Poll, Step::Introduce, Step::Goodbye];
        let step = self.random.pick(&steps);
        let mut bytes = self.ask(peer, step);
        let asker = &mut self.peers[peer];
        if asker.rest.is_none() && bytes.len() > 1 {
            asker.rest = Some(bytes.split_off(bytes.len() - 1));
            asker.sent -= 1;
        }
        self.send(peer, bytes);
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
        if matches!(piece, Segment::Fin) {
            self.end_tls(peer);
        }
        self.peers[peer].has_closed = true;
        let mut net = self.net.borrow_mut();
        net.links[peer].is_peer_gone |= both_ways;
        net.send(peer, piece, delay_ms);
    }

    /// The faults stop, and all clients take all: each gets its responses in time.
    fn stop_faults(&mut self) {
        self.record.step(|| "faults stop".to_owned());
        self.faults_stopped = true;
        if let Some(disk) = self.disk.clone() {
            disk.borrow_mut().heal();
            // A job may have failed whose result is still to come.
            self.run_on(10_000);
            if self.service.has_log_failed() {
                self.crash();
                self.run_on(10_000);
            }
        }
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
        let has_none = self.model.goodbyes() == goodbyes || self.has_lag();
        assert!(has_none || self.now.mono.0 > end - 4_000, "a stop says no goodbyes");
    }
}
