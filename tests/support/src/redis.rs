//! Real Redis servers and Sentinels as child processes, each on an address and in a folder of its
//! own, and a simple client for them.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Process, START_MAX, fresh_folder};

/// A test that waits longer for a reply has failed.
const REPLY_MAX: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(5);

/// A Redis, without persistence unless the options say otherwise. Killed at the end of the test.
#[must_use]
pub struct Redis {
    child: Option<Child>,
    folder: PathBuf,
    address: SocketAddr,
    options: Vec<String>,
}

/// A reply, or an element of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Nil,
    Int(i64),
    /// Bulk string or simple string.
    Text(Vec<u8>),
    Error(String),
    Array(Vec<Value>),
}

/// A connection that waits for each reply.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Redis {
    /// Starts a server.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server with further options, as `["--maxmemory", "1mb"]`.
    pub fn with(options: &[&str]) -> Self {
        let folder = fresh_folder("speak-redis").expect("a folder");
        let address = free_address();
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let socket = folder.join("redis.sock").display().to_string();
        let all = [
            &["--bind", &ip, "--port", &port, "--unixsocket", &socket],
            &["--replica-announce-ip", &ip, "--replica-announce-port", &port][..],
            &["--protected-mode", "no", "--save", "", "--appendonly", "no"],
            &["--repl-diskless-sync-delay", "0"],
            options,
        ]
        .concat();
        Self::launch(folder, address, &all)
    }

    /// Starts a replica of this server, and waits until it has all data.
    pub fn replica(&self) -> Self {
        let (ip, port) = (self.address.ip().to_string(), self.address.port().to_string());
        let replica = Self::with(&["--replicaof", &ip, &port]);
        replica.wait_for("the data of the primary", |info| info.contains("master_link_status:up"));
        replica
    }

    /// Starts a Sentinel that watches this server under a name, and decides alone. Waits until it
    /// knows `replicas` of them.
    pub fn sentinel(&self, name: &str, replicas: usize) -> Self {
        self.sentinel_with(name, replicas, self.address.port(), |_| String::new())
    }

    /// Starts a Sentinel that watches this server at another port. `further` returns lines for the
    /// file of a Sentinel at this address.
    pub fn sentinel_with(
        &self,
        name: &str,
        replicas: usize,
        watched: u16,
        further: impl Fn(IpAddr) -> String,
    ) -> Self {
        let folder = fresh_folder("speak-sentinel").expect("a folder");
        let address = free_address();
        let lines = format!(
            "bind {}\nport {}\nprotected-mode no\n{}sentinel monitor {name} {} {watched} 1\n\
             sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 3000\n",
            address.ip(),
            address.port(),
            further(address.ip()),
            self.address.ip(),
        );
        let file = folder.join("sentinel.conf");
        fs::write(&file, lines).expect("a file");
        let sentinel = Self::launch(folder, address, &[&file.display().to_string(), "--sentinel"]);
        let known = format!("slaves={replicas}");
        sentinel.wait_for("its replicas", |info| info.contains(&known));
        sentinel
    }

    fn launch(folder: PathBuf, address: SocketAddr, options: &[&str]) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut redis = Self { child: None, folder, address, options };
        redis.restart();
        redis
    }

    /// URL of the server by TCP.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// URL of the server by its Unix socket.
    pub fn unix_url(&self) -> String {
        format!("redis+unix:{}", self.folder.join("redis.sock").display())
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the server's process.
    pub fn process(&self) -> Process {
        Process(self.child.as_ref().expect("a running server").id())
    }

    /// Ends the server as a crash does. Its address stays its own.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child that was not waited for");
            child.wait().expect("the end of the child");
        }
    }

    /// Starts the server again with the same address and folder, after a kill if it runs. Waits
    /// until it answers.
    pub fn restart(&mut self) {
        self.kill();
        let log = fs::File::create(self.folder.join("log")).expect("a log");
        let mut command = Command::new("redis-server");
        command.args(&self.options).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start redis-server, which `make deps` installs: {error}")
        });
        self.child = Some(child);
        let deadline = Instant::now() + START_MAX;
        while self.try_command(&["PING"]).ok() != Some(Value::Text(b"PONG".to_vec())) {
            let child = self.child.as_mut().expect("the child");
            let has_ended = child.try_wait().expect("the state of the child").is_some();
            if has_ended || Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                panic!("redis-server did not start: {log}");
            }
            thread::sleep(STEP);
        }
    }

    /// Tells the first Speak that no other one has read a log that this server may have lost. It
    /// would wait for that one for some seconds.
    pub fn promise_no_nodes(&self) {
        let info = self.command(&["INFO", "server"]).text();
        let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        let key = format!("{{speak}}:vouch:{}", run_id.expect("a run id"));
        self.command(&["HSET", &key, "done", "0-0"]);
    }

    /// Sends a signal, for instance to stop the process for a while.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running server");
        kill_process(Pid::from_child(child), signal).expect("a running server");
    }

    /// Sends a command on a connection of its own, and returns the reply.
    pub fn command(&self, args: &[&str]) -> Value {
        self.try_command(args).unwrap_or_else(|error| panic!("no reply to {args:?}: {error}"))
    }

    fn try_command(&self, args: &[&str]) -> io::Result<Value> {
        Client::connect(self.address)?.try_command(args)
    }

    /// Opens a connection.
    pub fn client(&self) -> Client {
        Client::connect(self.address).expect("a running server")
    }

    /// Waits until `INFO` is as it should be.
    pub fn wait_for(&self, what: &str, is_there: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + REPLY_MAX;
        while !is_there(&self.command(&["INFO"]).text()) {
            assert!(Instant::now() < deadline, "redis-server does not get {what}");
            thread::sleep(STEP);
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        // Nothing depends on its success.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Client {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(REPLY_MAX))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command, and returns the reply.
    pub fn command(&mut self, args: &[&str]) -> Value {
        self.try_command(args).unwrap_or_else(|error| panic!("no reply to {args:?}: {error}"))
    }

    fn try_command(&mut self, args: &[&str]) -> io::Result<Value> {
        let args: Vec<_> = args.iter().map(|arg| format!("${}\r\n{arg}\r\n", arg.len())).collect();
        let bytes = format!("*{}\r\n{}", args.len(), args.concat());
        self.stream.get_mut().write_all(bytes.as_bytes())?;
        self.read_value()
    }

    fn read_value(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let malformed = || io::Error::other(format!("not a reply: {}", line.escape_debug()));
        let (kind, rest) = line.trim_end().split_at_checked(1).ok_or_else(malformed)?;
        let number = || rest.parse::<i64>().map_err(|_| malformed());
        Ok(match kind {
            "+" => Value::Text(rest.into()),
            "-" => Value::Error(rest.to_owned()),
            ":" => Value::Int(number()?),
            "$" => match usize::try_from(number()?) {
                Err(_) => Value::Nil,
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.stream.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Value::Text(bytes)
                }
            },
            "*" => match usize::try_from(number()?) {
                Err(_) => Value::Nil,
                Ok(length) => {
                    Value::Array((0..length).map(|_| self.read_value()).collect::<Result<_, _>>()?)
                }
            },
            _ => return Err(malformed()),
        })
    }
}

impl Value {
    /// Returns a text.
    pub fn text(&self) -> String {
        match self {
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("not a text: {other:?}"),
        }
    }
}

/// Returns a free address that no other test uses: each has its own IP address in 127.128.0.0/10,
/// as the kernel may give the port to another program.
fn free_address() -> SocketAddr {
    static COUNT: AtomicU8 = AtomicU8::new(0);
    let [_, _, high, low] = process::id().to_be_bytes();
    let ip = [127, 128 | high & 63, low, COUNT.fetch_add(1, Ordering::Relaxed)];
    let listener = TcpListener::bind(SocketAddr::from((ip, 0))).expect("a free port");
    listener.local_addr().expect("its address")
}
