//! Session tickets (RFC 8446, section 4.6.1), with keys that the next process takes over. Without
//! that, an upgrade would be followed by full handshakes only.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::ProducesTickets;

use super::clock::Clock;
use super::handshake::note_ticket;
use super::provider::random;

/// Age at which a key makes no more tickets. With random nonces a key may seal 2^32 tickets
/// (NIST SP 800-38D, section 8.3): at a handshake in 100 µs, these are 2^28.
const ROTATION_S: u64 = 6 * 60 * 60;

/// Age at which a key opens no more tickets: the limit on how long an attacker who gets it can read
/// what was recorded. A ticket from the end of a key's rotation lives for the other half.
const LIFETIME_S: u64 = 12 * 60 * 60;

const NAME_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
/// Encoded length of a key: its time, name and key.
const EXPORT_BYTES: usize = 8 + NAME_BYTES + KEY_BYTES;
const TAG_BYTES: usize = 16;

/// A ticket longer than this is not ours: the state of a session has some 100 bytes, the server
/// name of 253 at most, and the ALPN protocol.
const TICKET_BYTES_MAX: usize = 1024;

/// Key that seals and opens tickets.
#[derive(Clone, Copy)]
struct TicketKey {
    /// Unix time in seconds.
    created: u64,
    /// Sent with each ticket: tells which key opens it.
    name: [u8; NAME_BYTES],
    key: [u8; KEY_BYTES],
}

impl TicketKey {
    fn new(now: u64) -> Option<Self> {
        let (mut name, mut key) = ([0; NAME_BYTES], [0; KEY_BYTES]);
        random(&mut name)?;
        random(&mut key)?;
        Some(Self { created: now, name, key })
    }

    /// A clock that was set back makes a key old: better one rotation too many.
    fn age(&self, now: u64) -> u64 {
        now.checked_sub(self.created).unwrap_or(u64::MAX)
    }

    fn prepare(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &self.key).expect("32 bytes"))
    }

    fn seal(&self, state: &[u8]) -> Option<Vec<u8>> {
        // Random, since a counter would tell how many clients there are.
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce)?;
        let mut sealed = state.to_vec();
        let aad = Aad::from(self.name);
        self.prepare()
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .ok()?;
        Some([&self.name[..], &nonce, &sealed].concat())
    }

    fn open(&self, nonce: [u8; NONCE_LEN], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, mut state) = (Nonce::assume_unique_for_key(nonce), sealed.to_vec());
        let length =
            self.prepare().open_in_place(nonce, Aad::from(self.name), &mut state).ok()?.len();
        state.truncate(length);
        Some(state)
    }

    fn encode(&self) -> [u8; EXPORT_BYTES] {
        let bytes = [&self.created.to_be_bytes()[..], &self.name, &self.key].concat();
        bytes.try_into().expect("the lengths of its parts")
    }

    fn decode(bytes: &[u8; EXPORT_BYTES]) -> Self {
        let (created, rest) = bytes.split_first_chunk().expect("8 bytes");
        let (name, key) = rest.split_first_chunk().expect("a name");
        let key = key.try_into().expect("a key");
        Self { created: u64::from_be_bytes(*created), name: *name, key }
    }
}

/// The keys: the first makes tickets, all open them.
#[derive(Clone, Copy, Default)]
struct Keys([Option<TicketKey>; 2]);

/// Producer of tickets for all handshakes.
pub(super) struct Tickets {
    clock: Arc<Clock>,
    /// rustls wants a value that threads can share. One thread uses it, so it never waits.
    keys: Mutex<Keys>,
}

impl Tickets {
    pub(super) fn new(clock: Arc<Clock>) -> Self {
        Self { clock, keys: Mutex::default() }
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Encodes the keys for another process: the newest first.
    pub(super) fn export(&self) -> Vec<u8> {
        self.keys().0.iter().flatten().flat_map(TicketKey::encode).collect()
    }

    /// Takes over the keys of another process. Returns `false` if `bytes` are none.
    pub(super) fn import(&self, bytes: &[u8]) -> bool {
        let (keys, []) = bytes.as_chunks() else { return false };
        let mut imported = Keys::default();
        if keys.len() > imported.0.len() {
            return false;
        }
        for (place, key) in imported.0.iter_mut().zip(keys) {
            *place = Some(TicketKey::decode(key));
        }
        *self.keys() = imported;
        true
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        (LIFETIME_S - ROTATION_S) as u32
    }

    fn encrypt(&self, state: &[u8]) -> Option<Vec<u8>> {
        let (now, mut keys) = (self.clock.unix_s(), self.keys());
        let newest = keys.0[0].filter(|key| key.age(now) < ROTATION_S);
        let key = if let Some(key) = newest {
            key
        } else {
            let key = TicketKey::new(now)?;
            *keys = Keys([Some(key), keys.0[0]]);
            key
        };
        key.seal(state)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        if ticket.len() > TICKET_BYTES_MAX || sealed.len() < TAG_BYTES {
            return None;
        }
        let now = self.clock.unix_s();
        let keys = *self.keys();
        let key = keys.0.iter().flatten().find(|key| key.name == *name)?;
        note_ticket();
        (key.age(now) < LIFETIME_S).then(|| key.open(*nonce, sealed))?
    }
}

impl fmt::Debug for Tickets {
    /// Shows no keys.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tickets").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000;

