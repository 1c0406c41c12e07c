//! The table of clients.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem;
use std::num::NonZeroU32;

use super::budget::Budget;
use super::client::{Client, PendingRead, Sent, State};
use super::event::Event;
use super::fair_queue::FairQueue;
use super::gauges::Gauges;
use super::run_queue::RunQueue;
use super::socket::Socket;
use super::stream_state::StreamState;
use crate::api::SourceKey;
use crate::hub::{Key, Millis, ReaderKey, Slab, TimerWheel};

/// All clients, with their timers and the queues that a turn works through.
pub(super) struct ClientTable<S> {
    slots: Slab<Client<S>>,
    /// State of clients in [`State::Streaming`], in addition to what every client has.
    streams: Slab<StreamState>,
    /// At most one timer for each client, by the client's index.
    /// The key of a timer is the index of its client, plus 1: without a zero among the keys, a
    /// timer takes 24 bytes of its slab instead of 32.
    timers: TimerWheel<NonZeroU32>,
    /// Clients that the current turn is to serve, in this order.
    run_queue: RunQueue,
    /// Clients with more to do, which the next turn adds to the run queue.
    scheduled: Vec<Key>,
    /// Sends for which a turn had no budget.
    pub(super) deferred_sends: FairQueue,
    /// Budget of this turn.
    pub(super) budget: Budget,
    /// Clients in `Closing`, freed at the end of the turn.
    to_reap: Vec<Key>,
    /// Clients to close after the delivery in progress, which may not call back into the hub.
    pending_closes: Vec<Key>,
    /// Streams to pause after the delivery in progress, because they have unsent bytes.
    pending_pauses: Vec<Key>,
    /// Clients accepted only to be sent an error.
    rejected_count: usize,
    /// Clients of the admin listener.
    admin_count: usize,
    /// Clients in their handshakes.
    handshake_count: usize,
    /// Bytes in the buffers of all clients, each as of its last count.
    memory: usize,
    /// Clients allowed at once from one address; 0 for no limit.
    max_per_address: usize,
    /// Clients from each address, if there is a limit. Proxies are not counted: they connect for
    /// many clients.
    per_address: HashMap<SourceKey, usize>,
}

