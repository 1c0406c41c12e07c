//! The figures of a run, as a plain table.

use std::fmt::Write as _;
use std::time::Duration;

use super::world::World;

impl World {
    pub(super) fn deliveries(&self) -> u64 {
        self.delivered.values().sum()
    }

    /// All that was counted.
    pub(super) fn figures(&self, seed: u64, took: Duration) -> String {
        let mut rows: Vec<(String, String)> = Vec::new();
        let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
        row("seed", seed.to_string());
        row("seconds", format!("{:.1}", took.as_secs_f64()));
        row("users", self.users.len().to_string());
        row("of them in rooms at once, at most", self.here_most.to_string());
        row("clients at once, at most", self.clients_most.to_string());
        row("rooms", self.scene.names.len().to_string());
        for (name, count) in &self.counts {
            row(name, count.to_string());
        }
        row("introductions", self.scene.ledger.introductions.to_string());
        for (reason, count) in &self.scene.ledger.goodbyes {
            row(&format!("goodbyes: {reason:?}").to_lowercase(), count.to_string());
        }
        row("deliveries", self.deliveries().to_string());
        for (form, count) in &self.delivered {
            row(&format!("deliveries by {}", form.name()), count.to_string());
        }
        row("ids that no reader saw", self.scene.ledger.unseen_ids.to_string());
        let kib = |bytes: u64| format!("{} KiB", bytes / 1024);
        row("resident: histories full, nobody there", kib(self.memory.before));
        row("resident: most", kib(self.memory.peak));
        row("resident: at the last rest", kib(self.memory.after));
        row("most by an earlier rest of the same server", format!("{:.3}", self.memory.growth));
        let ms = |time: Duration| format!("{} ms", time.as_millis());
        let us = self.cpu_ns as f64 / 1_000.0;
        row("CPU time of the server", format!("{:.2} s", us / 1e6));
        row("CPU time a delivery", format!("{:.2} µs", us / self.deliveries().max(1) as f64));
        row("upgrades", self.upgrades.to_string());
        row("longest upgrade, until the process before had left", ms(self.upgrade_most));
        for (pauses, when) in self.pauses.iter().zip(["without an upgrade", "amid an upgrade"]) {
            row(&format!("longest that no call was answered, {when}"), ms(pauses.all));
            row(&format!("longest that a call took, {when}"), ms(pauses.one));
        }
        row("longest lag seen", ms(self.lag_most));
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let mut table = String::new();
        for (name, value) in rows {
            _ = writeln!(table, "{name:width$}  {value:>12}");
        }
        table
    }
}
