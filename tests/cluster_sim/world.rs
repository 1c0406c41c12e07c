//! Several nodes and their Redis, driven by a seed.

use speak::cluster::Keys;
use speak::hub::HEARTBEAT_MS;
use support::ledger::{Clock, Ledger, Rules};
use support::random::Random;

use crate::broker::{Broker, Loss, SharedBroker, UNIX_MS};
use crate::node::{Node, PREFIX, begin_secrets};
use crate::person::Person;
use crate::plan::{Plan, Sizes, Step};
use crate::record::Record;
use crate::request::Request;

/// Longest time for which an upgrade waits for the log, in milliseconds.
const DRAIN_MAX_MS: u64 = 50;

/// Longest time in which all nodes are connected again and have vouched, in milliseconds.
const VOUCHING_MAX_MS: u64 = 3_000;

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) broker: SharedBroker,
    pub(crate) nodes: Vec<Node>,
    pub(crate) ledger: Ledger,
    pub(crate) people: Vec<Person>,
    /// Requests without a response.
    pub(crate) requests: Vec<Request>,
    pub(crate) record: Record,
    pub(crate) now: u64,
    /// Next texts of each client, by node and place.
    pub(crate) texts: u32,
    /// Lowest id after all that was answered, for each channel.
    pub(crate) answered: Vec<u64>,
    /// Next id of the observer of each channel.
    pub(crate) observed: Vec<u64>,
    /// Until then, the nodes may wait for each other to vouch.
    pub(crate) vouching_until: u64,
    /// The address of all clients may have been sent away from the room.
    pub(crate) may_be_away: bool,
}

impl World {
    pub(crate) fn new(mut random: Random, record: Record) -> Self {
        let plan = Plan::draw(&mut random);
        begin_secrets(random.next());
        let broker = Broker::new(Random::new(random.next()), plan.delays.clone());
        let rules = Rules {
            timeout_ms: plan.timeout_ms,
            grace_ms: plan.grace_ms,
            history: None,
            has_own_texts: true,
            knows_ends: true,
            has_steady_clock: true,
        };
        let mut ledger = Ledger::new(plan.channels, rules);
        ledger.clock = Clock::Stamps;
        let channels = plan.channels;
        let mut world = Self {
            plan,
            random,
            broker,
            nodes: Vec::new(),
            ledger,
            people: Vec::new(),
            requests: Vec::new(),
            record,
            now: 0,
            texts: 0,
            answered: vec![1; channels],
            observed: vec![1; channels],
            vouching_until: 0,
            may_be_away: false,
        };
        (0..world.plan.nodes).for_each(|_| world.start_node());
        world
    }

    pub(crate) fn run(&mut self) {
        self.record.note(|| {
            let Plan { timeout_ms, grace_ms, poll_ms, delays, sizes, .. } = &self.plan;
            let Sizes { step_weight, snapshot_min, tail_max } = sizes;
            format!(
                "timeout {timeout_ms}, grace {grace_ms}, poll {poll_ms}, {delays:?}, \
                 {step_weight}, snapshots from {snapshot_min}, {tail_max} kept"
            )
        });
        for _ in 0..self.plan.length {
            let step = self.random.weighted(&self.plan.steps);
            self.step(step);
        }
        self.end();
    }

    pub(crate) fn tally(&self, what: &str) {
        self.record.tally.count(what);
    }

    /// Time of Redis.
    pub(crate) fn unix_ms(&self) -> u64 {
        UNIX_MS + self.now
    }

    fn step(&mut self, step: Step) {
        self.record.step(|| format!("{} {step:?}", self.now));
        match step {
            Step::Tick => {
                let ms = self.random.pick(&self.plan.ticks.clone());
                self.pass(ms);
            }
            Step::Jump => {
                let ms = self.random.pick(&[1_000, 3_000, 12_000]);
                self.pass(ms);
            }
            Step::Cut => self.cut(),
            Step::PauseRedis => {
                let ms = self.random.pick(&self.plan.pauses.clone());
                self.tally("redis paused");
                let mut broker = self.broker.borrow_mut();
                broker.paused_until = broker.paused_until.max(self.now + ms);
            }
            Step::PauseNode => {
                let ms = self.random.pick(&[300, 2_000, 4_500, 11_000]);
                if let Some(node) = self.living_node() {
                    self.tally("node paused");
                    self.record.note(|| format!("    node {node} for {ms} ms"));
                    let its = &mut self.nodes[node];
                    its.paused_until = its.paused_until.max(self.now + ms);
                    its.disturbed_at = its.paused_until;
                }
            }
            Step::Kill => {
                let lives = |node: &&Node| node.lives();
                if self.nodes.iter().filter(lives).count() > 1
                    && let Some(node) = self.living_node()
                {
                    self.kill(node);
                }
            }
            Step::Start => {
                let may_start = self.broker.borrow().next_loss.is_none();
                let living = self.nodes.iter().filter(|node| node.lives()).count();
                if may_start && living < self.plan.nodes_max {
                    self.tally("node started");
                    self.start_node();
                }
            }
            Step::Upgrade => self.upgrade(),
            Step::LoseRecords => self.lose_records(),
            _ => self.call(step),
        }
        self.observe();
        self.settle();
    }

    fn living_node(&mut self) -> Option<usize> {
        let living: Vec<_> = (0..self.nodes.len()).filter(|at| self.nodes[*at].lives()).collect();
        self.random.pick_any(&living)
    }

