//! The command line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;
use support::process::Process;

use crate::closed_loop::Closed;
use crate::cluster;
use crate::journal;
use crate::plan::Length;
use crate::result::Result;
use crate::run::Options;
use crate::server::{Kind, Target};
use crate::wire::Form;
use crate::work::{Chat, Fanout, Work};

pub(crate) const HELP: &str = "\
Measures Speak against nchan, nginx and a baseline.

speak-bench run [--quick|--full|--peers] [--speak PROGRAM] [--against PROGRAM] [--rounds N]
                [--only PART,…] [--results FOLDER]
    Compares the servers, each started here; prints a table, and writes it as JSON and SVG.
    --peers compares with Socket.IO, ws, Pushpin and nchan, also over TLS.
    --only takes the parts whose name begins with PART. --against is another build of Speak: it
    is then the only peer, and the goals are in bench/README.md.

speak-bench drive WORK --at 127.0.0.1:PORT [--tls] [--target speak|nchan|nginx] [--pid PID]
                  [WHAT NUMBER]…
    Puts one load on a running server that has served nothing yet, and prints its cost as a line of
    JSON. --tls: the server has the certificate of the tests. WORK and WHAT:
        fanout, jsonp, events, frames
                         --readers 1000 --messages 20
        chat             --rooms 100 --users 10 --rate 1000 --messages 2000
        publish, poll    --connections 64 --depth 1 --requests 20000 --warm-up 0
                         poll: --messages 1
        churn, connect   --cycles 1000
        idle, idle-events, idle-frames
                         --readers 1000

speak-bench journal [--speak PROGRAM] [DIRECTORY]
    Measures what the journal costs on the disk of DIRECTORY (target), and prints a table with the
    goals. PROGRAM is target/release/speak.

speak-bench cluster [--speak PROGRAM] [--unix] [--rounds N] [--only write,follow,fanout,lag]
                    [--results FOLDER]
    Measures what a cluster costs with a Redis on this machine, which is started here and keeps
    nothing on the disk; prints a table with the goals, and writes it as JSON. --unix connects by a
    Unix socket instead of TCP.

speak-bench baseline
    Serves as the baseline on a free port and prints the address.
";

/// The parsed command line.
pub(crate) enum Command {
    Help,
    Baseline,
    Drive { target: Target, work: Work },
    Cluster(cluster::Options),
    Journal(journal::Options),
    Run(Options),
}

/// Parses the command line.
///
/// # Errors
///
/// Names an unknown argument, or an option without its value.
pub(crate) fn parse() -> Result<Command> {
    let mut parser = lexopt::Parser::from_env();
    match parser.next()? {
        Some(Value(name)) if name == "run" => parse_run(parser),
        Some(Value(name)) if name == "drive" => parse_drive(parser),
        Some(Value(name)) if name == "cluster" => parse_cluster(parser),
        Some(Value(name)) if name == "journal" => parse_journal(parser),
        Some(Value(name)) if name == "baseline" => Ok(Command::Baseline),
        None | Some(Short('h') | Long("help")) => Ok(Command::Help),
        Some(other) => Err(other.unexpected().into()),
    }
}

fn parse_run(mut parser: lexopt::Parser) -> Result<Command> {
    let mut options = Options { results: PathBuf::from("bench/results"), ..Options::default() };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("quick") => options.length = Length::Quick,
            Long("full") => options.length = Length::Full,
            Long("peers") => options.length = Length::Peers,
            Long("speak") => options.speak = Some(parser.value()?.into()),
            Long("against") => options.against = Some(parser.value()?.into()),
            Long("rounds") => options.rounds = Some(parser.value()?.parse()?),
            Long("results") => options.results = parser.value()?.into(),
            Long("only") => options.only = parse_list(&mut parser)?,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Run(options))
}

fn parse_list(parser: &mut lexopt::Parser) -> Result<Vec<String>> {
    Ok(parser.value()?.string()?.split(',').map(str::to_owned).collect())
}

fn parse_journal(mut parser: lexopt::Parser) -> Result<Command> {
    let (mut speak, mut directory) = (PathBuf::from("target/release/speak"), None);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("speak") => speak = parser.value()?.into(),
            Value(path) if directory.is_none() => directory = Some(PathBuf::from(path)),
            other => return Err(other.unexpected().into()),
        }
    }
    let directory = directory.unwrap_or_else(|| "target".into());
    Ok(Command::Journal(journal::Options { speak, directory }))
}

