//! Kills and pauses of nodes and of Redis, while each client is at a random node.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use support::ensure;
use support::fault::{Checked, Fault};
use support::session::Session;

use crate::client::{Call, Owner, What};
use crate::cluster::{Cluster, is_joined};
use crate::link::{Close, Token};
use crate::server::Server;
use crate::user::{LeaveMode, Sort, State};
use crate::world::World;

/// Time between two looks whether a node has joined.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// A node is dead for the others after three seconds. Then its sessions have another timeout, and
/// may end while their clients wait at the node: nothing is wrong with that.
const BURIED_AFTER: Duration = Duration::from_millis(2_500);
/// Shows the clock that the machine was slow.
const EXCUSE: Duration = Duration::from_secs(1);
/// Longest time that Redis is away before it is started again, in milliseconds.
const REDIS_AWAY_MOST_MS: u64 = 1_000;

impl World {
    /// Chooses the node of a new client.
    pub(crate) fn choose_node(&mut self) -> usize {
        let Some(cluster) = &self.cluster else { return 0 };
        let nodes = cluster.is_up.iter().enumerate().filter(|(_, is_up)| **is_up);
        let nodes: Vec<_> = nodes.map(|(node, _)| node).collect();
        self.random.pick(&nodes)
    }

    pub(crate) fn node(&mut self, node: usize) -> &mut Server {
        match &mut self.cluster {
            Some(cluster) if node > 0 => &mut cluster.others[node - 1],
            _ => &mut self.server,
        }
    }

