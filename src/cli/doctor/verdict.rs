//! What a check found, as a line that a person and a script can read.

use super::fix::{Mend, Proxy};
use crate::cli::format::printable;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// There was nothing to try.
    Skip,
    Fine,
    /// It works, but less well than it could.
    Warn,
    Fail,
}

/// The outcome of one check.
#[derive(Debug)]
pub(super) struct CheckResult {
    pub level: Level,
    /// In plain words, a line.
    pub text: String,
    pub fix: Option<Mend>,
}

// Not inlined: there are a hundred places that call these, and the program is to stay small.
impl CheckResult {
    #[inline(never)]
    pub fn ok(words: impl Into<String>) -> Self {
        Self { level: Level::Fine, text: words.into(), fix: None }
    }

    #[inline(never)]
    pub fn skip(words: impl Into<String>) -> Self {
        Self { level: Level::Skip, text: words.into(), fix: None }
    }

    #[inline(never)]
    pub fn warn(words: impl Into<String>, mend: Mend) -> Self {
        Self { level: Level::Warn, text: words.into(), fix: Some(mend) }
    }

    #[inline(never)]
    pub fn fail(words: impl Into<String>, mend: Mend) -> Self {
        Self { level: Level::Fail, text: words.into(), fix: Some(mend) }
    }

    /// A failure that no line of a configuration is known for.
    #[inline(never)]
    pub fn unexpected(words: impl Into<String>) -> Self {
        Self { level: Level::Fail, text: words.into(), fix: None }
    }

    /// A line, and behind it what mends it in `proxy`, or in each that is known where nobody knows which it is.
    pub fn text(&self, check: &str, proxy: Option<Proxy>) -> String {
        let level = match self.level {
            Level::Skip => "skip",
            Level::Fine => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        let mut text = format!("{level:<5} {check:<10} {}\n", printable(&self.text));
        let lines = self.fix.map(|mend| mend.lines(proxy)).unwrap_or_default();
        text.extend(lines.iter().map(|line| format!("                 {line}\n")));
        text
    }
}
