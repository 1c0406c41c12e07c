//! One running server: started on a free port, killed and reaped when dropped.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::http::{Params, request, target};
use support::redis::Redis;

use super::client::Client;
use super::cluster::{Plan, pick, start_proxy};
use super::folder::Folder;
use super::identity::Identity;
use super::proxy::ProxyProcess;
use super::response::Response;
use super::running::Running;
use super::secrets;
use super::tls::{add_tls, note_listener};
use super::wait::{GUARD, until};

/// Time in which all nodes of a cluster have told each other about their readers.
const HEARTBEATS: Duration = Duration::from_millis(600);

/// Beginning of each of the first lines on standard error.
const GREETING: &str = concat!("speak ", env!("CARGO_PKG_VERSION"), " listening on ");

pub struct Server {
    child: Child,
    /// Listeners as announced: `http://127.0.0.1:PORT` or `unix:PATH`.
    urls: Vec<String>,
    log: Arc<Mutex<Vec<String>>>,
    log_reader: Option<JoinHandle<()>>,
    /// The test itself ended the process, so its end is no crash.
    ended: bool,
    /// The process that took over from the child; this process cannot wait for its end.
    successor: Option<Pid>,
    /// Folder of a journal that the test did not ask for.
    journal: Option<Folder>,
    /// Other nodes that the test did not ask for.
    cluster: Option<Cluster>,
}

/// Environment variable that makes each server keep a journal, with its value as
/// `--journal-sync`, unless the test sets `--journal` or `--state`.
const JOURNAL_ENV: &str = "SPEAK_TEST_JOURNAL";

/// Returns the server's command, with no options and without variables that would set some.
pub fn command() -> Command {
    let own = env!("CARGO_BIN_EXE_speak").to_owned();
    let mut command = Command::new(std::env::var("SPEAK_BIN").unwrap_or(own));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SPEAK_") {
            command.env_remove(name);
        }
    }
    if secrets::folder().is_some() {
        command.env("SPEAK_LOG", "debug");
    }
    command
}

/// Says whether servers keep a journal that their tests did not ask for.
pub fn has_journal() -> bool {
    std::env::var_os(JOURNAL_ENV).is_some()
}

/// Results of a process that ended by itself.
#[derive(Debug)]
pub struct Finished {
    /// The command line, for failure messages.
    pub command: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Claims a success that printed `stdout` and nothing else.
    #[track_caller]
    pub fn prints(&self, stdout: &str) {
        assert_eq!(
            (self.code, &*self.stdout, &*self.stderr),
            (Some(0), stdout, ""),
            "{}",
            self.command
        );
    }

    /// Claims a failure with one line, which has all of these words in it.
    #[track_caller]
    pub fn fails_with(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, &*self.stdout), (Some(code), ""), "{self:?}");
        assert_eq!(self.stderr.matches('\n').count(), 1, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {self:?}");
        }
    }
}

/// Runs a command that has to end by itself, as a start that fails does.
#[track_caller]
pub fn run(mut command: Command) -> Finished {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(&mut command);
    let command = format!("{command:?}");
    let code = running.end(&command).code();
    let (mut stdout, mut stderr) = (String::new(), String::new());
    running.0.stdout.take().expect("a pipe").read_to_string(&mut stdout).expect("text");
    running.0.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
    Finished { command, code, stdout, stderr }
}

/// Runs the program with these arguments until it ends.
#[track_caller]
pub fn run_with(arguments: &[&str]) -> Finished {
    let mut command = command();
    command.args(arguments);
    run(command)
}

impl Server {
    pub fn start() -> Self {
        Self::with(&[])
    }

    pub fn with(options: &[&str]) -> Self {
        Self::on(&["127.0.0.1:0"], options)
    }

    /// Starts a server on which nothing ends by a timeout of the server.
    pub fn patient(options: &[&str]) -> Self {
        let timeouts =
            ["--connection-timeout", "--poll-timeout", "--heartbeat", "--request-timeout"];
        let hours = timeouts.map(|timeout| [timeout, "1h"]).concat();
        Self::with(&[&hours, options].concat())
    }

    pub fn on(addresses: &[&str], options: &[&str]) -> Self {
        let mut command = command();
        for address in addresses {
            command.args(["--listen", address]);
        }
        command.args(options);
        Self::spawn(command, addresses.len())
    }

