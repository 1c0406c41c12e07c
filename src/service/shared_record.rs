//! Records of a log that several processes share.

use std::time::Duration;

use super::commits::{ApplyingRecord, PendingRecord};
use super::listener::Listener;
use super::service::Service;
use crate::hub::{Millis, Now, Proposals};
use crate::log::SharedRecord;

impl<L: Listener> Service<L> {
    /// Begins to apply a record, of this process or of another one, unless it came before.
    pub(super) fn begin_shared_record(&mut self, record: SharedRecord) {
        let Self { hub, io, commits, .. } = self;
        let SharedRecord { position, node, sequence, mono_ms, unix_ms, commands } = record;
        let now = hub.record_time(Now { mono: Millis(mono_ms), unix_ms });
        let is_new = hub.begin_record(now, node, sequence);
        if commands.is_none() {
            commits.heard_at = Some(io.now.mono);
        }
        let (proposals, waiting) = if let Some(commands) = commands {
            (Proposals::from_bytes(commands), Vec::new())
        } else {
            let pending = commits.record.take().expect("only a pending record comes back");
            let PendingRecord { proposals, waiting, .. } = pending;
            (proposals, waiting)
        };
        if !is_new {
            commits.position = position;
            return;
        }
        commits.applying = Some(ApplyingRecord {
            commands: proposals,
            waiting,
            now,
            position,
            flush: Duration::ZERO,
            index: 0,
            offset: 0,
            answered: 0,
        });
    }
}
