//! A node: the real service and the real log of a cluster, on a simulated network.

use std::cell::RefCell;
use std::rc::Rc;

use speak::cluster::{ClusterLog, ClusterLogState, Keys};
use speak::hub::{Millis, Now};
use speak::options::Options;
use speak::service::{AcceptLimits, InitialHub, NextWake, Service};
use speak::snapshot;
use support::random::Random;

use crate::broker::{Broker, SharedBroker, UNIX_MS};
use crate::network::{Network, Segment};
use crate::plan::Sizes;
use crate::socket::{Net, START_S, SimListener, start, turn};
use crate::tls_link::context;

/// Turns in a row at one time, after which the loop is said to never rest.
const TURNS_MAX: u32 = 5_000;

/// Clients of a node at once.
const CLIENTS_MAX: usize = 1_000;

/// Prefix of the keys.
pub(crate) const PREFIX: &str = "speak";

pub(crate) struct Node {
    pub(crate) net: Net,
    /// `None` after the process has died.
    pub(crate) service: Option<Service<SimListener>>,
    broker: SharedBroker,
    /// First of its connections to Redis.
    pub(crate) link: usize,
    /// Monotonic time of the process at the begin of the world.
    clock_ms: u64,
    /// Until then, the process does nothing.
    pub(crate) paused_until: u64,
    wait: NextWake,
    /// Time of the world of the last turn.
    turned_at: u64,
    turns: u32,
    /// Time at which it last could not reach Redis, or did not run.
    pub(crate) disturbed_at: u64,
    /// Time at which it last could not reach Redis, although it ran.
    pub(crate) cut_off_at: u64,
    /// Clients that wait for nothing.
    pub(crate) idle: Vec<usize>,
}

thread_local! {
    static SECRETS: RefCell<Random> = RefCell::new(Random::new(0));
}

/// Begins the random numbers of a run.
pub(crate) fn begin_secrets(seed: u64) {
    SECRETS.set(Random::new(seed));
}

fn fill(bytes: &mut [u8]) {
    SECRETS.with_borrow_mut(|random| bytes.iter_mut().for_each(|byte| *byte = random.next() as u8));
}

impl Node {
    /// Starts a process. Its clock shows `clock_ms` more than the world's.
    pub(crate) fn start(
        options: &Options,
        broker: &SharedBroker,
        clock_ms: u64,
        now: u64,
        sizes: Sizes,
    ) -> Self {
        let (net, mut service) =
            start(options, CLIENTS_MAX, sizes.step_weight, Random::new(1), fill);
        let ([commands, follower], link) = Broker::connect(broker);
        let mut log = ClusterLog::new(commands, follower, Keys::new(PREFIX), fill);
        log.set_sizes(sizes.snapshot_min, sizes.tail_max);
        let number = log.node();
        let mut node = Self {
            net,
            service: None,
            broker: Rc::clone(broker),
            link,
            clock_ms,
            paused_until: 0,
            wait: NextWake::Now,
            turned_at: now,
            turns: 0,
            disturbed_at: now,
            cut_off_at: now,
            idle: Vec::new(),
        };
        service.begin_turn(node.now(now));
        service.set_shared_log(Box::new(log), number);
        node.net.borrow_mut().owes_reserve = false;
        node.service = Some(service);
        node
    }

    /// Gets ready for an upgrade, without a turn. Returns whether nothing waits for the log.
    pub(crate) fn advance_log(&mut self) -> bool {
        let service = self.service.as_mut().expect("the process lives");
        service.is_log_idle() && service.advance_log()
    }

