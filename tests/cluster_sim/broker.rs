//! The way between nodes and Redis: delays, pauses, and connections that are lost with what is
//! under way.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;

use speak::cluster::{Connection, Event, Failure, ServerInfo, Value};
use support::random::Random;

use crate::redis::{Args, Executed, Redis, Wait, Watched};

/// Unix time at the begin of a run.
pub(crate) const UNIX_MS: u64 = 1_700_000_000_000;

/// Times after which a command without a reply ends the connection: as the server's sockets do.
const REPLY_MS: [u64; 2] = [5_000, 10_000];

pub(crate) type SharedBroker = Rc<RefCell<Broker>>;

/// Redis, and all connections to it.
pub(crate) struct Broker {
    pub(crate) redis: Redis,
    /// Number of the process that is Redis.
    run: u64,
    /// Time of the world.
    now: u64,
    /// Until then, Redis executes nothing.
    pub(crate) paused_until: u64,
    links: Vec<Link>,
    /// Commands of connections that are lost, which arrive all the same; those of a transaction are
    /// executed at once.
    ghosts: Vec<Ghost>,
    random: Random,
    /// Delays of a command or a reply.
    pub(crate) delays: Vec<u64>,
    /// Records that Redis took.
    pub(crate) records: u64,
    /// Snapshots that became the newest one, and pieces of them that were read.
    pub(crate) snapshots: u64,
    pub(crate) pieces: u64,
    /// What Redis loses as soon as it has taken another record, before any node reads that.
    pub(crate) next_loss: Option<Loss>,
}

/// Commands of a lost connection, the time at which they arrive, and the keys that they watch.
type Ghost = (u64, Vec<Args>, Watched);

/// What Redis loses.
#[derive(Clone, Copy)]
pub(crate) enum Loss {
    /// The record.
    Record,
    /// All that it has.
    All,
}

/// One connection of a node.
#[derive(Default)]
struct Link {
    /// Longest time until a reply.
    reply_ms: u64,
    /// The node knows that it is connected.
    is_known: bool,
    commands: VecDeque<(u64, Args)>,
    blocked: Option<Wait>,
    /// Commands since `MULTI`.
    transaction: Option<Vec<Args>>,
    /// Keys whose changes make the next transaction fail.
    watched: Watched,
    events: VecDeque<(u64, Event)>,
    /// Times of commands without a polled reply.
    unanswered: VecDeque<u64>,
    connects_at: Option<u64>,
    is_closed: bool,
}

/// The end of a connection at a node.
pub(crate) struct NodeEnd {
    broker: SharedBroker,
    link: usize,
}

impl Broker {
    pub(crate) fn new(random: Random, delays: Vec<u64>) -> SharedBroker {
        let broker = Self {
            redis: Redis::new(UNIX_MS),
            run: 0,
            now: 0,
            paused_until: 0,
            links: Vec::new(),
            ghosts: Vec::new(),
            random,
            delays,
            records: 0,
            snapshots: 0,
            pieces: 0,
            next_loss: None,
        };
        Rc::new(RefCell::new(broker))
    }

    /// Makes both connections of a node. Returns them with the number of the first.
    pub(crate) fn connect(broker: &SharedBroker) -> ([Box<dyn Connection>; 2], usize) {
        let first = broker.borrow().links.len();
        let ends = [0, 1].map(|place| {
            let mut its = broker.borrow_mut();
            let now = its.now;
            let link =
                Link { reply_ms: REPLY_MS[place], connects_at: Some(now), ..Link::default() };
            its.links.push(link);
            let link = its.links.len() - 1;
            Box::new(NodeEnd { broker: Rc::clone(broker), link }) as Box<dyn Connection>
        });
        (ends, first)
    }

    /// Lets time pass, up to `now`.
    pub(crate) fn advance(&mut self, now: u64) {
        self.now = now;
        self.redis.now_ms = UNIX_MS + now;
        for link in 0..self.links.len() {
            self.end_silent(link);
        }
        if self.paused_until > now {
            return;
        }
        for link in 0..self.links.len() {
            if self.links[link].connects_at.is_some_and(|at| at <= now) {
                self.links[link].connects_at = None;
                // The turn in which the node reads it may have begun before.
                let turn_ms = self.random.pick(&[0, 0, 2, 20]);
                let info = ServerInfo {
                    run_id: format!("{:040}", self.run).into(),
                    version: (7, 0, 15),
                    unix_ms: self.redis.now_ms + turn_ms,
                    evicts: false,
                    is_writable: true,
                };
                self.reply(link, Event::Connected(info));
            }
        }
        while self.execute_next() {}
        for link in 0..self.links.len() {
            if let Some(wait) = &self.links[link].blocked
                && let Some(page) = self.redis.wake(wait)
            {
                self.links[link].blocked = None;
                self.reply(link, Event::Reply(page));
            }
        }
    }

