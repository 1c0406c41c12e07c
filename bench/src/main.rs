//! `speak-bench`: measures Speak against nchan, nginx and a baseline. See `bench/README.md`.
//!
//! `run` compares all of them, `drive` loads one running server, `baseline` is the baseline itself,
//! `journal` measures what the journal costs on a disk.
//! Modules from the bottom: `wire`, `stats` and `sample` are values; `client` has the sockets,
//! `window` and `server` the processes; `fanout`, `closed_loop` and `churn` load a server and
//! `work` names the loads; `plan` lists the comparisons, `run` executes them; `outcome` has the
//! results, and `table`, `json` and `plot` print them. `journal` has a run of its own, with `disk`,
//! `turns` and `journal_table`.

use std::process::ExitCode;

mod arguments;
mod baseline;
mod busy;
mod churn;
mod client;
mod closed_loop;
mod cluster;
mod cluster_table;
mod disk;
mod fanout;
mod journal;
mod journal_table;
mod json;
mod outcome;
mod plan;
mod plot;
mod records;
mod result;
mod run;
mod sample;
mod server;
mod stats;
mod table;
mod turns;
mod window;
mod wire;
mod work;

use arguments::Command;

fn main() -> ExitCode {
    let done = arguments::parse().and_then(|command| match command {
        Command::Help => {
            print!("{}", arguments::HELP);
            Ok(())
        }
        Command::Baseline => baseline::serve(),
        Command::Cluster(options) => cluster::run(&options),
        Command::Drive { target, work } => run::drive(&target, work),
        Command::Journal(options) => journal::run(&options),
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