    /// Another process takes over, as after SIGUSR2: it gets the state and the place in the log,
    /// and no client here.
    pub(crate) fn upgrade(&mut self, options: &Options, now: u64, sizes: Sizes) {
        let predecessor = self.service.take().expect("the process lives");
        let state = predecessor.shared_log_state().expect("it is in the cluster");
        let state = ClusterLogState::decode(&state).expect("a state of the log");
        let (hub, its_now) = predecessor.hub();
        let (config, mut bytes) = (hub.config().clone(), Vec::new());
        snapshot::write(hub, its_now, 0, &mut bytes).expect("a Vec takes all bytes");
        drop(predecessor);
        self.broker.borrow_mut().close(self.link);
        let unix_ms = self.now(now).unix_ms;
        let (hub, its_now) =
            snapshot::read(&config, unix_ms, &mut bytes.as_slice()).expect("a state");
        assert_eq!(its_now.mono, self.now(now).mono, "time goes on");
        let initial = InitialHub { hub, now: its_now };
        let net = Rc::new(RefCell::new(Network::new(Random::new(1))));
        let listeners = vec![SimListener(Rc::clone(&net), context(START_S))];
        let limits = AcceptLimits::new(CLIENTS_MAX, usize::MAX);
        let mut service = Service::with_hub(options, initial, listeners, limits, fill);
        service.set_step_weight(sizes.step_weight);
        let ([commands, follower], link) = Broker::connect(&self.broker);
        let mut log = ClusterLog::new(commands, follower, Keys::new(PREFIX), fill);
        log.set_sizes(sizes.snapshot_min, sizes.tail_max);
        log.resume(&state);
        service.begin_turn(self.now(now));
        let resumed = service.resume_shared_log(Box::new(log), state.position());
        resumed.expect("all nodes have the same settings");
        net.borrow_mut().owes_reserve = false;
        (self.net, self.link, self.service) = (net, link, Some(service));
        (self.wait, self.disturbed_at) = (NextWake::Now, now);
        self.idle.clear();
    }

    fn now(&self, now: u64) -> Now {
        Now { mono: Millis(now + self.clock_ms), unix_ms: UNIX_MS + now + self.clock_ms }
    }

    pub(crate) fn service(&self) -> &Service<SimListener> {
        self.service.as_ref().expect("the process lives")
    }

    pub(crate) fn lives(&self) -> bool {
        self.service.is_some()
    }

    pub(crate) fn is_running(&self, now: u64) -> bool {
        self.lives() && self.paused_until <= now
    }

    /// Says whether it is in the cluster, as far as it knows.
    pub(crate) fn is_joined(&self) -> bool {
        self.lives() && self.service().hub().0.is_joined()
    }

    /// Connects a client, or takes one that waits for nothing.
    pub(crate) fn client(&mut self) -> usize {
        while let Some(place) = self.idle.pop() {
            if !self.net.borrow().links[place].is_dropped {
                return place;
            }
        }
        let mut net = self.net.borrow_mut();
        let place = net.connect(None, 1 << 30);
        net.links[place].is_perfect = true;
        place
    }

    pub(crate) fn send(&self, place: usize, bytes: Vec<u8>) {
        self.net.borrow_mut().send(place, Segment::Bytes(bytes), 0);
    }

    pub(crate) fn close(&self, place: usize) {
        self.net.borrow_mut().send(place, Segment::Fin, 0);
    }

    /// Says whether the loop has something to do.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        let is_time = match self.wait {
            NextWake::Now => true,
            NextWake::At(at) => at <= self.now(now).mono,
            NextWake::Never => false,
        };
        self.is_running(now)
            && (is_time
                || self.net.borrow().has_events()
                || self.broker.borrow().has_event(self.link))
    }

    /// Returns the time at which the loop has something to do, without an event.
    pub(crate) fn next_at(&self, now: u64) -> Option<u64> {
        match self.wait {
            _ if !self.lives() => None,
            _ if self.paused_until > now => Some(self.paused_until),
            NextWake::Now => Some(now),
            NextWake::At(at) => Some(at.0.saturating_sub(self.clock_ms).max(now)),
            NextWake::Never => None,
        }
    }

    /// Runs a turn of the loop. Returns the clients to which something was sent, or that were
    /// closed.
    pub(crate) fn turn(&mut self, now: u64) -> Vec<usize> {
        self.turns = if self.turned_at == now { self.turns + 1 } else { 0 };
        assert!(self.turns < TURNS_MAX, "the loop never rests");
        self.turned_at = now;
        let its_now = self.now(now);
        let events = self.net.borrow_mut().poll_events(usize::MAX, false);
        let service = self.service.as_mut().expect("the process lives");
        turn(&self.net, service, its_now, events);
        assert!(!service.has_log_failed(), "the log has failed");
        assert!(!service.hub().0.has_diverged(), "two nodes have different states");
        self.wait = service.next_wake();
        let mut touched = self.net.borrow_mut().take_touched();
        touched.sort_unstable();
        touched
    }

    /// The process dies.
    pub(crate) fn kill(&mut self) {
        self.broker.borrow_mut().close(self.link);
        self.service = None;
        self.net.borrow_mut().forget_clients();
        self.idle.clear();
    }
}
