//! The sessions of all clients with TLS, in pages that are freed as soon as they are empty.
//!
//! In a block of its own, each session would have the allocator's overhead, and glibc would keep
//! the blocks of a crowd that has left. So a client has only a number: four bytes.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::rc::Rc;

use super::session::Session;
use crate::hub::PagedSlab;

thread_local! {
    /// Sessions of this thread's clients. No call on one session leads to another.
    static SESSIONS: RefCell<PagedSlab<Session>> = const { RefCell::new(PagedSlab::new()) };
}

/// The only owner of a session, in the thread that has made it. Dropping it frees the session.
pub(super) struct SessionHandle {
    /// Index of the session, plus 1: without a zero, `Option<SessionHandle>` is no larger.
    number: NonZeroU32,
    /// Keeps the handle in its thread.
    thread: PhantomData<Rc<()>>,
}

impl SessionHandle {
    pub(super) fn new(session: Session) -> Self {
        let index = SESSIONS.with_borrow_mut(|sessions| sessions.insert(session));
        Self { number: NonZeroU32::MIN.saturating_add(index), thread: PhantomData }
    }

    fn index(&self) -> u32 {
        self.number.get() - 1
    }

    /// Calls `act` with the session. Not inlined, as the functions of [`Session`].
    #[inline(never)]
    pub(super) fn with<T>(&self, act: impl FnOnce(&Session) -> T) -> T {
        SESSIONS.with_borrow(|sessions| act(&sessions[self.index()]))
    }

    /// Calls `act` with the session, for a change.
    #[inline(never)]
    pub(super) fn with_mut<T>(&mut self, act: impl FnOnce(&mut Session) -> T) -> T {
        SESSIONS.with_borrow_mut(|sessions| act(&mut sessions[self.index()]))
    }
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        // The session is dropped after the borrow.
        let _session = SESSIONS.with_borrow_mut(|sessions| sessions.remove(self.index()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the pages that are in use, besides the first one, which stays.
    fn upper_pages() -> usize {
        SESSIONS.with_borrow(|sessions| sessions.pages_in_use().saturating_sub(1))
    }

    #[test]
    fn the_memory_of_a_crowd_returns_when_it_leaves() {
        let stays = SessionHandle::new(Session::Over);
        let crowd: Vec<_> = (0..5_000).map(|_| SessionHandle::new(Session::Failed)).collect();
        assert!(upper_pages() > 5);
        assert!(stays.with(|session| matches!(session, Session::Over)));
        drop(crowd);
        assert_eq!(upper_pages(), 0);
    }

    #[test]
    fn a_handle_is_as_small_as_its_absence() {
        assert_eq!(size_of::<Option<SessionHandle>>(), 4);
    }
}
