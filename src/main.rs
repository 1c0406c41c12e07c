//! Options to server to exit code, and nothing else.

#![deny(unsafe_code)]

mod memory;

use std::io::Write;
use std::process::ExitCode;

use speak::net::{self, Server, StartError};
use speak::options::{self, BadOption, Command};

fn main() -> ExitCode {
    let options = match options::parse(std::env::args_os().skip(1), |name| std::env::var_os(name)) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Print(text)) => {
            // Whoever closed our output does not want to read it.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(BadOption(line)) => {
            let _ = writeln!(std::io::stderr(), "speak: {line}");
            return ExitCode::from(2);
        }
    };
    net::start_log(options.log);
    match Server::start(&options) {
        Ok(server) => server.run(),
        Err(StartError(line)) => {
            let _ = writeln!(std::io::stderr(), "speak: {line}");
            ExitCode::FAILURE
        }
    }
}