    /// Executes the command that arrived first, if there is one.
    fn execute_next(&mut self) -> bool {
        let ready = self.links.iter().enumerate().filter(|(_, link)| link.blocked.is_none());
        let arrivals = ready.filter_map(|(at, link)| Some((link.commands.front()?.0, at)));
        let first = arrivals.min().filter(|(at, _)| *at <= self.now);
        let ghost = (0..self.ghosts.len()).min_by_key(|ghost| self.ghosts[*ghost].0);
        let ghost = ghost.filter(|ghost| self.ghosts[*ghost].0 <= self.now);
        if let Some(ghost) = ghost
            && first.is_none_or(|(at, _)| self.ghosts[ghost].0 <= at)
        {
            let (_, commands, watched) = self.ghosts.remove(ghost);
            if self.redis.is_unchanged(&watched) {
                // A command of a lost connection waits for nothing.
                for args in &commands {
                    self.execute(args);
                }
            }
            return true;
        }
        let Some((_, link)) = first else { return false };
        let (_, args) = self.links[link].commands.pop_front().expect("it has arrived");
        let executed = match (&*args[0], self.links[link].transaction.take()) {
            (b"MULTI", _) => {
                self.links[link].transaction = Some(Vec::new());
                Executed::Reply(Value::Text(b"OK".as_slice().into()))
            }
            (b"WATCH", None) => {
                self.links[link].watched = self.redis.watch(&args[1..]);
                Executed::Reply(Value::Text(b"OK".as_slice().into()))
            }
            (b"UNWATCH", None) => {
                self.links[link].watched.clear();
                Executed::Reply(Value::Text(b"OK".as_slice().into()))
            }
            (b"EXEC", Some(_)) if !self.redis.is_unchanged(&self.links[link].watched) => {
                self.links[link].watched.clear();
                Executed::Reply(Value::Nil)
            }
            (b"EXEC", Some(steps)) => {
                self.links[link].watched.clear();
                let replies = steps.iter().map(|args| match self.execute(args) {
                    Executed::Reply(value) => value,
                    Executed::Blocked(_) => Value::Nil,
                });
                Executed::Reply(Value::Array(replies.collect()))
            }
            (_, Some(mut steps)) => {
                steps.push(args);
                self.links[link].transaction = Some(steps);
                Executed::Reply(Value::Text(b"QUEUED".as_slice().into()))
            }
            (_, None) => self.execute(&args),
        };
        match executed {
            Executed::Reply(value) => self.reply(link, Event::Reply(value)),
            Executed::Blocked(wait) => self.links[link].blocked = Some(wait),
        }
        true
    }

    fn execute(&mut self, args: &Args) -> Executed {
        let executed = self.redis.execute(args);
        let is_taken = matches!(executed, Executed::Reply(Value::Text(_)));
        self.snapshots += u64::from(args[0] == b"PERSIST");
        self.pieces += u64::from(args[0] == b"HGET" && is_taken);
        if args[0] == b"XADD" && is_taken {
            self.records += 1;
            match self.next_loss.take() {
                Some(Loss::Record) => self.redis.remove_last(&args[1]),
                Some(Loss::All) => self.redis.lose_last(&args[1], usize::MAX),
                None => {}
            }
        }
        executed
    }

    fn reply(&mut self, link: usize, event: Event) {
        let at = self.now + self.random.pick(&self.delays);
        let link = &mut self.links[link];
        let at = link.events.back().map_or(0, |(at, _)| *at).max(at);
        link.events.push_back((at, event));
    }

    /// Makes Redis another process: all connections end.
    pub(crate) fn fail_over(&mut self) {
        self.run += 1;
        (0..self.links.len()).for_each(|link| self.cut(link));
        // They were on their way to the other one.
        self.ghosts.clear();
    }

    /// Ends a connection on which a reply is overdue.
    fn end_silent(&mut self, link: usize) {
        let its = &self.links[link];
        let is_late = its.unanswered.front().is_some_and(|at| at + its.reply_ms <= self.now);
        if is_late && its.events.front().is_none_or(|(at, _)| *at > self.now) {
            self.cut(link);
        }
    }

    /// Ends a connection. A part of what is under way is lost, in both directions.
    pub(crate) fn cut(&mut self, link: usize) {
        if self.links[link].is_closed || self.links[link].connects_at.is_some() {
            return;
        }
        self.lose(link);
        let delay = self.random.pick(&[0, 0, 20, 300]);
        let backoff = self.random.pick(&[0, 10, 200, 1_500]);
        let (now, kept) = (self.now, self.random.index(self.links[link].events.len() + 1));
        let link = &mut self.links[link];
        link.events.truncate(kept);
        let at = link.events.back().map_or(0, |(at, _)| *at).max(now + delay);
        let failure = Failure::transient("the simulation has cut it".to_owned());
        link.events.push_back((at, Event::Disconnected(failure)));
        link.connects_at = Some(at + backoff);
        link.is_known = false;
    }

