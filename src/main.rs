//! Entry point: options, then the server in its sandbox, or a command of the CLI.

#![deny(unsafe_code)]

mod activation_fds;
mod allocator;
#[cfg(target_pointer_width = "64")]
mod own_pages;
#[cfg(all(target_env = "musl", not(debug_assertions)))]
mod unwinder;

use std::io::Write;
use std::process::ExitCode;

use log::LevelFilter;
use speak::cli;
use speak::options::{self, BadOption, Command, Options};
use speak::sandbox::Sandbox;
use speak::server::{self, ActivatedSocket, Server, StartError};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let variable = |name: &str| std::env::var_os(name);
    if let Some(code) = cli::run(&arguments, variable) {
        return code;
    }
    let options = match options::parse(arguments, variable) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Print(text)) => {
            // Fails only if standard output is closed: the reader wants no more.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(BadOption(line)) => {
            let _ = writeln!(std::io::stderr(), "speak: {line}");
            return ExitCode::from(2);
        }
    };
    if options.check {
        return check(&options);
    }
    let activated = activation_fds::take();
    server::start_log(options.log);
    match activated.and_then(|activated| start(&options, activated)) {
        Ok(server) => server.run(),
        Err(error) => report(&error),
    }
}

/// Prints why the server cannot start. Returns the exit status.
fn report(StartError(line): &StartError) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "speak: {line}");
    ExitCode::FAILURE
}

/// Checks what a start needs, for `--check`. Returns the exit status that a start would have.
fn check(options: &Options) -> ExitCode {
    // The findings are lines of their own.
    server::start_log(options.log.min(LevelFilter::Warn));
    let checked = Sandbox::plan(options).map_err(StartError);
    match checked.and_then(|sandbox| server::check(options, sandbox)) {
        Ok(()) => {
            warn_of_unknown_variables();
            ExitCode::SUCCESS
        }
        Err(error) => report(&error),
    }
}

/// Starts the server: first the steps that need privileges, then the sandbox, which drops them.
fn start(options: &Options, activated: Vec<ActivatedSocket>) -> Result<Server, StartError> {
    #[cfg(target_env = "gnu")]
    allocator::merge_at_once();
    let sandbox = Sandbox::plan(options).map_err(StartError)?;
    let mut server = Server::start(options, activated)?;
    sandbox.enter(server.ports(), &server.outgoing_ports()).map_err(StartError)?;
    #[cfg(any(target_env = "gnu", target_env = "musl"))]
    server.set_heap_trim(allocator::trim);
    server.start_serving()?;
    // Last, since a start that fails has one line.
    warn_of_unknown_variables();
    #[cfg(target_pointer_width = "64")]
    own_pages::release();
    Ok(server)
}

fn warn_of_unknown_variables() {
    let names = std::env::vars_os().map(|(name, _)| name);
    let known = [cli::SERVER_ENV, server::UPGRADE_ENV, server::BOOT_ID_ENV];
    let known = [&known[..], &server::CLUSTER_VARIABLES[..]].concat();
    for line in options::unknown_variables(names, &known) {
        log::warn!("{line}");
    }
}
