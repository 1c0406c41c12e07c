//! What a cluster costs: CPU time and latency of a write, CPU time of Redis and of a node for a
//! record, fan-out to readers at several nodes, and the lag of the log. Each with its goal.

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::process::{Cores, Running, pin, raise_file_limit};
use support::redis::Redis;

use crate::busy::Busy;
use crate::client::Client;
use crate::closed_loop::{self, Closed};
use crate::cluster_table::{Figures, Row};
use crate::records::{Copies, Pipeline};
use crate::result::{Result, STALL};
use crate::sample::Sample;
use crate::server::{Target, start_with_admin};
use crate::stats::Latency;
use crate::turns::Page;
use crate::window::Window;
use crate::wire::{self, Dialect, Form};
use crate::work::{self, Fanout};

/// Rounds, unless the command line says otherwise.
pub(crate) const ROUNDS: usize = 4;

/// CPU time of a write, in a cluster of one node and without a cluster.
const WRITE_MAX: f64 = 1.5;
/// CPU time of Redis for a record and each further node, in µs.
const REDIS_MAX: f64 = 4.0;
/// CPU time of a node for a record of one write, in µs.
const APPLY_MAX: f64 = 2.0;
/// Round trips to Redis by which a write takes longer than without a cluster.
const TRIPS_MAX: f64 = 2.0;
/// CPU time of a delivery, in a cluster and at as many servers without a cluster.
const DELIVERY_MAX: f64 = 1.03;

/// Connections with one write on its way each.
const CONNECTIONS: [usize; 3] = [64, 16, 1];
/// Time of a measurement of writes, after so many writes that are not measured.
const WRITE_TIME: Duration = Duration::from_millis(400);
const WARM_UP: usize = 1_024;
/// Numbers of nodes that follow the same records. Nodes leave, since one that joins takes a time in
/// which the others could take the writer for dead.
const FOLLOWERS: [usize; 3] = [4, 2, 1];
/// Records that are sent together, and how often. The next ones follow when Redis has taken these.
const PIPELINED: usize = 16;
const BATCHES: usize = 1_500;
/// The same with pauses: 16,000 records a second. The nodes sleep before each batch, so each costs
/// two turns and wakes of every node.
const PAUSED_BATCHES: usize = 300;
const PAUSE: Duration = Duration::from_millis(1);
/// Numbers of nodes over which the readers are spread.
const SPREAD: [usize; 3] = [1, 2, 4];
/// With fewer readers, the record that each node applies is a larger part of a delivery.
const FANOUT: Fanout = Fanout { readers: 4_000, messages: 20, form: Form::Plain };
/// One reader, for the time until it has a message.
const LAG: Fanout = Fanout { readers: 1, messages: 400, form: Form::Events };

/// Options of `cluster`.
pub(crate) struct Options {
    pub(crate) speak: PathBuf,
    /// The nodes connect to Redis by a Unix socket instead of TCP.
    pub(crate) is_unix: bool,
    pub(crate) rounds: usize,
    /// Parts to measure. All of them if it is empty.
    pub(crate) only: Vec<String>,
    /// Directory of the file with the figures.
    pub(crate) results: PathBuf,
}

/// The machine, and what was measured.
struct Bench<'a> {
    options: &'a Options,
    cores: Cores,
    busy: Busy,
}

/// Nodes of one cluster, or one server without a cluster.
struct Servers {
    nodes: Vec<Node>,
    /// Ended after the nodes.
    redis: Option<Redis>,
}

struct Node {
    target: Target,
    admin: SocketAddrV4,
    running: Running,
}

/// Writes of some connections.
struct Writes {
    /// µs of the server, and of Redis.
    cost: f64,
    redis: f64,
    /// Writes that share a record.
    each_record: f64,
}

