//! A queue from one thread to another.
//!
//! `std::sync::mpsc` does the same with twenty times the code, for bounds and many senders.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A queue without a bound: its senders wait for a result of most of what they send.
pub(super) struct Mailbox<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    is_closed: bool,
}

/// The mailbox is closed and empty.
pub(super) struct Closed;

impl<T> Mailbox<T> {
    pub(super) fn new() -> Self {
        let state = State { items: VecDeque::new(), is_closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Appends an item. To be called before [`Self::close`].
    pub(super) fn send(&self, item: T) {
        let mut state = self.lock();
        assert!(!state.is_closed, "a closed mailbox takes nothing");
        state.items.push_back(item);
        self.changed.notify_one();
    }

    /// Ends the queue. What is in it stays available.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Takes the first item, if there is one.
    pub(super) fn try_receive(&self) -> Result<Option<T>, Closed> {
        let mut state = self.lock();
        match state.items.pop_front() {
            None if state.is_closed => Err(Closed),
            item => Ok(item),
        }
    }

    /// Waits for an item and takes it.
    pub(super) fn receive(&self) -> Result<T, Closed> {
        let mut state = self.lock();
        loop {
            match state.items.pop_front() {
                Some(item) => return Ok(item),
                None if state.is_closed => return Err(Closed),
                None => {}
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A panic cannot leave the queue in an invalid state.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn items_arrive_in_order_also_after_the_end() {
        let mailbox = Mailbox::new();
        assert!(matches!(mailbox.try_receive(), Ok(None)));
        mailbox.send(1);
        mailbox.send(2);
        mailbox.close();
        assert!(matches!(mailbox.try_receive(), Ok(Some(1))));
        assert!(matches!(mailbox.receive(), Ok(2)));
        assert!(mailbox.try_receive().is_err());
        assert!(mailbox.receive().is_err());
    }

    #[test]
    fn a_receiver_waits_for_items_and_for_the_end() {
        let mailbox = Mailbox::new();
        thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                let mut sum = 0;
                while let Ok(item) = mailbox.receive() {
                    sum += item;
                }
                sum
            });
            for item in 1..=100 {
                mailbox.send(item);
            }
            mailbox.close();
            assert_eq!(receiver.join().expect("no panic"), 5050);
        });
    }
}
