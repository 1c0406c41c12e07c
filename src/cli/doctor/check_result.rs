//! Results of checks, as lines that a person and a script can read.

use super::fix::{Fix, Proxy};
use crate::cli::format::printable;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// There was nothing to check.
    Skip,
    Ok,
    /// The server works, but less well than it could.
    Warn,
    Fail,
}

/// Result of one check.
#[derive(Debug)]
pub(super) struct CheckResult {
    pub level: Level,
    /// One line in plain words.
    text: String,
    /// None if there is no problem, or no setting that is known to fix it.
    fix: Option<Fix>,
}

// Not inlined: a hundred places call these functions, and the program should stay small.
impl CheckResult {
    #[inline(never)]
    pub fn ok(text: impl Into<String>) -> Self {
        Self { level: Level::Ok, text: text.into(), fix: None }
    }

    #[inline(never)]
    pub fn skip(text: impl Into<String>) -> Self {
        Self { level: Level::Skip, text: text.into(), fix: None }
    }

    #[inline(never)]
    pub fn warn(text: impl Into<String>, fix: Fix) -> Self {
        Self { level: Level::Warn, text: text.into(), fix: Some(fix) }
    }

    #[inline(never)]
    pub fn fail(text: impl Into<String>, fix: Fix) -> Self {
        Self { level: Level::Fail, text: text.into(), fix: Some(fix) }
    }

    /// Makes a failure that no known setting fixes.
    #[inline(never)]
    pub fn unexpected(text: impl Into<String>) -> Self {
        Self { level: Level::Fail, text: text.into(), fix: None }
    }

    /// Returns one line about `check`, and indented lines with the fix for `proxy`, or for all
    /// proxies if the proxy is not known.
    pub fn to_lines(&self, check: &str, proxy: Option<Proxy>) -> String {
        let level = match self.level {
            Level::Skip => "skip",
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        let mut lines = format!("{level:<5} {check:<10} {}\n", printable(&self.text));
        let fixes = self.fix.map(|fix| fix.for_proxy(proxy)).unwrap_or_default();
        lines.extend(fixes.iter().map(|fix| format!("                 {fix}\n")));
        lines
    }
}
