//! All clients: who is there, who has a deadline, who is to be gone on with, who is to be reaped.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::mem;

use super::budget::Budget;
use super::client::{Client, Sent, State};
use super::event::Event;
use super::fair_queue::FairQueue;
use super::gauges::Gauges;
use super::socket::Socket;
use super::stream_state::StreamState;
use crate::api::SourceKey;
use crate::hub::{Key, Millis, ReaderKey, Slab, TimerWheel};

/// The clients and the lists that a turn of the loop works through.
pub(super) struct ClientTable<S> {
    slots: Slab<Client<S>>,
    /// What those have in addition whose reads stay.
    streams: Slab<StreamState>,
    /// One timer for each client at most, by place.
    timers: TimerWheel<u32>,
    /// Those whose work a budget cut short, or who have input that arrived while they waited.
    run_queue: VecDeque<Key>,
    /// Those to whom something happened that a turn had no time for.
    deferred_events: VecDeque<Key>,
    /// Those whose answers a turn had no time to send.
    pub(super) deferred_sends: FairQueue,
    /// How much more this turn may do.
    pub(super) budget: Budget,
    to_reap: Vec<Key>,
    /// Those that are to be lost once the delivery at hand is done.
    pending_closes: Vec<Key>,
    /// Streams that the delivery at hand gave so much that they get no more before they have taken it.
    pending_pauses: Vec<Key>,
    /// How many are there only to be told that there is no room.
    rejected_count: usize,
    /// How many came by the admin door.
    admin_count: usize,
    /// Bytes that all take beside themselves.
    memory: usize,
    /// How many one address may have at once; 0 for no limit.
    max_per_address: usize,
    /// How many each has, where there is a limit. Proxies are not counted: they are many.
    per_address: HashMap<SourceKey, usize>,
}

impl<S: Socket> ClientTable<S> {
    /// No clients, at `now`.
    pub(super) fn new(max_per_address: usize, now: Millis) -> Self {
        Self {
            slots: Slab::default(),
            streams: Slab::default(),
            timers: TimerWheel::new(now),
            run_queue: VecDeque::new(),
            deferred_events: VecDeque::new(),
            deferred_sends: FairQueue::default(),
            budget: Budget::default(),
            to_reap: Vec::new(),
            pending_closes: Vec::new(),
            pending_pauses: Vec::new(),
            rejected_count: 0,
            admin_count: 0,
            memory: 0,
            max_per_address,
            per_address: HashMap::new(),
        }
    }

    pub(super) fn insert(&mut self, client: Client<S>) -> Key {
        if let Some(address) = self.limit_key(&client) {
            *self.per_address.entry(address).or_default() += 1;
        }
        self.admin_count += usize::from(client.is_admin);
        let deadline = client.deadline;
        let key = self.slots.insert(client);
        self.set_deadline(key, deadline);
        key
    }

    /// Whether this client, which is here already, is one too many of its address.
    pub(super) fn exceeds_address_limit(&self, key: Key) -> bool {
        let address = self.slots.get(key).and_then(|client| self.limit_key(client));
        address.is_some_and(|address| self.per_address[&address] > self.max_per_address)
    }

    /// By which address a client is counted, if it is.
    fn limit_key(&self, client: &Client<S>) -> Option<SourceKey> {
        client
            .address
            .filter(|_| self.max_per_address > 0 && !client.is_proxy && !client.is_rejected)
    }

