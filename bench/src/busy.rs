//! What other processes took from a run.

use std::time::Duration;

/// Others use the cores if they take more than this share of one.
const DISTURBED: f64 = 0.05;

/// What other processes took.
#[derive(Default)]
pub(crate) struct Busy {
    /// Time for which servers could have run and had no core.
    starved: Duration,
    /// Largest share of a core.
    pub(crate) disturbed: f64,
}

impl Busy {
    pub(crate) fn note(&mut self, starved: Duration, disturbed: f64) {
        self.starved += starved;
        self.disturbed = self.disturbed.max(disturbed);
    }

    /// Returns the sentences after the table of a run that took this long.
    pub(crate) fn sentence(&self, took: Duration) -> String {
        let Self { starved, disturbed } = self;
        let others = if *disturbed > DISTURBED {
            format!("The machine was busy: others took up to {:.0} % of a core.", disturbed * 100.0)
        } else {
            "The machine was quiet.".to_owned()
        };
        format!(
            "\nAll took {:.0} s. The loop waited {:.0} ms for a core. {others}\n",
            took.as_secs_f64(),
            starved.as_secs_f64() * 1e3,
        )
    }
}
