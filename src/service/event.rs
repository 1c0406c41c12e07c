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
    const READABLE: u32 = 1;
    const WRITABLE: u32 = 2;
    const READ_CLOSED: u32 = 3;
    const ERROR: u32 = 4;

    /// Adds an event.
    pub(super) fn add(&mut self, event: Event) {
        let Event { is_readable, is_writable, is_read_closed, is_error } = event;
        self.0 |= Self::ANY
            | u8::from(is_readable) << Self::READABLE
            | u8::from(is_writable) << Self::WRITABLE
            | u8::from(is_read_closed) << Self::READ_CLOSED
            | u8::from(is_error) << Self::ERROR;
    }

    /// Removes the events, and returns them as one. `None` if there was none.
    pub(super) fn take(&mut self) -> Option<Event> {
        let bits = std::mem::take(&mut self.0);
        let has = |bit: u32| bits >> bit & 1 != 0;
        (bits != 0).then_some(Event {
            is_readable: has(Self::READABLE),
            is_writable: has(Self::WRITABLE),
            is_read_closed: has(Self::READ_CLOSED),
            is_error: has(Self::ERROR),
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