fn parse_cluster(mut parser: lexopt::Parser) -> Result<Command> {
    let mut options = cluster::Options {
        speak: PathBuf::from("target/release/speak"),
        is_unix: false,
        rounds: cluster::ROUNDS,
        only: Vec::new(),
        results: PathBuf::from("bench/results"),
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("speak") => options.speak = parser.value()?.into(),
            Long("unix") => options.is_unix = true,
            Long("rounds") => options.rounds = parser.value()?.parse()?,
            Long("only") => options.only = parse_list(&mut parser)?,
            Long("results") => options.results = parser.value()?.into(),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Cluster(options))
}

fn parse_drive(mut parser: lexopt::Parser) -> Result<Command> {
    let (mut name, mut at, mut kind, mut process) = (None, None, Kind::Speak, None);
    let mut is_tls = false;
    let mut numbers = Numbers::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(work) if name.is_none() => name = Some(work.string()?),
            Long("at") => at = Some(parser.value()?.parse()?),
            Long("target") => kind = Kind::parse(&parser.value()?.string()?)?,
            Long("tls") => is_tls = true,
            Long("pid") => process = Some(Process(parser.value()?.parse()?)),
            Long(what) => {
                let what = what.to_owned();
                numbers.0.insert(what, parser.value()?.parse()?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let work = numbers.work(&name.ok_or("drive what? see --help")?)?;
    if let Some(what) = numbers.0.keys().next() {
        return Err(format!("--{what} says nothing of that work").into());
    }
    let address = at.ok_or("drive where? give --at")?;
    let target = Target { process, is_tls, ..Target::new(address, kind.dialect()) };
    Ok(Command::Drive { target, work })
}

/// Numbers given to `drive`, by name. A workload removes those it uses.
#[derive(Default)]
struct Numbers(BTreeMap<String, u32>);

impl Numbers {
    fn take(&mut self, what: &str, otherwise: u32) -> usize {
        self.0.remove(what).unwrap_or(otherwise) as usize
    }

    fn work(&mut self, name: &str) -> Result<Work> {
        Ok(match name {
            "fanout" => Work::Fanout(self.fanout(Form::Plain)),
            "jsonp" => Work::Fanout(self.fanout(Form::Jsonp)),
            "events" => Work::Fanout(self.fanout(Form::Events)),
            "frames" => Work::Fanout(self.fanout(Form::Frames)),
            "chat" => Work::Chat(Chat {
                rooms: self.take("rooms", 100),
                users: self.take("users", 10),
                per_second: self.take("rate", 1000) as f64,
                messages: self.take("messages", 2000),
                form: Form::Plain,
            }),
            "publish" => Work::Publish(self.closed()?),
            "poll" => Work::Poll(self.closed()?, self.take("messages", 1)),
            "churn" => Work::Churn { cycles: self.take("cycles", 1000) },
            "connect" => Work::Connect { cycles: self.take("cycles", 1000) },
            "idle" => self.idle(Form::Plain),
            "idle-events" => self.idle(Form::Events),
            "idle-frames" => self.idle(Form::Frames),
            _ => return Err(format!("no such work: {name}").into()),
        })
    }

    fn fanout(&mut self, form: Form) -> Fanout {
        Fanout { readers: self.take("readers", 1000), messages: self.take("messages", 20), form }
    }

    fn idle(&mut self, form: Form) -> Work {
        Work::Idle { readers: self.take("readers", 1000), form }
    }

    fn closed(&mut self) -> Result<Closed> {
        let closed = Closed {
            connections: self.take("connections", 64),
            depth: self.take("depth", 1).max(1),
            requests: self.take("requests", 20_000),
            at_most: Duration::MAX,
            warm_up: self.take("warm-up", 0),
        };
        let whole = |count: usize| count.is_multiple_of(closed.depth);
        if whole(closed.requests) && whole(closed.warm_up) {
            Ok(closed)
        } else {
            Err("--requests and --warm-up must be multiples of --depth".into())
        }
    }
}
