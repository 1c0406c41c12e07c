//! Records of a log that several processes share.

use super::commits::CommitRecord;
use super::listener::Listener;
use super::service::Service;
use crate::hub::{Millis, Now};
use crate::log::SharedRecord;

impl<L: Listener> Service<L> {
    /// Begins to apply a record, of this process or of another one, unless it came before.
    pub(super) fn begin_shared_record(&mut self, record: &SharedRecord) {
        let hub = &mut self.hub;
        let SharedRecord { position, node, sequence, mono_ms, unix_ms, .. } = *record;
        let now = hub.record_time(Now { mono: Millis(mono_ms), unix_ms });
        let is_new = hub.begin_record(now, node, sequence);
        let pending = if record.is_pending { self.take_pending_record() } else { None };
        let commits = &mut self.commits;
        if !is_new {
            commits.position = position;
            return;
        }
        // Of another process, or one that this process has given up to load a state.
        let mut applying = pending.unwrap_or_else(|| commits.new_foreign_record(&record.commands));
        (applying.position, applying.now) = (position, now);
        commits.applying = Some(applying);
    }

    /// Takes the record that this process appended, since it has come back: the log responds, and
    /// this process was in the cluster when the record was appended.
    fn take_pending_record(&mut self) -> Option<Box<CommitRecord>> {
        let Self { hub, io, commits, .. } = self;
        let now = io.now.mono;
        commits.heard_at = Some(now);
        commits.withdrawn_at = None;
        if commits.is_heartbeat_late {
            commits.heartbeat_at = now;
        }
        let pending = commits.record.take()?;
        hub.note_round_trip(pending.now.mono, now);
        Some(pending)
    }
}