/// Measures, prints the table, and writes the file.
pub(crate) fn run(options: &Options) -> Result<()> {
    raise_file_limit()?;
    let cores = Cores::choose()?;
    pin(cores.generator)?;
    let start = Instant::now();
    let mut bench = Bench { options, cores, busy: Busy::default() };
    let mut writes = CONNECTIONS.map(write_row);
    let mut latency = latency_row();
    let mut records = [redis_row(), apply_row()];
    let mut fanout = SPREAD.map(fanout_row);
    let mut lag = lag_row();
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for (row, connections) in writes.iter_mut().zip(CONNECTIONS) {
            if options.has("write") {
                bench.compare_writes(connections, row)?;
            }
        }
        if options.has("follow") {
            bench.follow(&mut records)?;
        }
        if options.has("fanout") {
            bench.compare_fanout(&mut fanout)?;
        }
        if options.has("lag") {
            bench.compare_lag(&mut latency, &mut lag)?;
        }
    }
    let mut rows: Vec<Row> = writes.into();
    rows.push(latency);
    rows.extend(records);
    rows.extend(fanout);
    rows.push(lag);
    let Bench { busy, .. } = bench;
    let Options { is_unix, rounds, .. } = *options;
    let figures = Figures { rows, busy, is_unix, rounds, took: start.elapsed() };
    print!("{}", figures.render());
    std::fs::create_dir_all(&options.results)?;
    let path = options.results.join("cluster.json");
    let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    std::fs::write(&path, serde_json::to_string_pretty(&figures.to_json(at))? + "\n")?;
    eprintln!("written: {}", path.display());
    Ok(())
}

fn write_row(connections: usize) -> Row {
    Row {
        name: format!("write{connections}"),
        label: format!(
            "CPU of a write at the node ÷ without a cluster, connections: {connections}"
        ),
        at_most: Some(WRITE_MAX),
        ..Row::default()
    }
}

fn latency_row() -> Row {
    Row {
        name: "latency".into(),
        label: "from a write until a reader at its node has it, in round trips to Redis more than \
                without a cluster"
            .into(),
        at_most: Some(TRIPS_MAX),
        ..Row::default()
    }
}

fn redis_row() -> Row {
    Row {
        name: "redis".into(),
        label: format!("CPU of Redis for a record and each further node, {PIPELINED} pipelined"),
        unit: "µs",
        at_most: Some(REDIS_MAX),
        ..Row::default()
    }
}

fn apply_row() -> Row {
    Row {
        name: "apply".into(),
        label: format!("CPU of a node for a record of one write, {PIPELINED} pipelined"),
        unit: "µs",
        at_most: Some(APPLY_MAX),
        ..Row::default()
    }
}

fn fanout_row(nodes: usize) -> Row {
    let readers = FANOUT.readers;
    Row {
        name: format!("fanout{nodes}"),
        label: format!(
            "CPU of a delivery to {readers} long polls ÷ as many servers without a cluster, nodes: \
             {nodes}"
        ),
        at_most: Some(DELIVERY_MAX),
        ..Row::default()
    }
}

fn lag_row() -> Row {
    Row {
        name: "lag".into(),
        label: "lag: from a write at one node until a reader at another one has it".into(),
        unit: "µs",
        ..Row::default()
    }
}

