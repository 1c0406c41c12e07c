//! A model of Redis: the commands that Speak uses, with the replies of the real one.

use std::collections::{BTreeMap, VecDeque};

use speak::cluster::{StreamId, Value};

pub(crate) type Args = Vec<Vec<u8>>;

/// Changes that a failover can undo, at most.
const PAST_MAX: usize = 2_000;

const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";

/// The data of one server. Times are Unix times in milliseconds.
pub(crate) struct Redis {
    pub(crate) now_ms: u64,
    keys: BTreeMap<Vec<u8>, Key>,
    /// The last changes, each with its key.
    past: VecDeque<(Vec<u8>, Undo)>,
    /// Number of changes, and that of the last one of each key.
    changes: u64,
    changed: BTreeMap<Vec<u8>, u64>,
}

/// How a change of a key is undone.
enum Undo {
    /// Remove the last entry of the stream, and put back what its `MAXLEN` has removed.
    Append { last_id: StreamId, removed: Vec<Entry> },
    /// Put back the first entries of the stream.
    Trim(Vec<Entry>),
    /// Put back the key as it was.
    Key(Option<Key>),
}

#[derive(Clone)]
struct Key {
    content: Content,
    expires_at: Option<u64>,
}

#[derive(Clone)]
enum Content {
    Text(Vec<u8>),
    Stream(Stream),
    /// Fields in the order in which they were added.
    Hash(Vec<[Vec<u8>; 2]>),
}

#[derive(Clone, Default)]
struct Stream {
    last_id: StreamId,
    entries: Vec<Entry>,
}

/// An entry of a stream: its id and its fields.
type Entry = (StreamId, Vec<Vec<u8>>);

/// Keys, each with the number of its last change.
pub(crate) type Watched = Vec<(Vec<u8>, Option<u64>)>;

/// What became of a command.
pub(crate) enum Executed {
    Reply(Value),
    /// It waits for an entry.
    Blocked(Wait),
}

/// An `XREAD` that waits.
pub(crate) struct Wait {
    /// Streams, each with the id after which it waits.
    streams: Vec<(Vec<u8>, StreamId)>,
    count: usize,
    until: u64,
}

fn error(text: &str) -> Value {
    Value::Error(text.into())
}

fn text(bytes: &[u8]) -> Value {
    Value::Text(bytes.into())
}

fn number(bytes: &[u8]) -> Option<u64> {
    str::from_utf8(bytes).ok()?.parse().ok()
}

/// Parses an id whose number may be left out.
fn id(bytes: &[u8], number: u64) -> Option<StreamId> {
    let whole = str::from_utf8(bytes).ok()?;
    if whole.contains('-') {
        return StreamId::parse(bytes);
    }
    Some(StreamId { unix_ms: whole.parse().ok()?, number })
}

fn entries<'a>(found: impl Iterator<Item = &'a Entry>) -> Value {
    let entry = |(id, fields): &Entry| {
        let fields = fields.iter().map(|field| text(field)).collect();
        Value::Array(vec![text(id.to_string().as_bytes()), Value::Array(fields)])
    };
    Value::Array(found.map(entry).collect())
}