    /// The process of a node has died.
    pub(crate) fn close(&mut self, first: usize) {
        for link in first..first + 2 {
            self.lose(link);
            let link = &mut self.links[link];
            link.events.clear();
            (link.is_closed, link.connects_at) = (true, None);
        }
    }

    /// Forgets the commands under way. Some of them arrive all the same, perhaps later.
    fn lose(&mut self, link: usize) {
        let lag = self.random.pick(&[0, 0, 5, 700]);
        let commands = mem::take(&mut self.links[link].commands);
        let kept = self.random.index(commands.len() + 1);
        let mut transaction = self.links[link].transaction.take();
        let mut watched = mem::take(&mut self.links[link].watched);
        for (at, args) in commands.into_iter().take(kept) {
            match (&*args[0], transaction.take()) {
                (b"MULTI", _) => transaction = Some(Vec::new()),
                (b"EXEC", Some(steps)) => {
                    self.ghosts.push((at + lag, steps, mem::take(&mut watched)));
                }
                (_, Some(mut steps)) => {
                    steps.push(args);
                    transaction = Some(steps);
                }
                (_, None) => self.ghosts.push((at + lag, vec![args], Watched::new())),
            }
        }
        self.links[link].blocked = None;
        self.links[link].unanswered.clear();
    }

    /// Says whether a node has something to poll.
    pub(crate) fn has_event(&self, first: usize) -> bool {
        let mut links = self.links[first..first + 2].iter();
        links.any(|link| link.events.front().is_some_and(|(at, _)| *at <= self.now))
    }

    /// Says whether a node knows that both of its connections are there.
    pub(crate) fn is_connected(&self, first: usize) -> bool {
        let mut links = self.links[first..first + 2].iter();
        links.all(|link| link.is_known && link.connects_at.is_none())
    }

    /// Returns the time at which something happens next.
    pub(crate) fn next_at(&self) -> Option<u64> {
        let at_redis = |at: u64| at.max(self.paused_until);
        let of_link = |link: &Link| {
            let commands = link.commands.front().filter(|_| link.blocked.is_none());
            let wait = link.blocked.as_ref().map(|wait| Redis::end_of_wait(wait) - UNIX_MS);
            [
                commands.map(|(at, _)| at_redis(*at)),
                wait.map(at_redis),
                link.connects_at.map(at_redis),
                link.events.front().map(|(at, _)| *at),
                link.unanswered.front().map(|at| at + link.reply_ms),
            ]
            .into_iter()
            .flatten()
            .filter(|at| *at > self.now)
            .min()
        };
        let ghosts = self.ghosts.iter().map(|(at, ..)| at_redis(*at));
        self.links.iter().filter_map(of_link).chain(ghosts.filter(|at| *at > self.now)).min()
    }
}

impl Connection for NodeEnd {
    fn send(&mut self, args: &[&[u8]]) {
        let mut broker = self.broker.borrow_mut();
        let delay = {
            let Broker { random, delays, .. } = &mut *broker;
            random.pick(delays)
        };
        let now = broker.now;
        let link = &mut broker.links[self.link];
        if !link.is_known || link.connects_at.is_some() {
            return;
        }
        let at = link.commands.back().map_or(0, |(at, _)| *at).max(now + delay);
        link.commands.push_back((at, args.iter().map(|arg| arg.to_vec()).collect()));
        link.unanswered.push_back(now);
    }

    fn poll(&mut self) -> Option<Event> {
        let mut broker = self.broker.borrow_mut();
        let now = broker.now;
        let link = &mut broker.links[self.link];
        if link.events.front().is_none_or(|(at, _)| *at > now) {
            return None;
        }
        let (_, event) = link.events.pop_front()?;
        match event {
            // It may have ended since.
            Event::Connected(_) => {
                let mut later = link.events.iter();
                link.is_known = later.all(|(_, event)| matches!(event, Event::Reply(_)));
            }
            Event::Disconnected(_) => link.is_known = false,
            Event::Reply(_) => _ = link.unanswered.pop_front(),
        }
        Some(event)
    }

    fn reset(&mut self) {
        let mut broker = self.broker.borrow_mut();
        broker.lose(self.link);
        let now = broker.now;
        let link = &mut broker.links[self.link];
        link.events.clear();
        (link.is_known, link.connects_at) = (false, Some(now + 100));
    }

    fn buffered_bytes(&self) -> usize {
        let broker = self.broker.borrow();
        let commands = broker.links[self.link].commands.iter();
        commands.map(|(_, args)| args.iter().map(Vec::len).sum::<usize>()).sum()
    }
}