impl Options {
    fn has(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

impl Bench<'_> {
    /// Compares writes in a cluster of one node with those without a cluster.
    fn compare_writes(&mut self, connections: usize, row: &mut Row) -> Result<()> {
        let none = self.write(&self.start(0)?, connections)?;
        let servers = self.start(1)?;
        let cluster = self.write(&servers, connections)?;
        row.push(
            cluster.cost / none.cost,
            &[
                ("node", "µs", cluster.cost),
                ("without", "µs", none.cost),
                ("Redis", "µs", cluster.redis),
                ("writes a record", "", cluster.each_record),
            ],
        );
        Ok(())
    }

    fn write(&mut self, servers: &Servers, connections: usize) -> Result<Writes> {
        let node = servers.first()?;
        let work = Closed {
            connections,
            depth: 1,
            requests: usize::MAX,
            at_most: WRITE_TIME,
            warm_up: WARM_UP,
        };
        let position = || Page::read(node.admin)?.value::<f64>("speak_log_position");
        let before = position()?;
        let sample = self.note(servers, closed_loop::publish(&node.target, self.cores, work))?;
        let records = position()? - before;
        let written = sample.operations as f64 + WARM_UP as f64;
        Ok(Writes {
            cost: sample.cost.ok_or("no CPU time of the server")?,
            redis: sample.figure("redis_us").unwrap_or(0.0),
            each_record: if records > 0.0 { written / records } else { 0.0 },
        })
    }

    /// Returns the time of a round trip to Redis from the core of the nodes, in µs.
    fn round_trip(&self, redis: &Redis) -> Result<f64> {
        let mut pipeline = Pipeline::connect(redis, self.options.is_unix)?;
        pin(self.cores.server)?;
        let trip = pipeline.round_trip();
        pin(self.cores.generator)?;
        Ok(trip?.as_secs_f64() * 1e6)
    }

    /// Measures nodes without clients, which apply the records of another one.
    fn follow(&mut self, [redis_row, apply_row]: &mut [Row; 2]) -> Result<()> {
        let mut servers = self.start(FOLLOWERS[0] + 1)?;
        let mut writer = servers.nodes.pop().ok_or("no node")?;
        let mut client = Client::connect(&writer.target, 0)?;
        let request = Dialect::Speak.write(0, 1).bytes;
        client.ask(&request, |frame| Dialect::Speak.written_id(frame))?;
        let redis = servers.redis.as_ref().ok_or("a cluster without a Redis")?;
        // No other process takes over from it while records come in its name.
        writer.running.kill()?;
        let mut copies = Copies::of(redis, &wire::message(0)[..8])?;
        let mut pipeline = Pipeline::connect(redis, self.options.is_unix)?;
        let mut written = 1;
        let mut of_redis = Vec::new();
        for followers in FOLLOWERS {
            servers.nodes.truncate(followers);
            let targets = servers.targets();
            let loads = [(BATCHES, Duration::ZERO), (PAUSED_BATCHES, PAUSE)];
            let samples = loads.map(|(batches, pause)| -> Result<Sample> {
                // The first ones pay for allocations that later ones reuse.
                copies.append(&mut pipeline, (batches / 10, PIPELINED), pause)?;
                let window = Window::open(&targets, self.cores)?;
                copies.append(&mut pipeline, (batches, PIPELINED), pause)?;
                let records = (batches * PIPELINED) as u64;
                written += records + records / 10;
                // A node that finds no core uses no CPU time, and seems to be idle.
                for target in &targets {
                    await_newest(target, written)?;
                }
                let sample = Sample::new(window.close()?, records);
                self.note(&servers, Ok(sample))
            });
            let [full, paused] = samples;
            let (full, paused) = (full?, paused?);
            let of_both = |sample: &Sample| sample.figure("redis_us").zip(sample.cost);
            let (full, paused) = of_both(&full).zip(of_both(&paused)).ok_or("no CPU time")?;
            of_redis.push((full.0, paused.0));
            if followers == 1 {
                apply_row.push(full.1, &[("with pauses", "µs", paused.1)]);
            }
        }
        let [four, two, one] = of_redis[..] else { return Err("a figure is missing".into()) };
        let further = (FOLLOWERS[0] - FOLLOWERS[2]) as f64;
        redis_row.push(
            (four.0 - one.0) / further,
            &[
                ("with 1 node", "µs", one.0),
                ("2 nodes", "µs", two.0),
                ("4 nodes", "µs", four.0),
                ("each further one with pauses", "µs", (four.1 - one.1) / further),
            ],
        );
        Ok(())
    }

    /// Compares deliveries at several nodes with those at as many servers without a cluster. They
    /// share a core as the nodes do, with as many readers each: processes that take turns on a core
    /// find its caches cold, and fewer requests at a time, whatever connects them.
    fn compare_fanout(&mut self, rows: &mut [Row]) -> Result<()> {
        let mut one = None;
        for (row, nodes) in rows.iter_mut().zip(SPREAD) {
            let none = self.fanout_apart(nodes)?.cost.ok_or("no CPU time of the servers")?;
            let cost = self.fanout(nodes, FANOUT)?.cost.ok_or("no CPU time of the nodes")?;
            let one = *one.get_or_insert(cost);
            let of_one = [("÷ one node", "", cost / one)];
            let parts = [("nodes", "µs", cost), ("without", "µs", none)];
            row.push(cost / none, &[&parts[..], &of_one[usize::from(nodes == 1)..]].concat());
        }
        Ok(())
    }

    fn fanout(&mut self, nodes: usize, work: Fanout) -> Result<Sample> {
        let servers = self.start(nodes)?;
        let sample = work::fanout(&servers.targets(), self.cores, work);
        self.note(&servers, sample)
    }

    /// Measures deliveries at servers that share nothing but their core.
    fn fanout_apart(&mut self, count: usize) -> Result<Sample> {
        let mut servers = Servers { nodes: Vec::new(), redis: None };
        for _ in 0..count {
            servers.nodes.push(self.start_node(None)?);
        }
        let sample = work::fanout_apart(&servers.targets(), self.cores, FANOUT);
        self.note(&servers, sample)
    }

    /// Compares the time until a reader has a message: at the node of the write, and at another.
    fn compare_lag(&mut self, latency_row: &mut Row, row: &mut Row) -> Result<()> {
        let mut latency = |nodes| -> Result<Latency> {
            // The reader is at the last node, the writer at the first one.
            Ok(self.fanout(nodes, LAG)?.latency.ok_or("no message came")?)
        };
        let (none, same, other) = (latency(0)?, latency(1)?, latency(2)?);
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let redis = Redis::start();
        let trip = self.round_trip(&redis)?;
        latency_row.push(
            (micros(same.half) - micros(none.half)) / trip,
            &[
                ("cluster", "µs", micros(same.half)),
                ("without", "µs", micros(none.half)),
                ("a round trip", "µs", trip),
            ],
        );
        row.push(
            micros(other.half),
            &[("p99", "µs", micros(other.p99)), ("at the same node", "µs", micros(same.half))],
        );
        Ok(())
    }

    /// Starts a cluster of this many nodes, or one server without a cluster.
    fn start(&self, nodes: usize) -> Result<Servers> {
        let mut servers = Servers { nodes: Vec::new(), redis: None };
        if nodes == 0 {
            servers.nodes.push(self.start_node(None)?);
            return Ok(servers);
        }
        let redis = Redis::start();
        redis.promise_no_nodes();
        servers.redis = Some(redis);
        for _ in 0..nodes {
            self.join(&mut servers)?;
        }
        Ok(servers)
    }

    /// Starts a node, and waits until it has joined.
    fn join(&self, servers: &mut Servers) -> Result<()> {
        let node = self.start_node(servers.redis.as_ref())?;
        let start = Instant::now();
        let mut client = Client::connect(&node.target, 0)?;
        let health = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
        while client.ask(health, |frame| Ok(frame.status))? != Some(200) {
            if start.elapsed() > STALL {
                return Err(format!("a node does not join\n{}", node.running.log_end()).into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        servers.nodes.push(node);
        Ok(())
    }

    fn start_node(&self, redis: Option<&Redis>) -> Result<Node> {
        let mut command = Command::new(&self.options.speak);
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        // No read may time out while servers are prepared.
        command.args(["--poll-timeout", "10m"]);
        if let Some(redis) = redis {
            let url = if self.options.is_unix { redis.unix_url() } else { redis.url() };
            command.args(["--cluster", &url]);
        }
        let (running, address, admin) = start_with_admin(command, self.cores)?;
        let target = Target {
            process: Some(running.process()),
            redis: redis.map(Redis::process),
            ..Target::new(address, Dialect::Speak)
        };
        Ok(Node { target, admin, running })
    }

    /// Notes what others took, or adds the end of a log to an error.
    fn note(&mut self, servers: &Servers, sample: Result<Sample>) -> Result<Sample> {
        let node = servers.first()?;
        let sample = sample.map_err(|error| format!("{error}\n{}", node.running.log_end()))?;
        let mut starved = Duration::ZERO;
        // Several nodes share a core, so they wait for each other.
        if let [node] = &servers.nodes[..] {
            starved = node.running.process().starved()?;
        }
        self.busy.note(starved, sample.disturbed);
        Ok(sample)
    }
}

impl Servers {
    fn first(&self) -> Result<&Node> {
        Ok(self.nodes.first().ok_or("no server")?)
    }

    fn targets(&self) -> Vec<Target> {
        self.nodes.iter().map(|node| node.target).collect()
    }
}

/// Waits until a node has applied all writes. The newest message must have this id.
fn await_newest(target: &Target, id: u64) -> Result<()> {
    let request = Dialect::Speak.immediate_read(0, id, 1);
    let mut reader = Client::connect(target, 0)?;
    let start = Instant::now();
    loop {
        let answer = reader.ask(&request, |frame| Dialect::Speak.decode(frame, Form::Plain))?;
        if answer.first_id == Some(id) && answer.seqs.len() == 1 {
            return Ok(());
        }
        // A node that does not come to its core answers from what it has.
        if !answer.seqs.is_empty() || start.elapsed() > STALL {
            return Err(format!("a node has {answer:?}, and not only message {id}").into());
        }
    }
}
