//! `speak-bench`: measures Speak beside nchan, nginx and a floor. See `bench/README.md`.
//!
//! `run` compares all of them, `drive` puts one load on a server that already runs, `floor` is the
//! floor itself. Modules from the bottom: `wire` and `stats` are values; `client` has the sockets, `window`
//! and `server` the processes; `crowd`, `closed` and `churn` are ways to load a server and `work` names them;
//! `plan` says what is compared, `run` does it, `table`, `json` and `plot` show it.

use std::process::ExitCode;

mod arguments;
mod churn;
mod client;
mod closed;
mod crowd;
mod floor;
mod json;
mod plan;
mod plot;
mod run;
mod server;
mod stats;
mod table;
mod window;
mod wire;
mod work;

use arguments::Command;

/// Errors end the run and are told in a line: nobody handles one kind apart from another.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A run in which nothing comes for this long has failed. Servers under valgrind are slow.
const STALL: std::time::Duration = std::time::Duration::from_secs(20);

fn main() -> ExitCode {
    let done = arguments::parse().and_then(|command| match command {
        Command::Help => {
            print!("{}", arguments::HELP);
            Ok(())
        }
        Command::Floor => floor::serve(),
        Command::Drive { target, work } => run::drive(&target, work),
        Command::Run(options) => run::run(&options),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("speak-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
