//! Standard output and standard error of a command.

use std::io::{self, Write};

use super::exit_status::Failure;

/// Prints a line on standard error.
pub(super) fn eprint_line(line: &str) {
    // If standard error is closed, nothing is left to report to.
    let _ = writeln!(io::stderr(), "speak: {line}");
}

/// Prints text on standard output, and flushes it.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .map_err(|_| Failure::OutputClosed)
}