impl<S: Socket> ClientTable<S> {
    /// Creates an empty table.
    pub(super) fn new(max_per_address: usize, now: Millis) -> Self {
        Self {
            slots: Slab::default(),
            streams: Slab::default(),
            timers: TimerWheel::new(now),
            run_queue: RunQueue::default(),
            scheduled: Vec::new(),
            deferred_sends: FairQueue::default(),
            budget: Budget::default(),
            to_reap: Vec::new(),
            pending_closes: Vec::new(),
            pending_pauses: Vec::new(),
            rejected_count: 0,
            admin_count: 0,
            handshake_count: 0,
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
        self.handshake_count += usize::from(client.is_handshaking);
        let deadline = client.deadline;
        let key = self.slots.insert(client);
        self.set_deadline(key, deadline);
        key
    }

    /// Notes that the handshake of a client is over.
    pub(super) fn end_handshake(&mut self, key: Key) {
        let client = self.expect_mut(key);
        if mem::take(&mut client.is_handshaking) {
            self.handshake_count -= 1;
        }
    }

    /// Returns the number of clients in their handshakes.
    pub(super) fn handshake_count(&self) -> usize {
        self.handshake_count
    }

    /// Returns whether a client that is already in the table exceeds the limit of its address.
    pub(super) fn exceeds_address_limit(&self, key: Key) -> bool {
        let address = self.slots.get(key).and_then(|client| self.limit_key(client));
        address.is_some_and(|address| self.per_address[&address] > self.max_per_address)
    }

    /// Returns the address under which a client is counted, or `None` if it is not counted.
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

    /// Returns the client of a key that was looked up before in the same turn.
    ///
    /// # Panics
    ///
    /// If there is no such client. Clients are freed only at the end of a turn.
    pub(super) fn expect_mut(&mut self, key: Key) -> &mut Client<S> {
        self.slots.get_mut(key).expect("clients are reaped only at the end of a turn")
    }

    /// Returns a client in [`State::Streaming`] and its stream, or `None` in any other state.
    pub(super) fn stream_mut(&mut self, key: Key) -> Option<(&mut Client<S>, &mut StreamState)> {
        let client = self.slots.get_mut(key)?;
        let State::Streaming(stream) = *client.state() else { return None };
        Some((client, self.streams.get_mut(stream)?))
    }

    /// Moves a client to [`State::Streaming`].
    pub(super) fn start_stream(&mut self, key: Key, stream: StreamState) {
        let stream = self.streams.insert(stream);
        self.expect_mut(key).start_stream(stream);
    }

    /// Returns the reader of a client's long poll or stream.
    pub(super) fn reader(&self, key: Key) -> Option<ReaderKey> {
        match self.slots.get(key)?.state().pending_read() {
            PendingRead::LongPoll(reader) => Some(reader),
            PendingRead::Stream(stream) => self.streams.get(stream).map(|stream| stream.reader),
            PendingRead::None => None,
        }
    }

    /// Ends a client's stream, as [`Client::end_stream`] does, and frees its state. Returns its
    /// reader.
    pub(super) fn end_stream(&mut self, key: Key) -> Option<ReaderKey> {
        let read = self.expect_mut(key).end_stream();
        self.free_read(read)
    }

    /// Closes a client, which is freed at the end of the turn. Returns the reader of its long poll
    /// or stream: the caller removes it from the hub.
    pub(super) fn close(&mut self, key: Key) -> Option<ReaderKey> {
        let read = self.expect_mut(key).close();
        self.reap_later(key);
        self.free_read(read)
    }

    fn free_read(&mut self, read: PendingRead) -> Option<ReaderKey> {
        match read {
            PendingRead::LongPoll(reader) => Some(reader),
            PendingRead::Stream(stream) => self.streams.remove(stream).map(|stream| stream.reader),
            PendingRead::None => None,
        }
    }

    pub(super) fn key_at(&self, index: u32) -> Option<Key> {
        self.slots.key_at(index)
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

    /// Returns the number of clients of the public listeners, without rejected clients.
    pub(super) fn active(&self) -> usize {
        self.slots.len() - self.rejected_count - self.admin_count
    }

    pub(super) fn rejected_count(&self) -> usize {
        self.rejected_count
    }

    pub(super) fn admin_count(&self) -> usize {
        self.admin_count
    }

    pub(super) fn mark_rejected(&mut self, key: Key) {
        self.release_address(self.slots.get(key).and_then(|client| self.limit_key(client)));
        self.expect_mut(key).is_rejected = true;
        self.rejected_count += 1;
    }

    /// Returns the bytes in the buffers of all clients, each as of its last
    /// [`ClientTable::update_memory`], and of their deferred sends.
    pub(super) fn memory(&self) -> usize {
        self.memory + self.deferred_sends.memory()
    }

    /// Counts the bytes in a client's buffers. Returns whether they have grown since the last
    /// count.
    pub(super) fn update_memory(&mut self, key: Key) -> bool {
        let Some(client) = self.slots.get_mut(key) else { return false };
        if client.has_no_buffers() && client.charged_bytes == 0 {
            return false;
        }
        self.count_memory(key)
    }

    /// Does that for a client that may have buffers. Not inlined: its frame would cost the others.
    #[inline(never)]
    fn count_memory(&mut self, key: Key) -> bool {
        let client = self.slots.get_mut(key).expect("the caller has found it");
        let fragments = match *client.state() {
            State::Streaming(stream) => self.streams.get(stream).map_or(0, StreamState::memory),
            _ => 0,
        };
        let now = u32::try_from(client.memory() + fragments).unwrap_or(u32::MAX);
        let before = mem::replace(&mut client.charged_bytes, now);
        self.memory = self.memory + now as usize - before as usize;
        now > before
    }

    /// Sets the time at which the client is checked. A later deadline than before is only stored:
    /// the timer then fires early and is set again, which costs less than moving it with every
    /// request.
    pub(super) fn set_deadline(&mut self, key: Key, at: Millis) {
        let Some(client) = self.slots.get_mut(key) else { return };
        let before = mem::replace(&mut client.deadline, at);
        // The timer never fires later than the deadline before: the usual case needs no lookup.
        if let Some(timer) = client.timer
            && (before <= at || self.timers.deadline(timer) <= at)
        {
            return;
        }
        self.set_timer(key, at);
    }

    /// Makes the timer of a client fire at this time. Not inlined: its frame would cost the calls
    /// that only store a deadline.
    #[inline(never)]
    fn set_timer(&mut self, key: Key, at: Millis) {
        let client = self.slots.get_mut(key).expect("the caller has found it");
        if let Some(timer) = client.timer {
            self.timers.cancel(timer);
        }
        let timer_key = NonZeroU32::MIN.saturating_add(key.index);
        client.timer = Some(self.timers.set(at, timer_key));
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.timers.next_deadline()
    }

    /// Returns the next client whose timer fires. The client's deadline may be later.
    pub(super) fn pop_due(&mut self, now: Millis) -> Option<Key> {
        let index = self.timers.pop(now)?.get() - 1;
        let key = self.slots.key_at(index).expect("the timer of a freed client is cancelled");
        self.expect_mut(key).timer = None;
        Some(key)
    }

    /// Schedules a client: the next turn begins at once and handles its input.
    pub(super) fn schedule(&mut self, key: Key) {
        let client = self.expect_mut(key);
        client.is_scheduled = true;
        if !mem::replace(&mut client.is_queued, true) {
            self.scheduled.push(key);
        }
    }

    /// Stores an event until the client's place in the run queue. Ignores the event if the client
    /// has been freed.
    pub(super) fn defer_event(&mut self, key: Key, event: Event) {
        let Some(client) = self.slots.get_mut(key) else { return };
        client.deferred_events.add(event);
        if !mem::replace(&mut client.is_queued, true) {
            self.run_queue.push(client.address, client.weight(), key);
        }
    }

    /// Begins a turn.
    pub(super) fn begin_turn(&mut self) {
        if !self.scheduled.is_empty() {
            self.queue_scheduled();
        }
        self.budget.begin_turn(self.run_queue.len() > 1);
    }

    fn queue_scheduled(&mut self) {
        for key in mem::take(&mut self.scheduled) {
            if let Some(client) = self.slots.get_mut(key) {
                self.run_queue.push(client.address, client.weight(), key);
            }
        }
    }

    /// Takes the next client from the run queue, with its event.
    pub(super) fn pop_queued(&mut self) -> Option<(Key, Option<Event>)> {
        loop {
            let key = self.run_queue.pop()?;
            // The client may have been freed.
            if let Some(client) = self.slots.get_mut(key) {
                client.is_queued = false;
                return Some((key, client.deferred_events.take()));
            }
        }
    }

    /// Returns whether any client is in the run queue of this turn.
    pub(super) fn has_queued(&self) -> bool {
        !self.run_queue.is_empty()
    }

    /// Returns whether any work is left for the next turn.
    pub(super) fn has_work(&self) -> bool {
        !(self.run_queue.is_empty() && self.scheduled.is_empty() && self.deferred_sends.is_empty())
    }

    /// Returns whether a send for a reader of `channel` may be made in this turn: there is budget,
    /// and no earlier send of the same channel is deferred.
    pub(super) fn has_send_budget(&self, channel: u32) -> bool {
        !self.deferred_sends.contains(channel) && self.budget.has_delivery_budget()
    }

    /// Charges a send of `bytes` bytes that was made, or queues one that was deferred.
    pub(super) fn account_delivery(&mut self, key: Key, channel: u32, bytes: usize, sent: Sent) {
        match sent {
            Sent::Now(_) => self.budget.charge_send(bytes),
            Sent::Deferred(deferred) => self.deferred_sends.push(channel, (key, deferred)),
        }
    }

    /// Makes the service close the client after the delivery in progress, when it can call the hub
    /// again.
    pub(super) fn close_later(&mut self, key: Key) {
        self.pending_closes.push(key);
    }

    /// Makes the service pause the stream after the delivery in progress.
    pub(super) fn pause_later(&mut self, key: Key) {
        self.pending_pauses.push(key);
    }

    pub(super) fn take_pending_pauses(&mut self) -> Vec<Key> {
        mem::take(&mut self.pending_pauses)
    }

    pub(super) fn take_pending_closes(&mut self) -> Vec<Key> {
        mem::take(&mut self.pending_closes)
    }

    /// Frees the client at the end of the turn. Its state must be `Closing`.
    pub(super) fn reap_later(&mut self, key: Key) {
        self.to_reap.push(key);
    }

    pub(super) fn gauges(&self) -> Gauges {
        Gauges {
            clients: self.slots.len(),
            rejected: self.rejected_count,
            streams: self.streams.len(),
            timers: self.timers.len(),
            deferred: self.run_queue.len() + self.scheduled.len() + self.deferred_sends.len(),
            addresses: self.per_address.len(),
            memory: self.memory(),
            ..Gauges::default()
        }
    }

    /// Frees the clients that closed in this turn. Dropping a socket closes it, and removes it from
    /// the poll.
    pub(super) fn reap(&mut self) {
        while let Some(key) = self.to_reap.pop() {
            self.remove(key);
        }
    }

    /// Removes a client and its timer. Must not be called while an event of the client is handled.
    pub(super) fn remove(&mut self, key: Key) -> Option<Client<S>> {
        let client = self.slots.remove(key)?;
        if let Some(timer) = client.timer {
            self.timers.cancel(timer);
        }
        self.rejected_count -= usize::from(client.is_rejected);
        self.admin_count -= usize::from(client.is_admin);
        self.handshake_count -= usize::from(client.is_handshaking);
        self.memory -= client.charged_bytes as usize;
        self.release_address(self.limit_key(&client));
        Some(client)
    }
}
