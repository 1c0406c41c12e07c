//! The table of figures that ends a run.

use std::fmt::Write as _;
use std::time::Duration;

use crate::world::World;

impl World {
    pub(crate) fn describe_figures(&self, seed: u64, took: Duration) -> String {
        let kib = |bytes: u64| format!("{} KiB", bytes / 1024);
        let ms = |time: Duration| format!("{} ms", time.as_millis());
        let mut rows: Vec<(String, String)> = Vec::new();
        let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
        let (figures, takeover) = (&self.figures, &self.takeover);
        row("seed", seed.to_string());
        row("seconds", format!("{:.1}", took.as_secs_f64()));
        row("users", self.users.len().to_string());
        row("users in channels at once, at most", figures.users_most.to_string());
        row("clients at once, at most", figures.clients_most.to_string());
        row("channels", self.names.len().to_string());
        for (name, count) in &figures.counts {
            row(name, count.to_string());
        }
        row("introductions", self.ledger.introductions.to_string());
        for (reason, count) in &self.ledger.goodbyes {
            row(&format!("goodbyes: {reason:?}").to_lowercase(), count.to_string());
        }
        row("deliveries", self.ledger.sights.to_string());
        row("ids that no reader saw", self.ledger.unseen_ids.to_string());
        row("resident: histories full, no users", kib(figures.memory.before));
        row("resident: most", kib(figures.memory.peak));
        row("resident: at the last rest", kib(figures.memory.after));
        row("most by an earlier rest of the same server", format!("{:.3}", figures.memory.growth));
        let us = figures.cpu_ns as f64 / 1_000.0;
        row("CPU time of the server", format!("{:.2} s", us / 1e6));
        let deliveries = self.ledger.sights.max(1) as f64;
        row("CPU time per delivery", format!("{:.2} µs", us / deliveries));
        row("upgrades", takeover.upgrades.to_string());
        row("longest upgrade, until the predecessor had left", ms(takeover.longest));
        if self.launcher.journal.is_some() {
            row("longest start with a journal", ms(figures.longest_recovery));
        }
        for (pauses, when) in figures.pauses.iter().zip(["outside of upgrades", "during upgrades"])
        {
            row(&format!("longest without a response, {when}"), ms(pauses.all));
            row(&format!("longest call, {when}"), ms(pauses.one));
        }
        row("longest lag seen", ms(self.clock.lag_most));
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let mut table = String::new();
        for (name, value) in rows {
            _ = writeln!(table, "{name:width$}  {value:>12}");
        }
        table
    }
}
