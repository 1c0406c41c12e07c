//! Standard output and standard error of a command.

use std::io::{self, Write};

use super::outcome::Failure;

/// A line on standard error.
pub(super) fn eprint_line(line: &str) {
    // Whoever closed it does not want to read it.
    let _ = writeln!(io::stderr(), "speak: {line}");
}

/// Text on standard output, at once.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .map_err(|_| Failure::OutputClosed)
}
