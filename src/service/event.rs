//! Events of clients' sockets.

/// Readiness of a client's socket, as the poll reports it.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// There may be bytes to read.
    pub is_readable: bool,
    /// The kernel's buffer may take bytes.
    pub is_writable: bool,
    /// The peer has closed its sending direction.
    pub is_read_closed: bool,
    /// The peer has reset the TCP connection, or cannot be reached.
    pub is_error: bool,
}

/// Events of one socket until they are handled, merged, in one byte: each client has room for them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DeferredEvents(u8);

impl DeferredEvents {
    const ANY: u8 = 1;
    const READABLE: u8 = 2;
    const WRITABLE: u8 = 4;
    const READ_CLOSED: u8 = 8;
    const ERROR: u8 = 16;

    /// Adds an event.
    pub(super) fn add(&mut self, event: Event) {
        let Event { is_readable, is_writable, is_read_closed, is_error } = event;
        let flags = [
            (is_readable, Self::READABLE),
            (is_writable, Self::WRITABLE),
            (is_read_closed, Self::READ_CLOSED),
            (is_error, Self::ERROR),
        ];
        let set = flags.into_iter().filter(|(is_set, _)| *is_set);
        self.0 |= set.fold(Self::ANY, |bits, (_, bit)| bits | bit);
    }

    /// Removes the events, and returns them as one. `None` if there was none.
    pub(super) fn take(&mut self) -> Option<Event> {
        let bits = std::mem::take(&mut self.0);
        (bits != 0).then_some(Event {
            is_readable: bits & Self::READABLE != 0,
            is_writable: bits & Self::WRITABLE != 0,
            is_read_closed: bits & Self::READ_CLOSED != 0,
            is_error: bits & Self::ERROR != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deferred_events_become_one() {
        let event = |bits: [bool; 4]| {
            let [is_readable, is_writable, is_read_closed, is_error] = bits;
            Event { is_readable, is_writable, is_read_closed, is_error }
        };
        let mut deferred = DeferredEvents::default();
        assert!(deferred.take().is_none());
        for index in 0..4 {
            let mut bits = [false; 4];
            deferred.add(event(bits));
            bits[index] = true;
            deferred.add(event(bits));
            deferred.add(event([true, false, false, false]));
            bits[0] = true;
            let taken = deferred.take().unwrap();
            let taken =
                [taken.is_readable, taken.is_writable, taken.is_read_closed, taken.is_error];
            assert_eq!(taken, bits);
            assert!(deferred.take().is_none());
        }
    }
}
