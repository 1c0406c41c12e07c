//! Rounds of vouches: asks whether the log in Redis is the one that was read, and makes it whole.

use log::Level;

use super::cluster_log::{ClusterLog, Deciding, Expected};
use super::commanding::parse_end;
use super::entry::{self, Entry, NO_NODE};
use super::log_end::{LogEnd, Seal};
use super::snapshot_entry::SnapshotEntry;
use super::stream_id::StreamId;
use super::value::{ErrorKind, Value};
use super::vouching::{self, Decision, Own, Verdict, View, Vouch};
use crate::log::Log;

impl ClusterLog {
    /// Notes that the log lacks records, under the run id that it had before.
    pub(super) fn suspect(&mut self) {
        log::warn!("cluster: Redis has lost the log");
        self.vouching.suspect(&self.commands_run_id, self.now_ms);
        self.begin_round();
    }

    pub(super) fn begin_round(&mut self) {
        if self.read_id != StreamId::default() {
            log::warn!("cluster: another Redis than before, or an emptied one: asking all nodes");
        }
        (self.members, self.deciding) = (None, None);
        self.abandon_snapshot();
        self.forget_replies();
    }

    /// Vouches for the log if it is time, and asks what the other nodes say.
    pub(super) fn vouch(&mut self) {
        let Some(members) = &self.members else { return };
        if !self.vouching.is_due(self.now_ms) {
            return;
        }
        let last = self.tail.last();
        let is_member = members.contains(&self.node);
        let (node, count, base) = (self.node, self.vouching.vouch(), self.tail.base().last.id);
        let vouch = last.filter(|_| is_member);
        let vouch = vouch.map(|last| Vouch { node, count, last: last.id, base });
        let (key, stream) = (self.keys.vouches(&self.commands_run_id), self.keys.stream().to_vec());
        let snapshots = self.keys.snapshots().to_vec();
        let last_id = last.unwrap_or_default().id.to_string();
        self.step(&[b"MULTI"]);
        if let Some(vouch) = vouch {
            let [(node, own), (base_of, base)] = vouch.format();
            let fields = [&node, &own, &base_of, &base].map(String::as_bytes);
            self.step(&[&[b"HSET", &*key], &fields[..]].concat());
        }
        self.step(&[b"HGETALL", &key]);
        self.step(&[b"XREVRANGE", &stream, b"+", b"-", b"COUNT", b"1"]);
        self.step(&[b"XRANGE", &stream, last_id.as_bytes(), last_id.as_bytes()]);
        self.step(&[b"XREVRANGE", &snapshots, b"+", b"-", b"COUNT", b"1"]);
        self.commands.send(&[b"EXEC"]);
        self.expected.push_back(Expected::View);
    }

    /// Sends a command of a transaction.
    fn step(&mut self, args: &[&[u8]]) {
        self.commands.send(args);
        self.expected.push_back(Expected::Step);
    }

    /// Notes the reply to a command of a transaction. Returns whether it is no error.
    pub(super) fn on_step(&mut self, value: &Value) -> bool {
        let Some(kind) = value.error_kind() else { return true };
        // A transaction without all of its steps is refused: the reason came before.
        if kind != ErrorKind::Other {
            self.report_refusal(kind);
        }
        if kind.is_of_the_server() {
            self.reset_connections();
        }
        false
    }

    /// Judges what Redis holds.
    pub(super) fn on_view(&mut self, value: &Value) {
        let Some([.., hash, end, own, snapshots]) = value.as_array() else {
            self.on_step(value);
            return self.vouching.wait(self.now_ms);
        };
        for reply in [hash, end, own, snapshots] {
            if !self.on_step(reply) {
                return self.vouching.wait(self.now_ms);
            }
        }
        let seal = |value: &Value| {
            let (id, entry) = Entry::parse(value.as_array()?.first()?)?;
            // An entry of another program has no node.
            let (node, sequence) = entry.map_or((NO_NODE, 0), |it| (it.node, it.sequence));
            Some(Seal { id, node, sequence })
        };
        let (newest_id, newest) = SnapshotEntry::parse_all(snapshots).next().unwrap_or_default();
        let last = self.tail.last();
        let snapshot_end = newest.map(|newest| newest.end.last);
        let has_own = last.is_some() && [seal(own), snapshot_end].contains(&last);
        let view = View { end: seal(end), newest_id, newest, has_own, ..View::of_hash(hash) };
        let members = self.members.as_deref().unwrap_or_default();
        let own = Own { node: self.node, members, tail: &self.tail };
        match self.vouching.judge(self.now_ms, &view, &own) {
            Verdict::Wait => self.report_wait(),
            Verdict::Trust => self.on_trusted(snapshots),
            Verdict::Contradicted { is_member } => {
                log::error!("cluster: the log in Redis is not the one that this node has read");
                if is_member {
                    self.append_renumbering(0);
                }
                self.reload();
            }
            Verdict::Decide(decision) => self.begin_decision(decision, &view),
        }
    }

    /// Tells the operator once why a process without a state does not serve yet: a node that has
    /// read more than Redis holds would make it whole.
    fn report_wait(&mut self) {
        if self.tail.last().is_none() && !std::mem::replace(&mut self.is_wait_reported, true) {
            log::info!("cluster: waiting up to 3 s for nodes that know more than this Redis");
        }
    }