    /// Starts a server with a public and an admin listener.
    pub fn watched(options: &[&str]) -> Self {
        let mut command = command();
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).args(options);
        Self::spawn(command, 2)
    }

    /// Runs `command` and waits until it has announced so many listeners. If this run of the tests
    /// asks for several nodes, runs it so often, and waits until they are a cluster.
    pub fn spawn(mut command: Command, listeners: usize) -> Self {
        let is_speak = is_speak(&command);
        let plan = Plan::make(&mut command, is_speak);
        let mut server = Self::spawn_node(command, listeners);
        server.cluster = plan.map(|plan| Cluster::begin(plan, &server));
        server
    }

    /// Starts a process that is never one of several nodes: the test looks at this process, or at
    /// what each node counts for itself.
    pub fn alone(options: &[&str]) -> Self {
        let mut command = command();
        command.args(["--listen", "127.0.0.1:0"]).args(options);
        Self::spawn_node(command, 1)
    }

    /// Runs `command` as one process.
    pub fn spawn_node(command: Command, listeners: usize) -> Self {
        let mut command = add_tls(command);
        let journal = add_journal(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("starting the server");
        let stderr = child.stderr.take().expect("its standard error is a pipe");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (announce, announced) = mpsc::channel();
        let log_reader = keep_reading(stderr, Arc::clone(&log), announce, child.id());
        let mut server = Self {
            child,
            urls: Vec::new(),
            log,
            log_reader: Some(log_reader),
            ended: false,
            successor: None,
            journal,
            cluster: None,
        };
        while server.urls.len() < listeners {
            let url = announced.recv_timeout(GUARD);
            let url = url.unwrap_or_else(|_| panic!("it did not start: {:?}", server.log()));
            note_listener(&url);
            server.urls.push(url);
        }
        server
    }

    /// Returns the URL of a listener: `http://127.0.0.1:PORT` or `unix:PATH`.
    pub fn url(&self, index: usize) -> &str {
        &self.urls[index]
    }

    /// Returns the port of a TCP listener.
    pub fn port(&self, index: usize) -> u16 {
        self.address_of(index).port()
    }

    /// Returns the address of the first listener, which is TCP. With several nodes, returns that of
    /// one of them, another one with each call, or that of the proxy in front of them.
    pub fn address(&self) -> SocketAddr {
        let Some(cluster) = &self.cluster else { return self.address_of(0) };
        cluster.proxy.as_ref().map_or_else(|| pick(&cluster.addresses), |proxy| proxy.address)
    }

    /// Returns the address of a TCP listener.
    pub fn address_of(&self, index: usize) -> SocketAddr {
        let (_, address) = self.urls[index].rsplit_once('/').expect("a URL");
        address.parse().expect("an address with a port")
    }

    /// Returns the id of the process that serves.
    pub fn id(&self) -> u32 {
        self.successor.map_or(self.child.id(), |pid| pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Returns the lines of the log, of all nodes.
    pub fn log(&self) -> Vec<String> {
        let mut lines = self.log.lock().expect("no panic while logging").clone();
        let others = self.cluster.iter().flat_map(|it| &it.others);
        lines.extend(others.flat_map(Self::log));
        lines
    }

    /// Returns the number of lines of the log that contain this.
    pub fn logged(&self, text: &str) -> usize {
        self.log().iter().filter(|line| line.contains(text)).count()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// Connects to the admin listener of [`Server::watched`].
    pub fn operator(&self) -> Client {
        Client::connect(self.address_of(1))
    }

    /// Makes one call over its own TCP connection.
    pub fn get(&self, path: &str, params: &Params) -> Response {
        self.client().get(path, params)
    }

    /// Writes, which must succeed, and returns the id.
    #[track_caller]
    pub fn write(&self, channel: &str, message: &str) -> u64 {
        let params = [("channel", channel), ("message", message)];
        let answer = self.get("/write", &params).ok().json();
        answer["id"].as_u64().expect("an id")
    }

    /// Writes a text so many times.
    #[track_caller]
    pub fn fill(&self, channel: &str, text: &str, count: usize) {
        let (mut writer, target) = (self.client(), target("/write", &[("channel", channel)]));
        for _ in 0..count {
            writer.post(&target, "text/plain", text).ok();
        }
    }

    /// Reads what there is now.
    #[track_caller]
    pub fn read(&self, channel: &str, from_id: &str) -> Response {
        let params = [("channel", channel), ("from_id", from_id), ("timeout", "0")];
        self.get("/read", &params).ok()
    }

    /// Returns the events that a read of `channel` from `from_id` gets, once there are some.
    #[track_caller]
    pub fn next_events(&self, channel: &str, from_id: u64) -> Vec<String> {
        let params = [("channel", channel), ("from_id", &*from_id.to_string())];
        self.get("/read", &params).ok().events()
    }

    #[track_caller]
    pub fn introduce(&self, channel: &str, message: &str) -> Identity {
        let params = [("channel", channel), ("message", message)];
        Identity::from_answer(&self.get("/introduce", &params).ok())
    }

    /// Makes a call of a session about a channel, which must succeed.
    #[track_caller]
    pub fn call_as(&self, me: &Identity, path: &str, channel: &str, message: &str) -> Response {
        self.get(path, &me.and(&[("channel", channel), ("message", message)])).ok()
    }

    /// Ends a session.
    #[track_caller]
    pub fn goodbye(&self, me: &Identity) {
        assert_eq!(self.get("/goodbye", &me.and(&[])).ok().text(), r#"{"ok":true}"#);
    }

    #[track_caller]
    pub fn members(&self, channel: &str) -> Value {
        self.get("/members", &[("channel", channel)]).ok().json()
    }

    /// Returns the number of reads that wait on `channel`. Nodes learn of each other's readers with
    /// a delay, so this waits until all of them say the same.
    #[track_caller]
    pub fn readers(&self, channel: &str) -> u64 {
        let mut clients = self.clients();
        let mut counts = Vec::new();
        until(&format!("all nodes count the same readers of {channel}"), || {
            counts = clients.iter_mut().map(|client| count_readers(client, channel)).collect();
            counts.iter().all(|count| *count == counts[0])
        });
        counts[0]
    }

    /// Returns the number of reads that wait on `channel`, when all nodes have said the same for
    /// the time of a heartbeat. Each of three nodes whose only reader has just gone still counts
    /// those of the others: so all say two.
    #[track_caller]
    fn settled_readers(&self, channel: &str) -> u64 {
        let mut count = self.readers(channel);
        until(&format!("the readers of {channel} stay the same"), || {
            if count == 0 || self.cluster.is_none() {
                return true;
            }
            thread::sleep(HEARTBEATS);
            std::mem::replace(&mut count, self.readers(channel)) == count
        });
        count
    }

    /// Returns once exactly so many reads wait on `channel`, as all nodes say.
    #[track_caller]
    pub fn wait_for_readers(&self, channel: &str, count: u64) {
        let mut clients = self.clients();
        until(&format!("{channel} has {count} readers"), || {
            clients.iter_mut().all(|client| count_readers(client, channel) == count)
        });
    }

    /// Connects to each node.
    fn clients(&self) -> Vec<Client> {
        let others = self.cluster.iter().flat_map(|it| &it.others);
        let nodes = [self].into_iter().chain(others);
        nodes.map(|node| Client::connect(node.address_of(0))).collect()
    }

    /// Sends a read that finds nothing, and returns once it is one more reader of its first
    /// channel.
    #[track_caller]
    pub fn park(&self, params: &Params) -> Client {
        let (_, channel) = params.iter().find(|(name, _)| *name == "channel").expect("a channel");
        let before = self.settled_readers(channel);
        let mut client = self.client();
        client.send_get("/read", params);
        self.wait_for_readers(channel, before + 1);
        client
    }

    /// Sends a signal to all nodes.
    pub fn signal(&self, signal: Signal) {
        self.cluster.iter().flat_map(|it| &it.others).for_each(|node| node.signal(signal));
        let id = i32::try_from(self.id()).expect("a process id");
        let pid = Pid::from_raw(id).expect("a process id above 0");
        kill_process(pid, signal).expect("signalling our own child");
    }

    /// Has another process take over. Returns once it serves and its predecessor has succeeded.
    #[track_caller]
    pub fn upgrade(&mut self) {
        let before = self.successors().len();
        self.signal(Signal::USR2);
        until("an upgrade has started", || self.successors().len() > before);
        self.wait_for_upgrades(before + 1);
        if let Some(status) = self.adopt_successor() {
            assert_eq!(status.code(), Some(0), "{:?}", self.log());
        }
    }

    /// Returns once so many predecessors have exited after an upgrade.
    #[track_caller]
    pub fn wait_for_upgrades(&self, count: usize) {
        let has_left = |line: &&String| line.ends_with(" upgrade finished: old process exited");
        until("the old process has exited", || self.log().iter().filter(has_left).count() >= count);
    }

    /// Replaces the process by its successor. Waits for the end of the predecessor, if it can.
    #[track_caller]
    pub fn adopt_successor(&mut self) -> Option<ExitStatus> {
        let status = self.successor.is_none().then(|| self.child.wait().expect("our own child"));
        self.successor = self.successors().pop();
        assert!(self.successor.is_some(), "no process was to take over: {:?}", self.log());
        self.ended = true;
        status
    }

    /// Says whether the process that was started has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_some()
    }

    /// Accepts any end of the process.
    pub fn forget(&mut self) {
        self.ended = true;
    }

    /// Returns the processes that were to take over, from the log.
    pub fn successors(&self) -> Vec<Pid> {
        let id_of = |line: &String| {
            let (_, id) = line.split_once(" INFO upgrade started successor=")?;
            Pid::from_raw(id.parse().ok()?)
        };
        self.log().iter().filter_map(id_of).collect()
    }

    /// Waits until the process, which was asked to stop, is gone and its log is complete. All
    /// nodes have to end alike.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the server is gone", || {
            status = self.child.try_wait().expect("asking for our own child");
            status.is_some()
        });
        self.ended = true;
        self.join_log();
        let status = status.expect("it is gone");
        for node in self.cluster.iter_mut().flat_map(|it| &mut it.others) {
            assert_eq!(node.wait(), status, "{:?}", node.log());
        }
        status
    }

    /// Asks the server to stop, and waits until it has exited with status 0.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.wait().code(), Some(0), "{:?}", self.log());
    }

    fn join_log(&mut self) {
        if let Some(reader) = self.log_reader.take() {
            reader.join().expect("the reader of the log");
        }
    }
}

