//! `speak-bench`: measures Speak against its peers and a baseline. See `bench/README.md`.
//!
//! `run` compares all of them, `drive` loads one running server, `baseline` is the baseline itself,
//! `journal` measures what the journal costs on a disk.
//! Modules from the bottom: `dialect`, `target`, `peer_wire`, `wire`, `stats` and `sample` are
//! values; `client` and `tls_client` have the sockets, `window`, `server` and `peers` the
//! processes; `writers`, `fanout`, `closed_loop` and `churn` load a server and `work` names the
//! loads; `plan` and `peer_plan` list the comparisons, `run` executes them; `outcome` has the
//! results, and `table`, `json`, `plot` and `curves` print them. `journal` has a run of its own,
//! with `disk`, `turns` and `journal_table`.

use std::process::ExitCode;

mod arguments;
mod baseline;
mod busy;
mod churn;
mod client;
mod closed_loop;
mod cluster;
mod cluster_table;
mod curves;
mod dialect;
mod disk;
mod fanout;
mod journal;
mod journal_table;
mod json;
mod outcome;
mod peer_plan;
mod peer_wire;
mod peers;
mod plan;
mod plot;
mod records;
mod result;
mod run;
mod sample;
mod server;
mod stats;
mod table;
mod target;
mod tls_client;
mod turns;
mod window;
mod wire;
mod work;
mod writers;

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
