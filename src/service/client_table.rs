//! All clients: who is there, who has a deadline, who is to be gone on with, who is to be reaped.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::mem;

use super::budget::{Budget, Time};
use super::client::{Client, Delivery, State};
use super::event::Event;
use super::fair_queue::Lanes;
use super::gauges::Census;
use super::socket::Socket;
use super::stream_state::Following;
use crate::api::Address;
use crate::hub::{Key, Millis, ReaderKey, Slots, TimerWheel};

/// The clients and the lists that a turn of the loop works through.
pub(super) struct Clients<S> {
    slots: Slots<Client<S>>,
    /// What those have in addition whose reads stay.
    streams: Slots<Following>,
    /// One timer for each client at most, by place.
    wheel: TimerWheel<u32>,
    /// Those whose work a budget cut short, or who have input that arrived while they waited.
    ready: VecDeque<Key>,
    /// Those to whom something happened that a turn had no time for.
    late: VecDeque<Key>,
    /// Those whose answers a turn had no time to send.
    pub(super) lanes: Lanes,
    /// How much more this turn may do.
    pub(super) budget: Budget,
    closing: Vec<Key>,
    /// Those that are to be lost once the delivery at hand is done.
    doomed: Vec<Key>,
    /// Streams that the delivery at hand gave so much that they get no more before they have taken it.
    overloaded: Vec<Key>,
    /// How many are there only to be told that there is no room.
    refused: usize,
    /// How many came by the admin door.
    operators: usize,
    /// Bytes that all take beside themselves.
    memory: usize,
    /// How many one address may have at once; 0 for no limit.
    max_per_address: usize,
    /// How many each has, where there is a limit. Proxies are not counted: they are many.
    per_address: HashMap<Address, usize>,
}

impl<S: Socket> Clients<S> {
    /// No clients, at `now`.
    pub(super) fn new(max_per_address: usize, now: Millis) -> Self {
        Self {
            slots: Slots::default(),
            streams: Slots::default(),
            wheel: TimerWheel::new(now),
            ready: VecDeque::new(),
            late: VecDeque::new(),
            lanes: Lanes::default(),
            budget: Budget::default(),
            closing: Vec::new(),
            doomed: Vec::new(),
            overloaded: Vec::new(),
            refused: 0,
            operators: 0,
            memory: 0,
            max_per_address,
            per_address: HashMap::new(),
        }
    }

    pub(super) fn insert(&mut self, client: Client<S>) -> Key {
        if let Some(address) = self.counted(&client) {
            *self.per_address.entry(address).or_default() += 1;
        }
        self.operators += usize::from(client.is_operator);
        let deadline = client.deadline;
        let key = self.slots.insert(client);
        self.set_deadline(key, deadline);
        key
    }

    /// Whether this client, which is here already, is one too many of its address.
    pub(super) fn is_too_many(&self, key: Key) -> bool {
        let address = self.slots.get(key).and_then(|client| self.counted(client));
        address.is_some_and(|address| self.per_address[&address] > self.max_per_address)
    }

    /// By which address a client is counted, if it is.
    fn counted(&self, client: &Client<S>) -> Option<Address> {
        client.address.filter(|_| self.max_per_address > 0 && !client.is_proxy && !client.is_refused)
    }

