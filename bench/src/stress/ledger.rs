//! The book that everything seen is checked against. Knows no sockets and no clock.
//!
//! Whoever reads a message shows it here ([`Ledger::sight`]); the first sight of an id fixes what is under it, and all
//! later ones must be the same. As soon as all ids before it were seen too, it is judged in its order: whether the one who spoke
//! it spoke it once and in order, whether who says goodbye was there and meant to go.
//!
//! What it holds is bounded: the last [`WINDOW`] ids of each room, and who is there.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::connection::{Connection, ExpectedEnd, Reason, STAMP_SLACK_MS, Verdict};
use super::said::Parsed;

/// So many ids of a room are remembered: many times what the server retains.
const WINDOW: usize = 1_500;
/// So many of them are told of a room that is at fault.
const TOLD: usize = 25;
/// The room of what is said to all rooms of a connection, which only a goodbye is.
pub(super) const EVERY_ROOM: u32 = u32::MAX;
/// No reader is ever so far ahead of the others.
const AHEAD_MAX: u64 = 100_000;

/// Something that must not be.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) room: Option<u32>,
    pub(super) what: String,
}

pub(super) type Checked<T = ()> = Result<T, Fault>;

impl Fault {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { room: None, what: what.into() }
    }

    pub(super) fn within(room: u32, what: impl Into<String>) -> Self {
        Self { room: Some(room), what: what.into() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Kind {
    Message,
    Introduction,
    Goodbye(Reason),
}

/// A message as a reader got it.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) id: u64,
    pub(super) kind: Kind,
    pub(super) time: u64,
    pub(super) from: Option<u64>,
    pub(super) text: Option<&'a str>,
}

/// What is remembered of a message.
#[derive(Clone, Copy, Debug)]
struct Entry {
    kind: Kind,
    time: u64,
    from: Option<u64>,
    said: Option<Parsed>,
    /// Of all of it.
    hash: u64,
}

/// Who is in a room: the newest introduction.
#[derive(Clone, Copy, Debug)]
struct Present {
    id: u64,
    said: Option<Parsed>,
}

struct Room {
    /// The id of the first entry of `log`.
    base: u64,
    log: VecDeque<Option<Entry>>,
    /// All before this id are judged.
    frontier: u64,
    /// What must be under ids that are not judged yet, as calls were answered.
    expected: BTreeMap<u64, (Kind, Parsed)>,
    present: BTreeMap<u64, Present>,
    /// The last word of each voice.
    last_seqs: HashMap<u32, u32>,
    /// Ids were missed by everybody: who is present is known again only when all have left.
    is_uncertain: bool,
}

/// A goodbye that is a fault, unless the machine was too slow to keep somebody alive, or an answer crossed a closing.
#[derive(Debug)]
pub(super) struct Suspect {
    pub(super) fault: Fault,
    /// When a read was closed, and with which cursors.
    crossing: Option<(u64, Vec<(u32, u64)>)>,
}

pub(super) struct Ledger {
    rooms: Vec<Room>,
    connections: HashMap<u64, Connection>,
    /// What must never be seen: requests that were refused.
    never: HashSet<(u32, u32)>,
    pub(super) suspects: Vec<Suspect>,
    pub(super) timeout_ms: u64,
    pub(super) history: u64,
    pub(super) sights: u64,
    /// Goodbyes by reason, as judged.
    pub(super) goodbyes: BTreeMap<Reason, u64>,
    pub(super) introductions: u64,
    pub(super) unseen_ids: u64,
}

impl Ledger {
    pub(super) fn new(rooms: usize, history: u64, timeout_ms: u64) -> Self {
        Self {
            rooms: (0..rooms).map(|_| Room::new(1)).collect(),
            connections: HashMap::new(),
            never: HashSet::new(),
            suspects: Vec::new(),
            timeout_ms,
            history,
            sights: 0,
            goodbyes: BTreeMap::new(),
            introductions: 0,
            unseen_ids: 0,
        }
    }

    /// Ids begin anew and nobody is introduced: the server was started without what it knew.
    pub(super) fn forget_all(&mut self) {
        for room in &mut self.rooms {
            *room = Room::new(1);
        }
        self.connections.clear();
        self.never.clear();
        self.suspects.clear();
    }

    /// Nothing is under way: words of the past and who has gone need not be remembered any more.
    pub(super) fn forget_senders(&mut self) {
        for room in &mut self.rooms {
            room.last_seqs.clear();
            room.last_seqs.shrink_to(64);
        }
        self.never.clear();
        self.connections.retain(|_, it| it.ended.is_none() || it.present > 0);
    }

    /// A call was answered with this id: what it said must be there.
    pub(super) fn answered(&mut self, id: u64, kind: Kind, said: Parsed) -> Checked {
        let room = &mut self.rooms[said.room as usize];
        if id >= room.frontier {
            if let Some(other) = room.expected.insert(id, (kind, said)) {
                return Err(Fault::within(
                    said.room,
                    format!("id {id} was given to {other:?} and to {said:?}"),
                ));
            }
            return Ok(());
        }
        match room.entry(id) {
            Some(entry) if entry.kind != kind || entry.said != Some(said) => {
                let what = format!(
                    "a call that said {said:?} was answered with id {id}, and there stands {entry:?}"
                );
                Err(Fault::within(said.room, what))
            }
            _ => Ok(()),
        }
    }

    /// A request was refused: what it would have said must not appear.
    pub(super) fn refused(&mut self, said: Parsed) {
        self.never.insert((said.voice, said.seq));
    }

    /// An introduction was answered.
    pub(super) fn introduced(
        &mut self,
        number: u64,
        is_new: bool,
        sent_ms: u64,
        id: u64,
        said: Parsed,
    ) -> Checked {
        if let Some(entry) = self.rooms[said.room as usize].entry(id)
            && entry.from != Some(number)
        {
            return Err(Fault::within(
                said.room,
                format!("introduced as {number}, id {id} tells {:?}", entry.from),
            ));
        }
        let known = self
            .connections
            .entry(number)
            .or_insert_with(|| Connection::new(ExpectedEnd::Unclaimed, sent_ms));
        let is_claimed = !matches!(known.fate, ExpectedEnd::Unclaimed);
        if is_new == is_claimed && known.ended.is_none() {
            return Err(Fault::within(
                said.room,
                format!("connection {number} was given to two, or came to nobody"),
            ));
        }
        if is_new {
            known.fate = ExpectedEnd::Lives { alive_ms: sent_ms };
        }
        self.answered(id, Kind::Introduction, said)
    }

    /// A call that a connection carried was answered; it was sent at this time.
    pub(super) fn carried(&mut self, number: u64, sent_ms: u64) {
        if let Some(Connection { fate: ExpectedEnd::Lives { alive_ms }, .. }) =
            self.connections.get_mut(&number)
        {
            *alive_ms = (*alive_ms).max(sent_ms);
        }
    }

    /// Somebody is about to go, in this way. Call it before doing so.
    pub(super) fn will_end(&mut self, number: u64, fate: ExpectedEnd) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.fate = fate;
        }
    }

    /// One server takes over from another in the middle of things: a closing that only the former sees may come as silence.
    pub(super) fn unsettle_closings(&mut self) {
        for connection in self.connections.values_mut().filter(|it| it.ended.is_none()) {
            match connection.fate {
                ExpectedEnd::Closed { alive_ms, .. } => {
                    connection.fate = ExpectedEnd::Unsure { alive_ms }
                }
                ExpectedEnd::Clogged => {
                    connection.fate = ExpectedEnd::Unsure { alive_ms: connection.since_ms }
                }
                _ => {}
            }
        }
    }

    /// A call with which somebody went, of all rooms or of some, may have come to the server or not.
    pub(super) fn unsettle(&mut self, number: u64) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.fate = ExpectedEnd::Unsure { alive_ms: connection.since_ms };
        }
    }

    /// Somebody is about to leave one room.
    pub(super) fn will_leave(&mut self, number: u64, room: u32) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.leaves.push(room);
        }
    }

    /// When last a call of one who lives was sent.
    pub(super) fn alive_ms(&self, number: u64) -> Option<u64> {
        match self.connections.get(&number)?.fate {
            ExpectedEnd::Lives { alive_ms } => Some(alive_ms),
            _ => None,
        }
    }

    /// A reader got a message.
    pub(super) fn sight(&mut self, place: u32, message: &Message) -> Checked {
        self.sights += 1;
        let room = &mut self.rooms[place as usize];
        let hash = message.hash();
        if let Some(entry) = room.entry(message.id) {
            if entry.hash == hash {
                return Ok(());
            }
            let what = format!(
                "id {} is {entry:?} for one reader, and {message:?} for another",
                message.id
            );
            return Err(Fault::within(place, what));
        }
        if message.id < room.frontier {
            // Nobody saw it when it was new, or it is too long ago.
            return Ok(());
        }
        if message.id > room.frontier + AHEAD_MAX {
            return Err(Fault::within(
                place,
                format!("far beyond id {}: {message:?}", room.frontier),
            ));
        }
        let entry = Entry {
            kind: message.kind,
            time: message.time,
            from: message.from,
            said: message.text.and_then(Parsed::parse),
            hash,
        };
        self.check_text(place, message, &entry)?;
        let room = &mut self.rooms[place as usize];
        room.put(message.id, entry);
        self.judge(place)
    }

    /// Nobody will see what is before `id` any more.
    pub(super) fn unseen_before(&mut self, place: u32, id: u64) -> Checked {
        loop {
            self.judge(place)?;
            let room = &mut self.rooms[place as usize];
            if room.frontier >= id {
                return Ok(());
            }
            room.is_uncertain = true;
            room.expected.remove(&room.frontier);
            room.frontier += 1;
            self.unseen_ids += 1;
        }
    }

    /// What a reader can tell of a message alone.
    fn check_text(&self, place: u32, message: &Message, entry: &Entry) -> Checked {
        let wrong = |what: &str| Err(Fault::within(place, format!("{what}: {message:?}")));
        let Some(said) = entry.said else {
            return match (message.kind, message.text) {
                (Kind::Goodbye(Reason::Timeout | Reason::Closed | Reason::Left), None) => Ok(()),
                _ => wrong("a text that nobody said, or a changed one"),
            };
        };
        let is_farewell = matches!(message.kind, Kind::Goodbye(_)) && said.room == EVERY_ROOM;
        if said.room != place && !is_farewell {
            return wrong("a message of another room");
        }
        if self.never.contains(&(said.voice, said.seq)) {
            return wrong("a message whose request was refused");
        }
        let is_first = message.kind == Kind::Introduction && said.from == 0;
        if !is_first && message.from.unwrap_or(0) != said.from {
            return wrong("a message from another");
        }
        if is_first && message.from.is_none() {
            return wrong("an introduction of nobody");
        }
        Ok(())
    }

    /// Judges, in their order, all that may be.
    fn judge(&mut self, place: u32) -> Checked {
        loop {
            let room = &mut self.rooms[place as usize];
            let id = room.frontier;
            let Some(entry) = room.entry(id).copied() else { break };
            room.frontier += 1;
            if let Some(expected) = room.expected.remove(&id)
                && (Some(expected.1) != entry.said || expected.0 != entry.kind)
            {
                let what = format!(
                    "id {id} must be {expected:?}, as its call was answered, and is {entry:?}"
                );
                return Err(Fault::within(place, what));
            }
            if let Some(said) = entry.said {
                let last = room.last_seqs.insert(said.voice, said.seq);
                if last.is_some_and(|last| last >= said.seq) {
                    let what = format!(
                        "id {id}, {said:?}, came after word {last:?} of that voice: twice, or late"
                    );
                    return Err(Fault::within(place, what));
                }
            }
            match entry.kind {
                Kind::Message => {}
                Kind::Introduction => self.welcome(place, id, &entry)?,
                Kind::Goodbye(reason) => self.part_with(place, id, &entry, reason)?,
            }
        }
        self.rooms[place as usize].trim();
        Ok(())
    }

    fn welcome(&mut self, place: u32, id: u64, entry: &Entry) -> Checked {
        let number = entry.from.unwrap_or(0);
        self.introductions += 1;
        let connection = self
            .connections
            .entry(number)
            .or_insert_with(|| Connection::new(ExpectedEnd::Unclaimed, entry.time));
        if connection.ended_in.contains(&place) {
            return Err(Fault::within(
                place,
                format!("connection {number} is introduced by id {id} after its end"),
            ));
        }
        let room = &mut self.rooms[place as usize];
        if room.present.insert(number, Present { id, said: entry.said }).is_none() {
            connection.present += 1;
        }
        Ok(())
    }

    fn part_with(&mut self, place: u32, id: u64, entry: &Entry, reason: Reason) -> Checked {
        let number = entry.from.unwrap_or(0);
        *self.goodbyes.entry(reason).or_default() += 1;
        let room = &mut self.rooms[place as usize];
        let was_present = room.present.remove(&number).is_some();
        let is_dim = room.is_uncertain;
        let Some(connection) = self.connections.get_mut(&number) else {
            if is_dim {
                return Ok(());
            }
            return Err(Fault::within(
                place,
                format!("id {id} is a goodbye of {number}, who is not there"),
            ));
        };
        if !was_present && !is_dim {
            let what = format!(
                "id {id} is a goodbye of {number}, who is not there (any more): {connection:?}"
            );
            return Err(Fault::within(place, what));
        }
        connection.present -= usize::from(was_present);
        if let (Reason::Left, Some(at)) =
            (reason, connection.leaves.iter().position(|&left| left == place))
        {
            connection.leaves.swap_remove(at);
            return Ok(());
        }
        if connection.ended.is_some_and(|before| before != reason) {
            let what = format!(
                "connection {number} ended for two reasons: {connection:?}, and {reason:?} by id {id}"
            );
            return Err(Fault::within(place, what));
        }
        let verdict = connection.verdict(reason, entry.time, self.timeout_ms);
        let crossing = match (&connection.fate, reason) {
            (ExpectedEnd::Closed { at_ms, cursors, .. }, Reason::Timeout) => {
                Some((*at_ms, cursors.clone()))
            }
            _ => None,
        };
        let is_first = connection.ended.is_none();
        connection.ended = Some(reason);
        connection.ended_in.push(place);
        let told = format!(
            "id {id} is a goodbye of {number}, {reason:?} at {}: {connection:?}",
            entry.time
        );
        match verdict {
            Verdict::Meant => Ok(()),
            Verdict::Wrong => Err(Fault::within(place, format!("nobody meant this: {told}"))),
            _ if !is_first => Ok(()),
            Verdict::IfCrossed => {
                let what = format!("the closing of a waiting read was not noticed: {told}");
                self.suspects.push(Suspect { fault: Fault::within(place, what), crossing });
                Ok(())
            }
            Verdict::IfSlow => {
                let what = format!("nobody meant this, and nothing was slow: {told}");
                self.suspects.push(Suspect { fault: Fault::within(place, what), crossing: None });
                Ok(())
            }
        }
    }

    /// Whether a suspect is cleared by what came for a read before it was closed, and was not seen by its reader.
    pub(super) fn superseded(&self, suspect: &Suspect) -> bool {
        let Some((at_ms, cursors)) = &suspect.crossing else { return false };
        cursors.iter().any(|&(place, cursor)| {
            let room = &self.rooms[place as usize];
            // A cursor that is too long ago: there was more, without doubt.
            cursor < room.base
                || room.entry(cursor).is_some_and(|entry| entry.time <= at_ms + STAMP_SLACK_MS)
        })
    }

    /// Whether a gap that begins at `cursor` may be told where the first that is left is `first` and the next `next`.
    pub(super) fn may_miss(&self, cursor: u64, first: u64, next: u64) -> bool {
        first > cursor && next - first.min(next) >= self.history
    }

    /// What the one who has seen all before `next` must know of who is there, if that is judged already.
    pub(super) fn present_at(&self, place: u32, next: u64) -> Option<Vec<(u64, u64)>> {
        let room = &self.rooms[place as usize];
        (room.frontier == next && !room.is_uncertain).then(|| self.present_all(place))
    }

    /// Who is in a room as far as it is judged, by connection, with the id of the newest introduction.
    pub(super) fn present_all(&self, place: u32) -> Vec<(u64, u64)> {
        let present = &self.rooms[place as usize].present;
        present.iter().map(|(number, present)| (*number, present.id)).collect()
    }

    /// All before this id are judged.
    pub(super) fn frontier(&self, place: u32) -> u64 {
        self.rooms[place as usize].frontier
    }

    /// Whether a goodbye was seen of a connection that ended.
    pub(super) fn has_ended(&self, number: u64) -> bool {
        self.connections.get(&number).is_some_and(|connection| connection.ended.is_some())
    }

    /// Something that is a fault unless the machine was too slow.
    pub(super) fn possible_violation(&mut self, fault: Fault) {
        self.suspects.push(Suspect { fault, crossing: None });
    }

    /// What a member of a room is to be called, by connection.
    pub(super) fn name_of(&self, place: u32, number: u64) -> Option<String> {
        self.rooms[place as usize].present.get(&number)?.said.map(|said| said.text())
    }

    /// How many are present in a room.
    pub(super) fn present(&self, place: u32) -> usize {
        self.rooms[place as usize].present.len()
    }

    pub(super) fn is_uncertain(&self, place: u32) -> bool {
        self.rooms[place as usize].is_uncertain
    }

    /// Nobody is in a room, as the server says too: that is known again.
    pub(super) fn clear_up(&mut self, place: u32) {
        let room = &mut self.rooms[place as usize];
        if room.is_uncertain {
            room.is_uncertain = false;
            for number in std::mem::take(&mut room.present).into_keys() {
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.present -= 1;
                }
            }
        }
    }

    /// What calls were answered with, and nobody saw yet.
    pub(super) fn unseen(&self) -> Option<Fault> {
        (0..).zip(&self.rooms).find_map(|(place, room)| {
            let (id, expected) = room.expected.first_key_value()?;
            Some(Fault::within(
                place,
                format!("id {id} was answered to {expected:?}, and nobody saw it"),
            ))
        })
    }

    /// The first thing that should have been seen by now, where nothing is under way.
    pub(super) fn owed(&self) -> Option<Fault> {
        if let Some(unseen) = self.unseen() {
            return Some(unseen);
        }
        for (place, room) in (0..).zip(&self.rooms) {
            if room.is_uncertain {
                continue;
            }
            for number in room.present.keys() {
                match self.connections.get(number) {
                    Some(Connection { fate: ExpectedEnd::Lives { .. }, ended: None, .. }) => {}
                    other => {
                        let what = format!(
                            "connection {number} is still there, without a goodbye: {other:?}"
                        );
                        return Some(Fault::within(place, what));
                    }
                }
            }
        }
        None
    }

    /// The last that is known of a room.
    pub(super) fn tell(&self, place: u32) -> String {
        let room = &self.rooms[place as usize];
        let mut told = format!(
            "  all before id {} is judged; present: {:?}\n",
            room.frontier,
            room.present.keys()
        );
        let ids = (room.base..).zip(&room.log);
        for (id, entry) in ids.skip(room.log.len().saturating_sub(TOLD)) {
            _ = match entry {
                Some(Entry { kind, time, from, said, .. }) => {
                    let said = said.map(|said| (said.voice, said.seq));
                    writeln!(
                        told,
                        "  {id}: {kind:?} at {time} from {from:?}, voice and word {said:?}"
                    )
                }
                None => writeln!(told, "  {id}: not seen"),
            };
        }
        told
    }
}

impl Message<'_> {
    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.id, self.kind, self.time, self.from, self.text).hash(&mut hasher);
        hasher.finish()
    }
}

impl Room {
    fn new(first_id: u64) -> Self {
        Self {
            base: first_id,
            log: VecDeque::new(),
            frontier: first_id,
            expected: BTreeMap::new(),
            present: BTreeMap::new(),
            last_seqs: HashMap::new(),
            is_uncertain: false,
        }
    }

    fn entry(&self, id: u64) -> Option<&Entry> {
        self.log.get(id.checked_sub(self.base)? as usize)?.as_ref()
    }

    fn put(&mut self, id: u64, entry: Entry) {
        let at = (id - self.base) as usize;
        if at >= self.log.len() {
            self.log.resize(at + 1, None);
        }
        self.log[at] = Some(entry);
    }

    fn trim(&mut self) {
        while self.log.len() > WINDOW && self.base < self.frontier {
            self.log.pop_front();
            self.base += 1;
        }
    }
}
