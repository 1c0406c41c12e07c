//! A stress run that checks itself: users come, talk, read, are slow and leave in all ways, while
//! the server is killed, restarted and upgraded. One ledger compares all that they see.
//!
//! From the bottom: `tls`, `link` (sockets that misbehave) and `server`; `read`, `client` and
//! `user` are the states of a client and a user; `clock`, `takeover`, `cluster` and `figures` are
//! parts of `world`, which has the loop. `responses`, `calls`, `users`, `leaving`, `brief` and
//! `recovery` are the actions of clients; `disturbance`, `upgrade`, `nodes` and `round` lead the
//! run, and `report` prints its figures.

use std::process::ExitCode;

use lexopt::prelude::*;
use support::fault::Fault;

use crate::disturbance::Disturbance;

mod brief;
mod calls;
mod client;
mod clock;
mod cluster;
mod disturbance;
mod figures;
mod leaving;
mod link;
mod nodes;
mod read;
mod recovery;
mod report;
mod responses;
mod round;
mod run;
mod server;
mod takeover;
mod tls;
mod upgrade;
mod user;
mod users;
mod world;

const HELP: &str = "\
Checks Speak under churn, upgrades and kills.

speak-stress --speak PROGRAM [--seconds 60] [--users 1000] [--seed N] [--upgrades 10]
             [--disturb kill,stop,state,kill-old,kill-new] [--journal always|os] [--nodes 3]
             [--tls]
    Has users come, talk, read and leave in all ways; upgrades, kills, stops and restarts the
    server; checks all that is seen. Ends with the first fault, or with figures.
    --disturb none --upgrades 0 leaves the server alone.
    --journal has the server keep a journal, synced as named, and kills it about every second.
    --nodes has several servers share a Redis: nodes and Redis are killed and paused. --upgrades is
    for the first node, and --disturb takes kill-node, pause-node-1, -4, -10, pause-redis-1, -4,
    kill-redis, and upgrade-node.
    --tls has the users speak TLS.
";

fn main() -> ExitCode {
    match parse().and_then(|options| options.map_or(Ok(()), |options| run::run(&options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("speak-stress: {fault}");
            ExitCode::FAILURE
        }
    }
}

/// Parses the command line. `None` if it asks for help.
fn parse() -> Result<Option<run::Options>, Fault> {
    let mut parser = lexopt::Parser::from_env();
    let (mut speak, mut seconds, mut users, mut seed) = (None, 60, 1000, None);
    let (mut disturbances, mut upgrades, mut journal, mut nodes) = (None, 10, None, 1);
    let mut has_tls = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(None);
            }
            Long("speak") => speak = Some(parser.value()?.into()),
            Long("seconds") => seconds = parser.value()?.parse()?,
            Long("users") => users = parser.value()?.parse()?,
            Long("upgrades") => upgrades = parser.value()?.parse()?,
            Long("seed") => seed = Some(parser.value()?.parse()?),
            Long("nodes") => nodes = parser.value()?.parse()?,
            Long("journal") => journal = Some(parser.value()?.parse()?),
            Long("tls") => has_tls = true,
            Long("disturb") => {
                let names = parser.value()?.string()?;
                let names = names.split(',').filter(|name| *name != "none");
                disturbances = Some(names.map(Disturbance::parse).collect::<Result<_, _>>()?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let speak = speak.ok_or_else(|| Fault::new("give --speak PROGRAM"))?;
    let is_cluster = nodes > 1;
    let all = if is_cluster { Disturbance::of_cluster } else { Disturbance::all };
    let disturbances = disturbances.unwrap_or_else(all);
    Ok(Some(run::Options {
        speak,
        seconds,
        users,
        seed,
        disturbances,
        upgrades,
        journal,
        nodes,
        has_tls,
    }))
}