    /// Returns all nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Server> {
        [&self.server].into_iter().chain(self.cluster.iter().flat_map(|it| &it.others))
    }

    /// Returns the nodes that are not being started.
    pub(crate) fn living_nodes(&self) -> impl Iterator<Item = &Server> {
        let is_dead = |node: usize| self.cluster.as_ref().is_some_and(|it| it.is_dead(node));
        self.nodes().enumerate().filter(move |(node, _)| !is_dead(*node)).map(|(_, it)| it)
    }

    /// Says whether nodes may refuse calls, and notice closings late.
    pub(crate) fn may_be_in_trouble(&self) -> bool {
        self.cluster.as_ref().is_some_and(Cluster::may_be_in_trouble)
    }

    /// Says whether a node may end reads: it stood still, and the log has gone on without it.
    pub(crate) fn may_end_reads(&self, node: usize) -> bool {
        let is_its = |it: &Cluster| it.paused == Some(node) && it.may_be_in_trouble();
        self.cluster.as_ref().is_some_and(is_its)
    }

    /// Notes that nodes or Redis are disturbed from now on, or no longer.
    pub(crate) fn set_disturbed(&mut self, is_disturbed: bool) {
        if let Some(cluster) = &mut self.cluster {
            cluster.is_disturbed = is_disturbed;
            cluster.disturbed_until = Some(Instant::now());
            self.ledger.unsettle_closings();
        }
    }

    /// Claims that a refusal is not without reason.
    pub(crate) fn check_refusal(&self, what: &str) -> Checked {
        let is_excused =
            self.may_be_in_trouble() || self.takeover.is_under_way || self.clock.was_slow();
        ensure!(is_excused, "refused, and nothing was disturbed: {what}");
        Ok(())
    }

    fn set_up(&mut self, node: usize, is_up: bool) {
        if let Some(cluster) = &mut self.cluster {
            cluster.is_up[node] = is_up;
        }
    }

    fn set_dead(&mut self, node: Option<usize>) {
        if let Some(cluster) = &mut self.cluster {
            cluster.dead = node;
        }
    }

    fn any_node(&mut self) -> usize {
        let count = self.nodes().count();
        self.random.index(count)
    }

    /// Kills a node, and starts it again while the users go on at the others.
    pub(crate) fn kill_node(&mut self) -> Checked {
        let node = self.any_node();
        self.call_under_load()?;
        self.node(node).running.kill()?;
        self.set_up(node, false);
        self.set_dead(Some(node));
        self.see_the_end()?;
        self.lose_links_of(node);
        self.find_all_back()?;
        let pause = Duration::from_millis(self.random.below(1_000));
        self.run_for(pause)?;
        let address = self.node(node).address;
        *self.node(node) = self.launcher.start(address)?;
        self.set_dead(None);
        self.await_join(node)?;
        self.set_up(node, true);
        self.audit()
    }

    /// Waits until a node serves, while the users go on.
    fn await_join(&mut self, node: usize) -> Checked {
        let next_look = Cell::new(Instant::now());
        self.run_until(|world| {
            if next_look.get() <= Instant::now() {
                next_look.set(Instant::now() + LOOK_INTERVAL);
                if is_joined(world.node(node)) {
                    return None;
                }
            }
            Some(Fault::new(format!("node {node} does not join")))
        })
    }

    /// Stops a node for a while, and lets it continue.
    pub(crate) fn pause_node(&mut self, time: Duration) -> Checked {
        let node = self.any_node();
        if let Some(cluster) = &mut self.cluster {
            cluster.paused = Some(node);
        }
        self.node(node).running.signal(Signal::STOP);
        // As a load balancer would find out.
        self.set_up(node, false);
        let outcome = self.run_excused(time, time >= BURIED_AFTER);
        self.node(node).running.signal(Signal::CONT);
        outcome?;
        self.await_join(node)?;
        self.set_up(node, true);
        // An observer at the node may have missed their goodbyes.
        for index in 0..self.users.len() as u32 {
            let user = self.user(index);
            if user.sort == Sort::Clogger && user.state == State::Here {
                let number = user.number();
                self.plan(number, Session::lose_track);
                self.be_gone(index);
            }
        }
        self.audit()
    }

    /// Stops Redis for a while, and lets it continue.
    pub(crate) fn pause_redis(&mut self, time: Duration) -> Checked {
        let signal = |world: &Self, signal| {
            if let Some(cluster) = &world.cluster {
                cluster.redis.signal(signal);
            }
        };
        signal(self, Signal::STOP);
        let outcome = self.run_for(time);
        signal(self, Signal::CONT);
        outcome?;
        self.audit()
    }

    /// Kills Redis, and starts it again with all that it had.
    pub(crate) fn kill_redis(&mut self) -> Checked {
        self.call_under_load()?;
        if let Some(cluster) = &mut self.cluster {
            cluster.redis.kill();
        }
        let pause = Duration::from_millis(self.random.below(REDIS_AWAY_MOST_MS));
        self.run_for(pause)?;
        if let Some(cluster) = &mut self.cluster {
            cluster.redis.restart();
        }
        self.run_for(Duration::from_millis(500))?;
        self.audit()
    }

    /// Runs on, during a time that excuses ends of sessions.
    fn run_excused(&mut self, time: Duration, is_excused: bool) -> Checked {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if is_excused {
                self.clock.note_lag(EXCUSE);
            }
            self.run_for(Duration::from_millis(50).min(end - Instant::now().min(end)))?;
        }
        Ok(())
    }

    /// Has many users call at this moment.
    fn call_under_load(&mut self) -> Checked {
        self.have_many_call();
        self.turn()?;
        thread::sleep(Duration::from_micros(self.random.below(3_000)));
        Ok(())
    }

    /// Drops the links to a node that is gone, but keeps their reads.
    fn lose_links_of(&mut self, node: usize) {
        for token in self.links.tokens() {
            if self.links.client(token).is_none_or(|client| client.node != node) {
                continue;
            }
            let Some((link, client)) = self.links.remove(token) else { continue };
            link.close(Close::Orderly);
            self.lost_reads.extend(client.read.map(|read| (client.owner, read)));
        }
        self.slow_readers.retain(|token| self.links.get(*token).is_some());
        if self.harness.is_some_and(|token| self.links.get(token).is_none()) {
            self.harness = None;
        }
    }

    /// A node could not make a call: its log does not respond, or it is about to join.
    pub(crate) fn call_failed(&mut self, owner: Owner, call: &Call, value: &Value) -> Checked {
        self.check_refusal(&format!("{value} for {:?} of {owner:?}", call.what))?;
        let is_certain = value["error"] == "over_capacity";
        if let (true, What::Write(text) | What::Introduce(text, _)) = (is_certain, &call.what) {
            self.ledger.forbid(*text, "it was refused")?;
        }
        self.count(if is_certain { "calls refused" } else { "calls with an unknown outcome" });
        let Owner::WriteConn(index) = owner else { return Ok(()) };
        match self.user(index).state {
            State::Arriving => self.be_gone(index),
            State::Leaving(LeaveMode::Goodbye | LeaveMode::ChannelByChannel, _) => {
                let number = self.user(index).number();
                self.plan(number, Session::lose_track);
                self.be_gone(index);
            }
            State::Leaving(mode, _) if call.what == What::Barrier => {
                self.begin_barrier(index, mode)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A node could not begin a read.
    pub(crate) fn read_failed(&mut self, token: Token) -> Checked {
        let Some((link, client)) = self.links.remove(token) else { return Ok(()) };
        link.close(Close::Orderly);
        self.check_refusal(&format!("a read of {:?}", client.owner))?;
        self.count("reads refused");
        match client.owner {
            Owner::Observer(channel) => self.observe(channel, client.read)?,
            Owner::ReadConn(index) => {
                self.user(index).resumes = client.read;
                self.find_back(index)?;
            }
            _ => {}
        }
        Ok(())
    }
}