impl Redis {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            now_ms,
            keys: BTreeMap::new(),
            past: VecDeque::new(),
            changes: 0,
            changed: BTreeMap::new(),
        }
    }

    /// Loses so many of the last entries of a stream, and all changes since, as a failover does.
    /// All means that nothing is left.
    pub(crate) fn lose_last(&mut self, stream: &[u8], count: usize) {
        if count == usize::MAX {
            return self.clear();
        }
        let mut left = count;
        while left > 0
            && let Some((key, undo)) = self.past.pop_back()
        {
            left -= usize::from(key == stream && matches!(undo, Undo::Append { .. }));
            self.undo(key, undo);
        }
    }

    fn undo(&mut self, key: Vec<u8>, undo: Undo) {
        let before = match undo {
            Undo::Key(before) => before,
            Undo::Append { .. } | Undo::Trim(_) => {
                let mut found = self.keys.remove(&key).expect("the key has a stream");
                let Content::Stream(stream) = &mut found.content else { panic!("a stream") };
                let removed = match undo {
                    Undo::Append { last_id, removed } => {
                        stream.entries.pop();
                        stream.last_id = last_id;
                        removed
                    }
                    Undo::Trim(removed) => removed,
                    Undo::Key(_) => unreachable!("it is undone above"),
                };
                stream.entries.splice(..0, removed);
                Some(found)
            }
        };
        self.keys.extend(before.map(|before| (key, before)));
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.past.clear();
        self.changed.clear();
        self.changes += 1;
    }

    /// Notes a change of a key, and how it is undone.
    fn note(&mut self, key: &[u8], undo: Undo) {
        self.changes += 1;
        self.changed.insert(key.to_vec(), self.changes);
        if self.past.len() == PAST_MAX {
            self.past.pop_front();
        }
        self.past.push_back((key.to_vec(), undo));
    }

    /// Notes that a key is about to change.
    fn note_before(&mut self, key: &[u8]) {
        let before = self.keys.get(key).cloned();
        self.note(key, Undo::Key(before));
    }

    /// Begins to watch keys.
    pub(crate) fn watch(&self, keys: &[Vec<u8>]) -> Watched {
        keys.iter().map(|key| (key.clone(), self.changed.get(key).copied())).collect()
    }

    /// Returns whether none of these keys has changed since.
    pub(crate) fn is_unchanged(&self, watched: &Watched) -> bool {
        watched.iter().all(|(key, change)| self.changed.get(key) == change.as_ref())
    }

    /// Removes the last entry of a stream, as `XDEL` does.
    pub(crate) fn remove_last(&mut self, key: &[u8]) {
        self.note_before(key);
        if let Some(Content::Stream(stream)) = self.keys.get_mut(key).map(|key| &mut key.content) {
            stream.entries.pop();
        }
    }

    pub(crate) fn execute(&mut self, args: &Args) -> Executed {
        let now = self.now_ms;
        self.keys.retain(|_, key| key.expires_at.is_none_or(|at| at > now));
        let words: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let [name, rest @ ..] = &words[..] else {
            return Executed::Reply(error("ERR empty command"));
        };
        let result = match name.to_ascii_uppercase().as_slice() {
            b"XADD" => self.append(rest),
            b"XREVRANGE" => self.range(rest, true),
            b"XRANGE" => self.range(rest, false),
            b"XLEN" => self.length(rest),
            b"XTRIM" => self.trim(rest),
            b"XREAD" => return self.read(rest).unwrap_or_else(Executed::Reply),
            b"SET" => self.set(rest),
            b"GET" => self.get(rest),
            b"HSET" => self.set_fields(rest),
            b"HGETALL" => self.fields(rest),
            b"HGET" => self.field(rest),
            b"HLEN" => self.count_fields(rest),
            b"DEL" | b"UNLINK" => Ok(self.delete(rest)),
            b"PEXPIRE" => Ok(self.expire(rest)),
            b"PERSIST" => Ok(self.persist(rest)),
            b"FLUSHALL" => {
                self.clear();
                Ok(text(b"OK"))
            }
            _ => Err(error("ERR unknown command")),
        };
        Executed::Reply(result.unwrap_or_else(|error| error))
    }

    /// Returns the reply to a command that waits, once there is one.
    pub(crate) fn wake(&self, wait: &Wait) -> Option<Value> {
        let page = self.pages(&wait.streams, wait.count).ok().flatten();
        page.or_else(|| (wait.until <= self.now_ms).then_some(Value::Nil))
    }

    /// Returns the time at which a command no longer waits.
    pub(crate) fn end_of_wait(wait: &Wait) -> u64 {
        wait.until
    }

    fn stream(&self, key: &[u8]) -> Result<Option<&Stream>, Value> {
        match self.keys.get(key).map(|key| &key.content) {
            None => Ok(None),
            Some(Content::Stream(stream)) => Ok(Some(stream)),
            Some(Content::Text(_) | Content::Hash(_)) => Err(error(WRONG_TYPE)),
        }
    }

    fn append(&mut self, args: &[&[u8]]) -> Result<Value, Value> {
        let (key, has_to_exist, most, asked, fields) = match args {
            [key, word, asked, fields @ ..] if word.eq_ignore_ascii_case(b"NOMKSTREAM") => {
                (key, true, usize::MAX, asked, fields)
            }
            [key, word, most, asked, fields @ ..] if word.eq_ignore_ascii_case(b"MAXLEN") => {
                let most = number(most)
                    .ok_or_else(|| error("ERR value is not an integer or out of range"));
                (key, false, most? as usize, asked, fields)
            }
            [key, asked, fields @ ..] => (key, false, usize::MAX, asked, fields),
            _ => return Err(wrong_arity("xadd")),
        };
        if fields.is_empty() || !fields.len().is_multiple_of(2) {
            return Err(wrong_arity("xadd"));
        }
        let invalid = || error("ERR Invalid stream ID specified as stream command argument");
        let asked = if *asked == b"*" { None } else { Some(id(asked, 0).ok_or_else(invalid)?) };
        if asked == Some(StreamId::default()) {
            return Err(error("ERR The ID specified in XADD must be greater than 0-0"));
        }
        let now = self.now_ms;
        let new = || Key { content: Content::Stream(Stream::default()), expires_at: None };
        let is_new = !self.keys.contains_key(*key);
        if is_new && has_to_exist {
            return Ok(Value::Nil);
        }
        let found = self.keys.entry(key.to_vec()).or_insert_with(new);
        let Content::Stream(stream) = &mut found.content else { return Err(error(WRONG_TYPE)) };
        let last = stream.last_id;
        let id = match asked {
            Some(id) if id <= last => {
                return Err(error(
                    "ERR The ID specified in XADD is equal or smaller than the target stream top \
                     item",
                ));
            }
            Some(id) => id,
            None if now > last.unix_ms => StreamId { unix_ms: now, number: 0 },
            None => StreamId { number: last.number + 1, ..last },
        };
        stream.last_id = id;
        stream.entries.push((id, fields.iter().map(|field| field.to_vec()).collect()));
        let removed = stream.entries.len().saturating_sub(most);
        let removed = stream.entries.drain(..removed).collect();
        let undo = if is_new { Undo::Key(None) } else { Undo::Append { last_id: last, removed } };
        self.note(key, undo);
        Ok(text(id.to_string().as_bytes()))
    }

    fn range(&self, args: &[&[u8]], is_reverse: bool) -> Result<Value, Value> {
        let (key, one, other, count) = match args {
            [key, one, other] => (key, one, other, usize::MAX),
            [key, one, other, word, count] if word.eq_ignore_ascii_case(b"COUNT") => {
                let count = number(count);
                let count =
                    count.ok_or_else(|| error("ERR value is not an integer or out of range"))?;
                (key, one, other, count as usize)
            }
            _ => return Err(error("ERR syntax error")),
        };
        let (start, end) = if is_reverse { (other, one) } else { (one, other) };
        let bound = |word: &[u8], number| match word {
            b"-" => Some(StreamId::default()),
            b"+" => Some(StreamId { unix_ms: u64::MAX, number: u64::MAX }),
            _ => id(word, number),
        };
        let (Some(start), Some(end)) = (bound(start, 0), bound(end, u64::MAX)) else {
            return Err(error("ERR Invalid stream ID specified as stream command argument"));
        };
        let Some(stream) = self.stream(key)? else { return Ok(Value::Array(Vec::new())) };
        if count == 0 {
            return Ok(Value::Nil);
        }
        let found = stream.entries.iter().filter(|(id, _)| (start..=end).contains(id));
        Ok(if is_reverse { entries(found.rev().take(count)) } else { entries(found.take(count)) })
    }

    fn length(&self, args: &[&[u8]]) -> Result<Value, Value> {
        let [key] = args else { return Err(wrong_arity("xlen")) };
        Ok(count(self.stream(key)?.map_or(0, |stream| stream.entries.len())))
    }

    /// `XTRIM key MINID id`, without `~`.
    fn trim(&mut self, args: &[&[u8]]) -> Result<Value, Value> {
        let (key, least) = match args {
            [key, word, least] if word.eq_ignore_ascii_case(b"MINID") => (key, least),
            [key, word, b"=", least] if word.eq_ignore_ascii_case(b"MINID") => (key, least),
            _ => return Err(error("ERR syntax error")),
        };
        let invalid = "ERR Invalid stream ID specified as stream command argument";
        let least = id(least, 0).ok_or_else(|| error(invalid))?;
        match self.keys.get_mut(*key).map(|key| &mut key.content) {
            None => Ok(Value::Int(0)),
            Some(Content::Text(_) | Content::Hash(_)) => Err(error(WRONG_TYPE)),
            Some(Content::Stream(stream)) => {
                let removed = stream.entries.partition_point(|(id, _)| *id < least);
                let removed: Vec<_> = stream.entries.drain(..removed).collect();
                let reply = count(removed.len());
                self.note(key, Undo::Trim(removed));
                Ok(reply)
            }
        }
    }

    /// Returns the entries of several streams, unless there are none.
    fn pages(&self, streams: &[(Vec<u8>, StreamId)], count: usize) -> Result<Option<Value>, Value> {
        let mut pages = Vec::new();
        for (key, after) in streams {
            pages.extend(self.stream(key)?.and_then(|it| page(key, it, *after, count)));
        }
        Ok((!pages.is_empty()).then_some(Value::Array(pages)))
    }

    /// `XREAD [COUNT count] [BLOCK ms] STREAMS key … id …`.
    fn read(&self, args: &[&[u8]]) -> Result<Executed, Value> {
        let (mut count, mut block_ms, mut rest) = (usize::MAX, None, args);
        loop {
            match rest {
                [word, value, more @ ..] if word.eq_ignore_ascii_case(b"COUNT") => {
                    let value = number(value);
                    let value = value
                        .ok_or_else(|| error("ERR value is not an integer or out of range"))?;
                    (count, rest) = (value as usize, more);
                }
                [word, value, more @ ..] if word.eq_ignore_ascii_case(b"BLOCK") => {
                    let value = number(value);
                    let value = value
                        .ok_or_else(|| error("ERR timeout is not an integer or out of range"))?;
                    (block_ms, rest) = (Some(value), more);
                }
                [word, streams @ ..] if word.eq_ignore_ascii_case(b"STREAMS") => {
                    let (keys, ids) = streams.split_at(streams.len() / 2);
                    if keys.is_empty() || keys.len() != ids.len() {
                        return Err(error(
                            "ERR Unbalanced 'xread' list of streams: for each stream key an ID or \
                             '$' must be specified.",
                        ));
                    }
                    let mut streams = Vec::new();
                    for (key, after) in keys.iter().zip(ids) {
                        let stream = self.stream(key)?;
                        let newest = stream.map_or_else(StreamId::default, |it| it.last_id);
                        let invalid = "ERR Invalid stream ID specified as stream command argument";
                        let after = if *after == b"$" { Some(newest) } else { id(after, 0) };
                        streams.push((key.to_vec(), after.ok_or_else(|| error(invalid))?));
                    }
                    return Ok(match (self.pages(&streams, count)?, block_ms) {
                        (Some(page), _) => Executed::Reply(page),
                        (None, None) => Executed::Reply(Value::Nil),
                        (None, Some(ms)) => {
                            let until = if ms == 0 { u64::MAX } else { self.now_ms + ms };
                            Executed::Blocked(Wait { streams, count, until })
                        }
                    });
                }
                _ => return Err(error("ERR syntax error")),
            }
        }
    }

    fn set(&mut self, args: &[&[u8]]) -> Result<Value, Value> {
        let [key, value, options @ ..] = args else { return Err(wrong_arity("set")) };
        let (mut expires_at, mut rest) = (None, options);
        let (mut only_new, mut only_old) = (false, false);
        while let [word, more @ ..] = rest {
            rest = more;
            match (word.to_ascii_uppercase().as_slice(), rest) {
                (b"NX", _) => only_new = true,
                (b"XX", _) => only_old = true,
                (b"PX", [ms, more @ ..]) => {
                    let ms = number(ms).filter(|ms| *ms > 0);
                    let ms = ms.ok_or_else(|| error("ERR invalid expire time in 'set' command"))?;
                    (expires_at, rest) = (Some(self.now_ms + ms), more);
                }
                _ => return Err(error("ERR syntax error")),
            }
        }
        if only_new && only_old {
            return Err(error("ERR syntax error"));
        }
        let exists = self.keys.contains_key(*key);
        if (only_new && exists) || (only_old && !exists) {
            return Ok(Value::Nil);
        }
        self.note_before(key);
        let content = Content::Text(value.to_vec());
        self.keys.insert(key.to_vec(), Key { content, expires_at });
        Ok(text(b"OK"))
    }

    fn get(&self, args: &[&[u8]]) -> Result<Value, Value> {
        let [key] = args else { return Err(wrong_arity("get")) };
        match self.keys.get(*key).map(|key| &key.content) {
            None => Ok(Value::Nil),
            Some(Content::Text(value)) => Ok(text(value)),
            Some(Content::Stream(_) | Content::Hash(_)) => Err(error(WRONG_TYPE)),
        }
    }

    fn set_fields(&mut self, args: &[&[u8]]) -> Result<Value, Value> {
        let [key, pairs @ ..] = args else { return Err(wrong_arity("hset")) };
        if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
            return Err(wrong_arity("hset"));
        }
        self.note_before(key);
        let new = || Key { content: Content::Hash(Vec::new()), expires_at: None };
        let found = self.keys.entry(key.to_vec()).or_insert_with(new);
        let Content::Hash(fields) = &mut found.content else { return Err(error(WRONG_TYPE)) };
        let before = fields.len();
        for pair in pairs.chunks_exact(2) {
            match fields.iter_mut().find(|[name, _]| name == pair[0]) {
                Some([_, value]) => *value = pair[1].to_vec(),
                None => fields.push([pair[0].to_vec(), pair[1].to_vec()]),
            }
        }
        Ok(count(fields.len() - before))
    }

    fn fields(&self, args: &[&[u8]]) -> Result<Value, Value> {
        let [key] = args else { return Err(wrong_arity("hgetall")) };
        Ok(Value::Array(self.hash(key)?.iter().flatten().map(|part| text(part)).collect()))
    }

    fn field(&self, args: &[&[u8]]) -> Result<Value, Value> {
        let [key, name] = args else { return Err(wrong_arity("hget")) };
        let found = self.hash(key)?.iter().find(|[its, _]| its == name);
        Ok(found.map_or(Value::Nil, |[_, value]| text(value)))
    }

    fn count_fields(&self, args: &[&[u8]]) -> Result<Value, Value> {
        let [key] = args else { return Err(wrong_arity("hlen")) };
        Ok(count(self.hash(key)?.len()))
    }

    /// Returns the fields of a hash: none of a key that is not there.
    fn hash(&self, key: &[u8]) -> Result<&[[Vec<u8>; 2]], Value> {
        match self.keys.get(key).map(|key| &key.content) {
            None => Ok(&[]),
            Some(Content::Hash(fields)) => Ok(fields),
            Some(Content::Stream(_) | Content::Text(_)) => Err(error(WRONG_TYPE)),
        }
    }

    fn delete(&mut self, keys: &[&[u8]]) -> Value {
        let mut removed = 0;
        for key in keys.iter().filter(|key| self.keys.contains_key(**key)).collect::<Vec<_>>() {
            self.note_before(key);
            self.keys.remove(*key);
            removed += 1;
        }
        count(removed)
    }

    fn expire(&mut self, args: &[&[u8]]) -> Value {
        let [key, ms] = args else { return wrong_arity("pexpire") };
        let Some(ms) = number(ms) else {
            return error("ERR value is not an integer or out of range");
        };
        let at = self.now_ms + ms;
        self.note_before(key);
        let found = self.keys.get_mut(*key);
        Value::Int(found.map(|key| key.expires_at = Some(at)).is_some().into())
    }

    fn persist(&mut self, args: &[&[u8]]) -> Value {
        let [key] = args else { return wrong_arity("persist") };
        self.note_before(key);
        let found = self.keys.get_mut(*key).and_then(|key| key.expires_at.take());
        Value::Int(found.is_some().into())
    }
}

fn wrong_arity(command: &str) -> Value {
    error(&format!("ERR wrong number of arguments for '{command}' command"))
}

/// Returns the entries of a stream after an id as `XREAD` does, unless there are none.
fn page(key: &[u8], stream: &Stream, after: StreamId, count: usize) -> Option<Value> {
    let from = stream.entries.partition_point(|(id, _)| *id <= after);
    let found = &stream.entries[from..];
    if found.is_empty() {
        return None;
    }
    // Redis takes no count and a count of 0 for all.
    let count = if count == 0 { usize::MAX } else { count };
    let page = entries(found.iter().take(count));
    Some(Value::Array(vec![text(key), page]))
}

/// Returns a number of things.
fn count(number: usize) -> Value {
    Value::Int(i64::try_from(number).expect("few things"))
}
