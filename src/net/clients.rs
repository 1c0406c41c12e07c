//! All clients: who is there, who has a deadline, who is to be gone on with, who is to be reaped.

use std::mem;

use super::client::{Client, Socket};
use crate::hub::{Key, Millis, Slots, TimerWheel};

/// The clients and the lists that a turn of the loop works through.
pub(super) struct Clients {
    slots: Slots<Client>,
    /// One timer for each client at most, by place.
    wheel: TimerWheel<u32>,
    /// Those whose work a budget cut short, or who have input that arrived while they waited.
    ready: Vec<Key>,
    closing: Vec<Key>,
    /// Those that are to be lost once the delivery at hand is done.
    doomed: Vec<Key>,
    /// Streams that the delivery at hand gave so much that they get no more before they have taken it.
    overloaded: Vec<Key>,
    /// How many are there only to be told that there is no room.
    refused: usize,
}

impl Clients {
    pub(super) fn new() -> Self {
        Self {
            slots: Slots::default(),
            wheel: TimerWheel::new(Millis(0)),
            ready: Vec::new(),
            closing: Vec::new(),
            doomed: Vec::new(),
            overloaded: Vec::new(),
            refused: 0,
        }
    }

    pub(super) fn insert(&mut self, socket: Socket, deadline: Millis) -> Key {
        let key = self.slots.insert(Client::new(socket, deadline));
        self.set_deadline(key, deadline);
        key
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Client> {
        self.slots.get_mut(key)
    }

    /// The client of a key that was looked up before in the same step.
    pub(super) fn the(&mut self, key: Key) -> &mut Client {
        self.slots.get_mut(key).expect("clients are reaped only at the end of a turn")
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.slots.keys().collect()
    }

    /// How many are served, those not counted that are merely refused.
    pub(super) fn served(&self) -> usize {
        self.slots.len() - self.refused
    }

    pub(super) fn refused(&self) -> usize {
        self.refused
    }

    pub(super) fn mark_refused(&mut self, key: Key) {
        self.the(key).is_refused = true;
        self.refused += 1;
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
            self.ready.push(key);
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Those that are ready now; others that become so meanwhile are for the turn after.
    pub(super) fn take_ready(&mut self) -> Vec<Key> {
        let ready = mem::take(&mut self.ready);
        for key in &ready {
            if let Some(client) = self.slots.get_mut(*key) {
                client.is_ready = false;
            }
        }
        ready
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

    pub(super) fn has_doomed(&self) -> bool {
        !self.doomed.is_empty()
    }

    pub(super) fn take_doomed(&mut self) -> Vec<Key> {
        mem::take(&mut self.doomed)
    }

    /// Has the client reaped. Its state must be `Closing` already.
    pub(super) fn reap_later(&mut self, key: Key) {
        self.closing.push(key);
    }

    /// Frees those that closed in this turn; dropping a socket closes it, and the poll forgets it.
    pub(super) fn reap(&mut self) {
        for key in self.closing.drain(..) {
            let Some(client) = self.slots.remove(key) else { continue };
            if let Some(timer) = client.timer {
                self.wheel.cancel(timer);
            }
            self.refused -= usize::from(client.is_refused);
        }
    }
}