    fn tickets() -> (Arc<Clock>, Tickets) {
        let clock = Arc::new(Clock::new(START));
        (Arc::clone(&clock), Tickets::new(clock))
    }

    #[test]
    fn a_ticket_opens_for_at_least_half_of_the_lifetime_of_its_key() {
        for age in [0, ROTATION_S - 1] {
            let (clock, tickets) = tickets();
            tickets.encrypt(b"the first one makes the key").unwrap();
            clock.set(START + age);
            let ticket = tickets.encrypt(b"session").unwrap();
            clock.set(START + age + u64::from(tickets.lifetime()));
            assert_eq!(tickets.decrypt(&ticket).unwrap(), b"session", "made at {age}");
            // Another key makes tickets now. The one before still opens some.
            tickets.encrypt(b"later").unwrap();
            assert_eq!(tickets.decrypt(&ticket).unwrap(), b"session", "made at {age}");
            clock.set(START + LIFETIME_S);
            assert_eq!(tickets.decrypt(&ticket), None, "made at {age}");
        }
    }

    #[test]
    fn a_key_that_is_two_rotations_old_is_dropped() {
        let (clock, tickets) = tickets();
        let mut names = Vec::new();
        for rotation in 0..3 {
            clock.set(START + rotation * ROTATION_S);
            names.push(tickets.encrypt(b"session").unwrap()[..NAME_BYTES].to_vec());
            assert!(tickets.export().len() <= 2 * EXPORT_BYTES);
        }
        names.dedup();
        assert_eq!(names.len(), 3);
        let kept = tickets.export();
        assert!(!kept.windows(NAME_BYTES).any(|name| name == names[0]));
    }

    #[test]
    fn a_clock_that_is_set_back_makes_a_new_key() {
        let (clock, tickets) = tickets();
        let ticket = tickets.encrypt(b"session").unwrap();
        clock.set(START - 1);
        assert_eq!(tickets.decrypt(&ticket), None);
        assert_ne!(tickets.encrypt(b"session").unwrap()[..NAME_BYTES], ticket[..NAME_BYTES]);
    }

    #[test]
    fn another_process_opens_tickets_with_the_keys_that_it_got() {
        let (clock, tickets) = tickets();
        let first = tickets.encrypt(b"first").unwrap();
        clock.set(START + ROTATION_S);
        let second = tickets.encrypt(b"second").unwrap();
        let successor = Tickets::new(Arc::clone(&clock));
        assert_eq!(successor.decrypt(&first), None);
        assert!(successor.import(&tickets.export()));
        assert_eq!(successor.decrypt(&first).unwrap(), b"first");
        assert_eq!(successor.decrypt(&second).unwrap(), b"second");
        assert_eq!(successor.encrypt(b"third").unwrap()[..NAME_BYTES], second[..NAME_BYTES]);
        for bytes in [&[0; EXPORT_BYTES - 1][..], &[0; EXPORT_BYTES + 1], &[0; 3 * EXPORT_BYTES]] {
            assert!(!successor.import(bytes));
        }
        assert_eq!(successor.decrypt(&first).unwrap(), b"first");
    }

    #[test]
    fn a_ticket_that_is_not_ours_is_refused() {
        let (_, tickets) = tickets();
        let ticket = tickets.encrypt(b"session").unwrap();
        for length in 0..ticket.len() {
            assert_eq!(tickets.decrypt(&ticket[..length]), None);
        }
        for byte in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[byte] ^= 1;
            assert_eq!(tickets.decrypt(&forged), None);
        }
        assert_eq!(tickets.decrypt(&[&ticket[..], &[0; TICKET_BYTES_MAX]].concat()), None);
    }

    #[test]
    fn the_same_state_makes_different_tickets() {
        let (_, tickets) = tickets();
        assert_ne!(tickets.encrypt(b"session").unwrap(), tickets.encrypt(b"session").unwrap());
    }
}