    /// Returns a node for a request: any that runs.
    pub(crate) fn running_node(&mut self) -> Option<usize> {
        let now = self.now;
        let running = (0..self.nodes.len()).filter(|at| self.nodes[*at].lives());
        let running: Vec<_> = running
            .filter(|at| self.nodes[*at].paused_until <= now || self.random.once_in(20))
            .collect();
        self.random.pick_any(&running)
    }

    fn start_node(&mut self) {
        let clock_ms = self.random.pick(&[0, 1_000, 123_456_789]);
        let Plan { options, sizes, .. } = &self.plan;
        let node = Node::start(options, &self.broker, clock_ms, self.now, *sizes);
        self.nodes.push(node);
    }

    fn cut(&mut self) {
        if let Some(node) = self.living_node() {
            self.tally("connection cut");
            let link = self.nodes[node].link + self.random.index(2);
            self.broker.borrow_mut().cut(link);
            let its = &mut self.nodes[node];
            its.disturbed_at = its.disturbed_at.max(self.now);
            its.cut_off_at = self.now;
        }
    }

    /// Makes Redis lose its last records, or all. No node may be on its way into the cluster, since
    /// the others do not know it, or have been in it under another number, which vouches no more.
    fn lose_records(&mut self) {
        let living = || self.nodes.iter().filter(|node| node.lives());
        let count = living().count();
        let knows_all = |node: &Node| node.service().hub().0.node_count() == count;
        if !living().all(|node| node.is_joined() && knows_all(node)) {
            return;
        }
        // A loss in the middle of a round leaves less time for it: a new epoch may be right.
        if self.now < self.vouching_until {
            return;
        }
        self.vouching_until = self.now + VOUCHING_MAX_MS;
        let mut broker = self.broker.borrow_mut();
        let count = self.random.pick(&[0, 1, 2, 5, 30, usize::MAX]);
        if count == usize::MAX && self.random.once_in(2) {
            self.record.tally.count("redis emptied");
            if self.random.once_in(2) {
                self.record.note(|| "    all, with the next record".to_owned());
                broker.next_loss = Some(Loss::All);
                self.vouching_until += HEARTBEAT_MS;
            } else {
                self.record.note(|| "    all".to_owned());
                broker.redis.execute(&vec![b"FLUSHALL".to_vec()]);
            }
            return;
        }
        self.record.tally.count("another redis");
        self.record.note(|| format!("    another Redis, without {count} records"));
        broker.redis.lose_last(Keys::new(PREFIX).stream(), count);
        broker.fail_over();
    }

    fn kill(&mut self, node: usize) {
        self.tally("node killed");
        self.record.note(|| format!("    node {node}"));
        self.nodes[node].kill();
        self.lose_requests(node);
    }

    /// Replaces the process of a node, unless the log takes too long.
    fn upgrade(&mut self) {
        let Some(node) = self.living_node() else { return };
        if self.now < self.vouching_until {
            // The successor would have less time to vouch: a new epoch may be right.
            return;
        }
        let may_begin = |node: &Node, now| node.is_running(now) && node.is_joined();
        let end = self.now + DRAIN_MAX_MS;
        while may_begin(&self.nodes[node], self.now) && self.now <= end {
            if self.nodes[node].advance_log() && self.nodes[node].is_joined() {
                self.tally("node upgraded");
                self.record.note(|| format!("    node {node}"));
                self.nodes[node].upgrade(&self.plan.options, self.now, self.plan.sizes);
                return self.lose_requests(node);
            }
            self.pass(1);
        }
    }

    /// The requests to this node get no response.
    fn lose_requests(&mut self, node: usize) {
        let lost: Vec<_> = self.requests.extract_if(.., |it| it.node == node).collect();
        for request in lost {
            self.lose(&request);
        }
    }

    /// Notes which nodes have trouble.
    fn note_disturbances(&mut self) {
        let broker = self.broker.borrow();
        let is_paused = broker.paused_until.max(self.vouching_until) > self.now;
        for node in self.nodes.iter_mut().filter(|node| node.lives()) {
            let is_cut_off = is_paused || !broker.is_connected(node.link);
            if is_cut_off || !node.is_joined() {
                node.disturbed_at = node.disturbed_at.max(self.now);
            }
            if is_cut_off {
                node.cut_off_at = self.now;
            }
        }
    }

    /// Runs turns until nothing is left to do at this time.
    pub(crate) fn settle(&mut self) {
        loop {
            self.broker.borrow_mut().advance(self.now);
            self.note_disturbances();
            let due = (0..self.nodes.len()).filter(|at| self.nodes[*at].is_due(self.now));
            let due: Vec<_> = due.collect();
            let Some(node) = self.random.pick_any(&due) else { break };
            let touched = self.nodes[node].turn(self.now);
            self.after_turn(node, touched);
        }
        self.check_waits();
    }

    /// Lets time pass, in which all is done that is due.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            self.settle();
            if self.now >= end {
                return;
            }
            let of_nodes = self.nodes.iter().filter_map(|node| node.next_at(self.now));
            let next = of_nodes.chain(self.broker.borrow().next_at()).min().unwrap_or(end);
            let next = next.clamp(self.now + 1, end);
            let passed = next - self.now;
            self.now = next;
            for node in self.nodes.iter().filter(|node| node.lives()) {
                node.net.borrow_mut().advance(passed);
            }
        }
    }
}