    /// Goes on with the log, whose newest snapshot is in this reply.
    fn on_trusted(&mut self, snapshots: &Value) {
        self.refusal = None;
        if self.reader.is_some() {
            return;
        }
        log::warn!("cluster: the log goes on");
        self.reported_decision = None;
        self.may_lack_records = true;
        // What was the newest one before may be lost.
        (self.newest, self.newest_id) = Default::default();
        self.on_snapshots(snapshots);
    }

    /// Begins to make the log whole: has Redis watch the log, which may have changed since.
    fn begin_decision(&mut self, decision: Decision, view: &View) {
        let Decision { after, resets, .. } = decision;
        let (level, what) = match (after.is_some(), resets) {
            (_, true) => (Level::Warn, "records may be lost; message ids begin a new epoch"),
            (true, false) => {
                (Level::Warn, "all nodes agree; appending the records that Redis has lost")
            }
            (false, false) if view.end.is_none() => {
                (Level::Info, "Redis is empty, and no other node is there: beginning a new log")
            }
            (false, false) => (Level::Warn, "Redis has all records"),
        };
        if self.reported_decision.replace(what) != Some(what) {
            log::log!(level, "cluster: {what}");
        }
        let counted = self.vouching.counted(self.now_ms, view, self.node);
        self.vouching.await_replies();
        let (stream, snapshots) = (self.keys.stream().to_vec(), self.keys.snapshots().to_vec());
        self.step(&[b"WATCH", &stream, &snapshots]);
        let end_id = view.end.unwrap_or_default().id;
        for (key, last_id) in [(stream, end_id), (snapshots, view.newest_id)] {
            self.commands.send(&[b"XREVRANGE", &key, b"+", b"-", b"COUNT", b"1"]);
            self.expected.push_back(Expected::Unchanged(last_id));
        }
        self.deciding = Some(Deciding { decision, counted, end_id, newest: view.newest });
    }

    /// Notes the end of a stream that Redis watches. The decision is taken if both are as they
    /// were.
    pub(super) fn on_watched(&mut self, last_id: StreamId, value: &Value) {
        let is_unchanged = self.on_step(value) && parse_end(value) == Some(last_id);
        let is_last = !matches!(self.expected.front(), Some(Expected::Unchanged(_)));
        match self.deciding.take() {
            Some(deciding) if is_unchanged && is_last => self.decide(&deciding),
            Some(deciding) if is_unchanged => self.deciding = Some(deciding),
            // An error of the server has ended the connection, and the watch with it.
            _ if is_last && self.is_commands_up => self.step(&[b"UNWATCH"]),
            _ => {}
        }
        if is_last {
            self.vouching.wait(self.now_ms);
        }
    }

    /// Makes the log whole. The next vouch finds out whether it is.
    fn decide(&mut self, deciding: &Deciding) {
        let Deciding { decision, counted, end_id, newest } = deciding;
        let Decision { after, is_cut, needs_record, resets } = *decision;
        let (key, stream) = (self.keys.vouches(&self.commands_run_id), self.keys.stream().to_vec());
        let last_id = self.tail.last().unwrap_or_default().id;
        let done = *end_id.max(&last_id);
        self.step(&[b"MULTI"]);
        if let Some(after) = after {
            for (id, value) in self.tail.after_id(after) {
                let id = id.to_string();
                self.commands.send(&[b"XADD", &stream, id.as_bytes(), entry::FIELD, &value]);
                self.expected.push_back(Expected::Step);
            }
        }
        if is_cut {
            self.announce_snapshot(newest.map_or(0, |newest| newest.name), self.tail.base());
        }
        if needs_record {
            let id = StreamId { number: done.number.saturating_add(1), ..done }.to_string();
            let value = entry::encode(NO_NODE, 0, &[]);
            self.step(&[b"XADD", &stream, id.as_bytes(), entry::FIELD, &value]);
        }
        self.step(&[b"DEL", &key]);
        if let Some(run_id) = self.vouching.last_trusted() {
            let key = self.keys.vouches(run_id);
            self.step(&[b"DEL", &key]);
        }
        self.step(&[b"HSET", &key, vouching::DONE, done.to_string().as_bytes()]);
        for (node, last) in counted {
            let (field, last) = (vouching::counted_field(*node), last.to_string());
            self.step(&[b"HSET", &key, field.as_bytes(), last.as_bytes()]);
        }
        if resets {
            self.step(&[b"HSET", &key, vouching::RESET, b"1"]);
            // If the log has records that this node has not read, their number is unknown.
            let is_known = *end_id <= last_id && self.read.position > 0;
            self.append_renumbering(if is_known { self.read.position + 1 } else { 0 });
        }
        self.step(&[b"EXEC"]);
    }

    /// Says that the log lacks the records up to a place: processes without a state wait for a
    /// snapshot, which is due at once. It removes the pieces of the one with this name.
    fn announce_snapshot(&mut self, name: u64, end: LogEnd) {
        let value = SnapshotEntry::new(name, end).encode();
        let snapshots = self.keys.snapshots().to_vec();
        self.step(&[b"XADD", &snapshots, b"MAXLEN", b"1", b"*", entry::FIELD, &value]);
    }

    /// Appends a record that begins a numbering of ids.
    fn append_renumbering(&mut self, position: u64) {
        let value = entry::encode(NO_NODE, position, &self.renumbering);
        let stream = self.keys.stream().to_vec();
        self.step(&[b"XADD", &stream, b"*", entry::FIELD, &value]);
    }
}