#[track_caller]
fn count_readers(client: &mut Client, channel: &str) -> u64 {
    let members = client.get("/members", &[("channel", channel)]).ok().json();
    members["readers"].as_u64().expect("a number of readers")
}

/// Redis and the nodes after the first one.
struct Cluster {
    others: Vec<Server>,
    addresses: Vec<SocketAddr>,
    proxy: Option<ProxyProcess>,
    _redis: Redis,
}

impl Cluster {
    /// Starts the other nodes. Returns once all nodes serve.
    fn begin(plan: Plan, first: &Server) -> Self {
        let others = plan.others().into_iter().map(|command| Server::spawn_node(command, 1));
        let others: Vec<_> = others.collect();
        let addresses: Vec<_> =
            [first].into_iter().chain(&others).map(|server| server.address_of(0)).collect();
        for address in &addresses {
            until("a node has joined", || {
                let mut client = Client::connect(*address);
                let close = [("Connection", "close")];
                let health = client.call(request("GET", "/health", &close, None));
                // It counts as a client until then.
                client.is_closed();
                health.status == 200
            });
        }
        let proxy = start_proxy(&addresses);
        Self { others, addresses, proxy, _redis: plan.redis }
    }
}

/// Says whether a command runs the server.
fn is_speak(it: &Command) -> bool {
    it.get_program() == command().get_program()
}