    fn uncount(&mut self, address: Option<Address>) {
        let Some(address) = address else { return };
        if let Entry::Occupied(mut count) = self.per_address.entry(address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Client<S>> {
        self.slots.get_mut(key)
    }

    /// The client of a key that was looked up before in the same step.
    pub(super) fn the(&mut self, key: Key) -> &mut Client<S> {
        self.slots.get_mut(key).expect("clients are reaped only at the end of a turn")
    }

    /// A client whose read stays, with what belongs to that.
    pub(super) fn following(&mut self, key: Key) -> Option<(&mut Client<S>, &mut Following)> {
        let client = self.slots.get_mut(key)?;
        let State::Following(stream) = client.state else { return None };
        Some((client, self.streams.get_mut(stream)?))
    }

    /// The client's read stays from now on.
    pub(super) fn follow(&mut self, key: Key, following: Following) {
        let stream = self.streams.insert(following);
        self.the(key).state = State::Following(stream);
    }

    /// The read that waits on a client, or stays.
    pub(super) fn reader(&self, key: Key) -> Option<ReaderKey> {
        match self.slots.get(key)?.state {
            State::Waiting { reader, .. } => Some(reader),
            State::Following(stream) => self.streams.get(stream).map(|following| following.reader),
            State::Reading | State::Writing(_) | State::Lingering | State::Closing => None,
        }
    }

    /// The client goes over to another state. Returns the read that waited on it, or stayed.
    pub(super) fn leave(&mut self, key: Key, state: State) -> Option<ReaderKey> {
        match mem::replace(&mut self.the(key).state, state) {
            State::Waiting { reader, .. } => Some(reader),
            State::Following(stream) => self.streams.remove(stream).map(|following| following.reader),
            State::Reading | State::Writing(_) | State::Lingering | State::Closing => None,
        }
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.slots.keys().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Client<S>> {
        self.slots.keys().filter_map(|key| self.slots.get(key))
    }

    /// How many are served by the public doors, those not counted that are merely refused.
    pub(super) fn served(&self) -> usize {
        self.slots.len() - self.refused - self.operators
    }

    pub(super) fn refused(&self) -> usize {
        self.refused
    }

    /// How many are served by the admin door.
    pub(super) fn operators(&self) -> usize {
        self.operators
    }

    pub(super) fn mark_refused(&mut self, key: Key) {
        self.uncount(self.slots.get(key).and_then(|client| self.counted(client)));
        self.the(key).is_refused = true;
        self.refused += 1;
    }

    /// Bytes that all take beside themselves: of those that were not counted since they changed, as it was then.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// Takes account of what a client takes now. Tells whether it is more than it was.
    pub(super) fn count_memory(&mut self, key: Key) -> bool {
        let Some(client) = self.slots.get_mut(key) else { return false };
        if client.holds_nothing() && client.counted_memory == 0 {
            return false;
        }
        let fragments = match client.state {
            State::Following(stream) => self.streams.get(stream).map_or(0, Following::memory),
            _ => 0,
        };
        let now = u32::try_from(client.memory() + fragments).unwrap_or(u32::MAX);
        let before = mem::replace(&mut client.counted_memory, now);
        self.memory = self.memory + now as usize - before as usize;
        now > before
    }

    /// Has the client looked at by `at`, unless its deadline is moved again. A later deadline is only noted: the
    /// timer fires early then and is set anew, which costs less than moving it with every request.
    pub(super) fn set_deadline(&mut self, key: Key, at: Millis) {
        let Some(client) = self.slots.get_mut(key) else { return };
        client.deadline = at;
        if let Some(timer) = client.timer {
            if client.fires_at <= at {
                return;
            }
            self.wheel.cancel(timer);
        }
        client.fires_at = at;
        client.timer = Some(self.wheel.set(at, key.index));
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.wheel.next_deadline()
    }

    /// A client whose timer fired; its deadline may still be to come.
    pub(super) fn pop_due(&mut self, now: Millis) -> Option<Key> {
        let index = self.wheel.pop(now)?;
        let key = self.slots.key_at(index).expect("a reaped client's timer is cancelled");
        self.the(key).timer = None;
        Some(key)
    }

    /// Has the client gone on with in the next turn, which comes at once.
    pub(super) fn make_ready(&mut self, key: Key) {
        let client = self.the(key);
        if !client.is_ready {
            client.is_ready = true;
            self.ready.push_back(key);
        }
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.budget.begin_turn(!self.late.is_empty() || self.ready.len() > 1);
    }

    /// How many are ready. Those that become so meanwhile stand behind them, for the turn after.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// The one that has been ready longest, if it is still there.
    pub(super) fn pop_ready(&mut self) -> Option<Key> {
        let key = self.ready.pop_front()?;
        self.slots.get_mut(key)?.is_ready = false;
        Some(key)
    }

    /// Keeps what happened to a client for when there is time.
    pub(super) fn hear_later(&mut self, key: Key, event: Event) {
        let client = self.the(key);
        if let Some(late) = &mut client.late {
            late.add(event);
        } else {
            client.late = Some(event);
            self.late.push_back(key);
        }
    }

    /// Whether there is more to do than there was time for.
    pub(super) fn has_work(&self) -> bool {
        !(self.ready.is_empty() && self.late.is_empty() && self.lanes.is_empty())
    }

    /// To whom something happened first of those for whom there was no time, and what.
    pub(super) fn pop_late(&mut self) -> Option<(Key, Event)> {
        while let Some(key) = self.late.pop_front() {
            if let Some(event) = self.slots.get_mut(key).and_then(|client| client.late.take()) {
                return Some((key, event));
            }
        }
        None
    }

    /// Whether a read that waited is sent its answer in this turn: there is time for it, and those before it in its lane
    /// were sent theirs.
    pub(super) fn time_for(&self, lane: u32) -> Time {
        if self.lanes.has(lane) { Time::Spent } else { self.budget.for_delivery() }
    }

    /// An answer of so many bytes was delivered to a client, or is to be.
    pub(super) fn delivered(&mut self, key: Key, lane: u32, bytes: usize, delivery: Delivery) {
        match delivery {
            Delivery::Tried(_) => self.budget.sent(bytes),
            Delivery::Held(payload) => self.lanes.push(lane, (key, payload)),
        }
    }

    /// Has the client lost, with all that follows from it, once the hub can be told.
    pub(super) fn doom(&mut self, key: Key) {
        self.doomed.push(key);
    }

    /// Has the hub told, once the delivery at hand is done, that a stream has enough to take.
    pub(super) fn overload(&mut self, key: Key) {
        self.overloaded.push(key);
    }

    pub(super) fn take_overloaded(&mut self) -> Vec<Key> {
        mem::take(&mut self.overloaded)
    }

    pub(super) fn take_doomed(&mut self) -> Vec<Key> {
        mem::take(&mut self.doomed)
    }

    /// Has the client reaped. Its state must be `Closing` already.
    pub(super) fn reap_later(&mut self, key: Key) {
        self.closing.push(key);
    }

    /// Counts them, and what belongs to them.
    pub(super) fn census(&self) -> Census {
        Census {
            clients: self.slots.len(),
            refused: self.refused,
            streams: self.streams.len(),
            timers: self.wheel.len(),
            ready: self.ready.len() + self.late.len() + self.lanes.len(),
            addresses: self.per_address.len(),
            memory: self.memory,
            ..Census::default()
        }
    }

    /// Frees those that closed in this turn; dropping a socket closes it, and the poll forgets it.
    pub(super) fn reap(&mut self) {
        while let Some(key) = self.closing.pop() {
            self.remove(key);
        }
    }

    /// Takes a client out of all that knows of it, outside of its turns.
    pub(super) fn remove(&mut self, key: Key) -> Option<Client<S>> {
        let client = self.slots.remove(key)?;
        if let Some(timer) = client.timer {
            self.wheel.cancel(timer);
        }
        self.refused -= usize::from(client.is_refused);
        self.operators -= usize::from(client.is_operator);
        self.memory -= client.counted_memory as usize;
        self.uncount(self.counted(&client));
        Some(client)
    }
}
