//! Who arrives at the doors: taken in, turned away, or shed where there is no descriptor for them.

use std::fmt;
use std::io;
use std::net::IpAddr;

use super::conversation::Conversation;
use super::limits::FILES_RESERVED;
use super::listener::{Audience, Listener};
use crate::api::Error;
use crate::hub::{Key, Millis};
use crate::metrics::Refused;

/// Connections accepted in one turn, from all doors: newcomers wait a little where others are being served.
pub const ACCEPTS_A_TURN: usize = 256;

/// How long to leave the doors alone when there are no descriptors. The backlog of the kernel holds who comes.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Clients at once that are there only to read that there is no room, and may take their time. Those beyond are told so too,
/// and closed at once.
pub const REFUSED_MAX: usize = FILES_RESERVED / 2;

/// Clients at once by the admin door: some scrapers, and an operator who looks. They are not to take the public's room.
pub const OPERATORS_MAX: usize = FILES_RESERVED / 8;

/// What a client is told that is one too many.
const NO_ROOM: Error = Error::OverCapacity("this server has as many clients as it may: try again later");
const TOO_MANY_OF_ONE: Error = Error::TooManyRequests("your address has as many clients here as it may", 1);

/// The doors, and what is decided about those who come in.
pub(super) struct Newcomers<L: Listener> {
    doors: Vec<Door<L>>,
    max_clients: usize,
    /// Given up for a moment to accept, and close, a client for whom there is no descriptor.
    spare: Option<L::Spare>,
    /// Doors are left alone until then.
    accept_after: Option<Millis>,
    /// When to say again that there are no descriptors.
    next_warning: Millis,
}

struct Door<L> {
    listener: L,
    /// A connection may be there to accept; cleared when there is none.
    has_arrivals: bool,
}

impl<L: Listener> Newcomers<L> {
    pub(super) fn new(listeners: Vec<L>, max_clients: usize) -> Self {
        let mut doors: Vec<_> = listeners.into_iter().map(|listener| Door { listener, has_arrivals: false }).collect();
        let spare = doors.first_mut().and_then(|door| door.listener.spare());
        Self { doors, max_clients, spare, accept_after: None, next_warning: Millis(0) }
    }

    /// Somebody may be at this door.
    pub(super) fn arrive(&mut self, place: usize) {
        if let Some(door) = self.doors.get_mut(place) {
            door.has_arrivals = true;
        }
    }

    /// Whether somebody can be let in without waiting.
    pub(super) fn are_there(&self) -> bool {
        self.accept_after.is_none() && self.doors.iter().any(|door| door.has_arrivals)
    }