    fn release_address(&mut self, address: Option<SourceKey>) {
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
    pub(super) fn expect_mut(&mut self, key: Key) -> &mut Client<S> {
        self.slots.get_mut(key).expect("clients are reaped only at the end of a turn")
    }

    /// A client whose read stays, with what belongs to that.
    pub(super) fn stream_mut(&mut self, key: Key) -> Option<(&mut Client<S>, &mut StreamState)> {
        let client = self.slots.get_mut(key)?;
        let State::Streaming(stream) = client.state else { return None };
        Some((client, self.streams.get_mut(stream)?))
    }

    /// The client's read stays from now on.
    pub(super) fn start_stream(&mut self, key: Key, following: StreamState) {
        let stream = self.streams.insert(following);
        self.expect_mut(key).state = State::Streaming(stream);
    }

    /// The read that waits on a client, or stays.
    pub(super) fn reader(&self, key: Key) -> Option<ReaderKey> {
        match self.slots.get(key)?.state {
            State::LongPolling { reader, .. } => Some(reader),
            State::Streaming(stream) => self.streams.get(stream).map(|following| following.reader),
            State::Reading | State::Writing(_) | State::Lingering | State::Closing => None,
        }
    }

    /// The client goes over to another state. Returns the read that waited on it, or stayed.
    pub(super) fn take_reader(&mut self, key: Key, state: State) -> Option<ReaderKey> {
        match mem::replace(&mut self.expect_mut(key).state, state) {
            State::LongPolling { reader, .. } => Some(reader),
            State::Streaming(stream) => {
                self.streams.remove(stream).map(|following| following.reader)
            }
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
    pub(super) fn active(&self) -> usize {
        self.slots.len() - self.rejected_count - self.admin_count
    }

    pub(super) fn rejected_count(&self) -> usize {
        self.rejected_count
    }

    /// How many are served by the admin door.
    pub(super) fn admin_count(&self) -> usize {
        self.admin_count
    }

    pub(super) fn mark_rejected(&mut self, key: Key) {
        self.release_address(self.slots.get(key).and_then(|client| self.limit_key(client)));
        self.expect_mut(key).is_rejected = true;
        self.rejected_count += 1;
    }

    /// Bytes that all take beside themselves: of those that were not counted since they changed, as it was then.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// Takes account of what a client takes now. Tells whether it is more than it was.
    pub(super) fn update_memory(&mut self, key: Key) -> bool {
        let Some(client) = self.slots.get_mut(key) else { return false };
        if client.has_no_buffers() && client.charged_bytes == 0 {
            return false;
        }
        let fragments = match client.state {
            State::Streaming(stream) => self.streams.get(stream).map_or(0, StreamState::memory),
            _ => 0,
        };
        let now = u32::try_from(client.memory() + fragments).unwrap_or(u32::MAX);
        let before = mem::replace(&mut client.charged_bytes, now);
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
            self.timers.cancel(timer);
        }
        client.fires_at = at;
        client.timer = Some(self.timers.set(at, key.index));
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.timers.next_deadline()
    }

    /// A client whose timer fired; its deadline may still be to come.
    pub(super) fn pop_due(&mut self, now: Millis) -> Option<Key> {
        let index = self.timers.pop(now)?;
        let key = self.slots.key_at(index).expect("a reaped client's timer is cancelled");
        self.expect_mut(key).timer = None;
        Some(key)
    }

    /// Has the client gone on with in the next turn, which comes at once.
    pub(super) fn schedule(&mut self, key: Key) {
        let client = self.expect_mut(key);
        if !client.is_scheduled {
            client.is_scheduled = true;
            self.run_queue.push_back(key);
        }
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.budget.begin_turn(!self.deferred_events.is_empty() || self.run_queue.len() > 1);
    }

    /// How many are ready. Those that become so meanwhile stand behind them, for the turn after.
    pub(super) fn scheduled_count(&self) -> usize {
        self.run_queue.len()
    }

    /// The one that has been ready longest, if it is still there.
    pub(super) fn pop_scheduled(&mut self) -> Option<Key> {
        let key = self.run_queue.pop_front()?;
        self.slots.get_mut(key)?.is_scheduled = false;
        Some(key)
    }

    /// Keeps what happened to a client for when there is time.
    pub(super) fn defer_event(&mut self, key: Key, event: Event) {
        let client = self.expect_mut(key);
        if let Some(late) = &mut client.deferred_event {
            late.merge(event);
        } else {
            client.deferred_event = Some(event);
            self.deferred_events.push_back(key);
        }
    }

    /// Whether there is more to do than there was time for.
    pub(super) fn has_work(&self) -> bool {
        !(self.run_queue.is_empty()
            && self.deferred_events.is_empty()
            && self.deferred_sends.is_empty())
    }

    /// To whom something happened first of those for whom there was no time, and what.
    pub(super) fn pop_deferred_event(&mut self) -> Option<(Key, Event)> {
        while let Some(key) = self.deferred_events.pop_front() {
            if let Some(event) =
                self.slots.get_mut(key).and_then(|client| client.deferred_event.take())
            {
                return Some((key, event));
            }
        }
        None
    }

    /// Whether a read that waited is sent its answer in this turn: there is time for it, and those before it in its lane
    /// were sent theirs.
    pub(super) fn has_send_budget(&self, lane: u32) -> bool {
        !self.deferred_sends.contains(lane) && self.budget.has_delivery_budget()
    }

    /// An answer of so many bytes was delivered to a client, or is to be.
    pub(super) fn account_delivery(&mut self, key: Key, lane: u32, bytes: usize, delivery: Sent) {
        match delivery {
            Sent::Now(_) => self.budget.charge_send(bytes),
            Sent::Deferred(payload) => self.deferred_sends.push(lane, (key, payload)),
        }
    }

    /// Has the client lost, with all that follows from it, once the hub can be told.
    pub(super) fn close_later(&mut self, key: Key) {
        self.pending_closes.push(key);
    }

    /// Has the hub told, once the delivery at hand is done, that a stream has enough to take.
    pub(super) fn pause_later(&mut self, key: Key) {
        self.pending_pauses.push(key);
    }

    pub(super) fn take_pending_pauses(&mut self) -> Vec<Key> {
        mem::take(&mut self.pending_pauses)
    }

    pub(super) fn take_pending_closes(&mut self) -> Vec<Key> {
        mem::take(&mut self.pending_closes)
    }

    /// Has the client reaped. Its state must be `Closing` already.
    pub(super) fn reap_later(&mut self, key: Key) {
        self.to_reap.push(key);
    }

    /// Counts them, and what belongs to them.
    pub(super) fn gauges(&self) -> Gauges {
        Gauges {
            clients: self.slots.len(),
            refused: self.rejected_count,
            streams: self.streams.len(),
            timers: self.timers.len(),
            ready: self.run_queue.len() + self.deferred_events.len() + self.deferred_sends.len(),
            addresses: self.per_address.len(),
            memory: self.memory,
            ..Gauges::default()
        }
    }

    /// Frees those that closed in this turn; dropping a socket closes it, and the poll forgets it.
    pub(super) fn reap(&mut self) {
        while let Some(key) = self.to_reap.pop() {
            self.remove(key);
        }
    }

    /// Takes a client out of all that knows of it, outside of its turns.
    pub(super) fn remove(&mut self, key: Key) -> Option<Client<S>> {
        let client = self.slots.remove(key)?;
        if let Some(timer) = client.timer {
            self.timers.cancel(timer);
        }
        self.rejected_count -= usize::from(client.is_rejected);
        self.admin_count -= usize::from(client.is_admin);
        self.memory -= client.charged_bytes as usize;
        self.release_address(self.limit_key(&client));
        Some(client)
    }
}
