//! The record of a run.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

/// Use of the steps.
pub(crate) enum Trace {
    Forgotten,
    Printed,
    Kept(RefCell<Vec<String>>),
}

/// Number of times that each thing happened.
#[derive(Default)]
pub(crate) struct Tally(RefCell<BTreeMap<String, u64>>);

impl Tally {
    pub(crate) fn count(&self, what: &str) {
        self.count_if(true, what);
    }

    pub(crate) fn count_if(&self, holds: bool, what: &str) {
        if holds {
            self.add(what, 1);
        }
    }

    pub(crate) fn count_those(&self, rules: &[(&str, bool)]) {
        for (what, holds) in rules {
            self.count_if(*holds, what);
        }
    }

    pub(crate) fn add_all(&self, other: &Self) {
        for (what, times) in &*other.0.borrow() {
            self.add(what, *times);
        }
    }

    pub(crate) fn times(&self, what: &str) -> u64 {
        self.0.borrow().get(what).copied().unwrap_or(0)
    }

    pub(crate) fn add(&self, what: &str, times: u64) {
        *self.0.borrow_mut().entry(what.to_owned()).or_default() += times;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.borrow().iter().try_for_each(|(what, times)| writeln!(f, "{times:>9} {what}"))
    }
}

pub(crate) struct Record {
    pub(crate) notes: Trace,
    pub(crate) steps: u64,
    pub(crate) tally: Tally,
}

impl Record {
    pub(crate) fn new(notes: Trace) -> Self {
        Self { notes, steps: 0, tally: Tally::default() }
    }

    pub(crate) fn note(&self, line: impl FnOnce() -> String) {
        match &self.notes {
            Trace::Forgotten => {}
            Trace::Printed => println!("{}", line()),
            Trace::Kept(lines) => lines.borrow_mut().push(line()),
        }
    }

    pub(crate) fn step(&mut self, line: impl FnOnce() -> String) {
        self.steps += 1;
        self.note(line);
    }
}