    /// When to look at the doors again that were left alone.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.accept_after
    }

    pub(super) fn max_clients(&self) -> usize {
        self.max_clients
    }

    pub(super) fn listeners(&self) -> impl Iterator<Item = &L> {
        self.doors.iter().map(|door| &door.listener)
    }

    pub(super) fn listeners_mut(&mut self) -> impl Iterator<Item = &mut L> {
        self.doors.iter_mut().map(|door| &mut door.listener)
    }

    /// Nobody comes in any more.
    pub(super) fn close(&mut self) {
        self.doors.clear();
        self.accept_after = None;
    }

    /// Lets in who is there, as many as a turn has time for. `watch` has events of a socket told under its key.
    pub(super) fn accept(
        &mut self,
        now: Millis,
        conversation: &mut Conversation<L::Socket>,
        mut watch: impl FnMut(&mut L::Socket, Key) -> io::Result<()>,
    ) {
        if self.accept_after.is_some_and(|at| at > now) {
            return;
        }
        self.accept_after = None;
        // As in most turns.
        if !self.are_there() {
            return;
        }
        // However many come, whoever looks after the server gets in.
        for (audience, mut budget) in [(Audience::Operator, OPERATORS_MAX), (Audience::Public, ACCEPTS_A_TURN)] {
            self.accept_of(audience, &mut budget, now, conversation, &mut watch);
        }
    }

    fn accept_of(
        &mut self,
        audience: Audience,
        budget: &mut usize,
        now: Millis,
        conversation: &mut Conversation<L::Socket>,
        watch: &mut impl FnMut(&mut L::Socket, Key) -> io::Result<()>,
    ) {
        for place in 0..self.doors.len() {
            if self.doors[place].listener.audience() != audience {
                continue;
            }
            while self.doors[place].has_arrivals && *budget > 0 && self.accept_after.is_none() {
                match self.doors[place].listener.accept() {
                    Ok((socket, address)) => self.admit(conversation, audience, (socket, address), watch),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.doors[place].has_arrivals = false,
                    Err(error) if is_out_of_room(&error) => self.shed(conversation, place, now, &error),
                    // The one that was to be accepted is gone; others may be there.
                    Err(_) => {}
                }
                *budget -= 1;
            }
        }
    }

    /// Takes a client in, if there is room; else tells it so, if there is room for that.
    fn admit(
        &mut self,
        conversation: &mut Conversation<L::Socket>,
        audience: Audience,
        (socket, address): (L::Socket, Option<IpAddr>),
        watch: &mut impl FnMut(&mut L::Socket, Key) -> io::Result<()>,
    ) {
        let now = conversation.io.now.mono;
        if audience == Audience::Operator {
            if conversation.io.clients.operators() < OPERATORS_MAX {
                let key = conversation.admit_operator(socket);
                self.watch(conversation, key, now, watch);
            }
            return;
        }
        let has_room = conversation.io.clients.served() < self.max_clients;
        if !has_room {
            conversation.metrics.count_refused(Refused::MaxClients);
            if conversation.io.clients.refused() >= REFUSED_MAX {
                return conversation.brush_off(socket, NO_ROOM);
            }
        }
        let key = conversation.admit(socket, address);
        if self.watch(conversation, key, now, watch) == Watched::Gone {
            if has_room {
                conversation.metrics.count_refused(Refused::Descriptors);
            }
        } else if !has_room {
            conversation.turn_away(key, NO_ROOM);
        } else if conversation.io.clients.is_too_many(key) {
            conversation.metrics.count_refused(Refused::MaxPerAddress);
            if conversation.io.clients.refused() < REFUSED_MAX {
                conversation.turn_away(key, TOO_MANY_OF_ONE);
            } else {
                conversation.dismiss_with(key, TOO_MANY_OF_ONE);
            }
        }
    }

    /// Has events told of a client that was just taken in; where that cannot be, it goes.
    fn watch(
        &mut self,
        conversation: &mut Conversation<L::Socket>,
        key: Key,
        now: Millis,
        watch: &mut impl FnMut(&mut L::Socket, Key) -> io::Result<()>,
    ) -> Watched {
        let Err(error) = watch(&mut conversation.io.clients.the(key).socket, key) else { return Watched::Stays };
        conversation.dismiss(key);
        self.warn(now, format_args!("cannot watch a new client: {error}"));
        Watched::Gone
    }

    /// Tells the next arrival that there is no descriptor for it, closes it, and leaves the doors alone for a while.
    fn shed(&mut self, conversation: &mut Conversation<L::Socket>, place: usize, now: Millis, error: &io::Error) {
        // Most likely EMFILE: retrying at once would spin. The spare descriptor lets one know that it is not wanted.
        self.spare = None;
        let listener = &mut self.doors[place].listener;
        if let Ok((socket, _)) = listener.accept()
            && listener.audience() == Audience::Public
        {
            conversation.metrics.count_refused(Refused::Descriptors);
            conversation.brush_off(socket, NO_ROOM);
        }
        self.spare = listener.spare();
        self.accept_after = Some(now.after(ACCEPT_PAUSE_MS));
        let advice = "raise the limit on open files, or set --max-clients";
        self.warn(now, format_args!("cannot accept more clients ({error}): {advice}"));
    }

    /// Says that there is no room, once a second at most.
    fn warn(&mut self, now: Millis, text: fmt::Arguments<'_>) {
        if now >= self.next_warning {
            self.next_warning = now.after(1_000);
            log::warn!("{text}");
        }
    }
}

/// Whether events of a newcomer will be told.
#[derive(PartialEq, Eq)]
enum Watched {
    Stays,
    Gone,
}

fn is_out_of_room(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}
