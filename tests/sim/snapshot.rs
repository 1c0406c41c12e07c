//! The hub is saved and restored by another process: only the time that passed tells the two apart.

use speak::hub::{LogHealth, Now};
use speak::snapshot;

use super::world::World;

impl World {
    /// Between two turns, writes the hub down, answers pending reads with nothing, and reads a new
    /// hub. Time passes in between, and the wall clock may be anywhere then.
    pub(crate) fn restore_from_snapshot(&mut self) {
        self.end_turn();
        let reads_end_ms = self.random.pick(&[0, 0, 40, 1_000]);
        let away_ms = self.random.pick(&[0, 0, 30, 2_000, 80_000]);
        let mut bytes = Vec::new();
        snapshot::write(&self.hub, self.now, reads_end_ms, &mut bytes)
            .expect("a Vec takes everything");
        self.record.tally.count_if(!self.model.pending.is_empty(), "hub saved with a pending read");
        self.model.begin_turn(self.now);
        self.model.restore_from_snapshot(reads_end_ms);
        self.hub.complete_all_empty(self.now);
        self.deliver();
        let unix_ms = self.now.unix_ms + away_ms;
        let config = self.plan.limits.config("elsewher", [0; 16]);
        let (hub, now) =
            snapshot::read(&config, unix_ms, &mut bytes.as_slice()).expect("a snapshot");
        self.hub = hub;
        if let Some(log) = &mut self.log {
            self.hub.begin_logging();
            log.begun = None;
            if let Some(machine) = &mut log.machine {
                machine.hand_over();
            }
            self.model.forget_unshared();
            self.set_health(LogHealth::Good);
        }
        // Keys of reads are the old hub's: the new one has none.
        self.reads.clear();
        self.restored = self.hub.gauges().messages as u64;
        self.record.step(|| format!("saved, away for {away_ms} ms: {now:?}"));
        self.now = Now { mono: self.now.mono.after(away_ms), unix_ms };
        assert_eq!((now.mono, now.unix_ms), (self.now.mono, unix_ms), "the clock continues");
        self.model.begin_turn(self.now);
        self.model.add_downtime(away_ms);
        self.record.tally.count("hub restored");
        self.record.tally.count_if(!self.model.living().is_empty(), "session restored");
    }
}