/// Adds the options for a journal to the command of a server, if this run of the tests asks for it.
fn add_journal(server: &mut Command) -> Option<Folder> {
    let sync = std::env::var(JOURNAL_ENV).ok()?;
    let keeps_state = |option: &OsStr| {
        let option = option.to_string_lossy();
        ["--journal", "--state", "--cluster"].iter().any(|name| option.starts_with(name))
    };
    if !is_speak(server) || server.get_args().any(keeps_state) {
        return None;
    }
    let folder = Folder::new("journal");
    server.arg("--journal").arg(folder.file("journal")).args(["--journal-sync", &sync]);
    Some(folder)
}

/// Reads standard error to its end, so that the server never blocks on it.
fn keep_reading(
    stderr: ChildStderr,
    log: Arc<Mutex<Vec<String>>>,
    announce: mpsc::Sender<String>,
    id: u32,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut copy = secrets::open(&format!("{id}.log"));
        for line in BufReader::new(stderr).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).into_owned();
            if let Some(url) = line.strip_prefix(GREETING) {
                let url = url.strip_suffix(" (admin)").unwrap_or(url);
                // Once the server has started, no URL is awaited any more.
                let _ = announce.send(url.to_owned());
            }
            if let Some(copy) = &mut copy {
                writeln!(copy, "{line}").expect("room for logs");
            }
            log.lock().expect("no panic while logging").push(line);
        }
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        let gone = self.child.try_wait().ok().flatten();
        // A test that fails during an upgrade leaves a process that keeps the log open.
        // Its id may belong to another process by now.
        let program = fs::canonicalize(command().get_program()).ok();
        let is_ours = |pid: &Pid| fs::read_link(format!("/proc/{pid}/exe")).ok() == program;
        // All fail only where the process is gone already.
        for pid in self.successor.into_iter().chain(self.successors().into_iter().filter(is_ours)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.join_log();
        if let (Some(status), false, false) = (gone, self.ended, thread::panicking()) {
            panic!("the server ended by itself, {status}: {:?}", self.log());
        }
    }
}
