//! Speak as a systemd service: its notifications, socket activation, and the unit.
//!
//! systemd itself needs a machine of its own. Here a socket receives the notifications, by the same
//! rules.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use common::{Client, Folder, GUARD, Server, command, get_at, run, until};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use support::redis::Redis;

const SERVICE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/speak.service");
/// The unit of one node of several on a machine.
const NODE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/cluster/speak@.service");
/// The folder of the units that renew certificates.
const ACME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/acme");
const SOCKETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/sockets");

/// Receives notifications as systemd does with `NotifyAccess=main`: from the main process only.
struct Systemd {
    socket: UnixDatagram,
    main: u32,
}

impl Systemd {
    fn at(address: &UnixAddr) -> Self {
        let socket = UnixDatagram::bind_addr(address).expect("a socket");
        sockopt::set_socket_passcred(&socket, true).expect("the senders' numbers");
        socket.set_read_timeout(Some(GUARD)).expect("a time-out of reads");
        Self { socket, main: 0 }
    }

    /// Listens in this folder and starts a server with that notify socket.
    fn with_server(folder: &Folder, mut command: Command) -> (Self, Server) {
        let path = folder.file("notify");
        let mut systemd = Self::at(&UnixAddr::from_pathname(&path).expect("a path"));
        command.env("NOTIFY_SOCKET", &path);
        let server = Server::spawn(command, 1);
        systemd.main = server.id();
        assert_eq!(systemd.hears(), "READY=1\nSTATUS=serving");
        (systemd, server)
    }

    /// Returns the next message.
    #[track_caller]
    fn hears(&self) -> String {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let came = recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::empty(),
        );
        let length = came.expect("a message").bytes;
        let text = String::from_utf8(bytes[..length].to_vec()).expect("text");
        let sender = control.drain().find_map(|it| match it {
            RecvAncillaryMessage::ScmCredentials(who) => {
                Some(who.pid.as_raw_nonzero().get().unsigned_abs())
            }
            _ => None,
        });
        assert_eq!(sender, Some(self.main), "{text:?} is not from the main process");
        text
    }

    /// Returns whether an unread message is there.
    fn has_more(&self) -> bool {
        self.socket.set_nonblocking(true).expect("a socket that does not block");
        let more = self.socket.recv(&mut [0; 8]).is_ok();
        self.socket.set_nonblocking(false).expect("a socket that blocks");
        more
    }

    /// Asserts that the next message announces a new main process, and returns its time.
    #[track_caller]
    fn hears_of_reloading(&self, after_usec: i64) {
        let text = self.hears();
        let rest =
            text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap_or_else(|| panic!("{text:?}"));
        let (usec, _) = rest.split_once('\n').expect("a status");
        let usec: i64 = usec.parse().expect("a number");
        assert!((after_usec..=monotonic_usec()).contains(&usec), "{usec}");
    }
}

fn monotonic_usec() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

fn speak() -> Command {
    let mut command = command();
    command.args(["--listen", "127.0.0.1:0"]);
    command
}

#[test]
fn systemd_is_notified_of_ready_and_stopping() {
    let folder = Folder::new("ready");
    let (systemd, mut server) = Systemd::with_server(&folder, speak());
    server.get("/health", &[]).ok();
    server.stop();
    assert_eq!(systemd.hears(), "STOPPING=1\nSTATUS=stopping");
    assert!(!systemd.has_more());
}

#[test]
fn the_notify_socket_can_be_abstract() {
    let name = format!("speak-service-{}", std::process::id());
    let mut systemd = Systemd::at(&UnixAddr::from_abstract_name(&name).expect("a name"));
    let mut command = speak();
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    let mut server = Server::spawn(command, 1);
    systemd.main = server.id();
    assert_eq!(systemd.hears(), "READY=1\nSTATUS=serving");
    // The sandbox bars the path by now, but the socket is connected.
    server.stop();
    assert_eq!(systemd.hears(), "STOPPING=1\nSTATUS=stopping");
}

#[test]
fn an_upgrade_names_the_new_main_process_before_the_old_one_ends() {
    let folder = Folder::new("upgrade");
    let (mut systemd, mut server) = Systemd::with_server(&folder, speak());
    server.write("room", "before");
    for _ in 0..2 {
        let (old, before) = (server.id(), monotonic_usec());
        server.upgrade();
        systemd.hears_of_reloading(before);
        let text = format!("MAINPID={}\nREADY=1\nSTATUS=took over from process {old}", server.id());
        assert_eq!(systemd.hears(), text);
        systemd.main = server.id();
    }
    assert_eq!(server.read("room", "0").ids(), [1]);
    server.signal(Signal::TERM);
    assert_eq!(systemd.hears(), "STOPPING=1\nSTATUS=stopping");
    assert!(!systemd.has_more());
}

#[test]
fn an_upgrade_that_fails_leaves_the_main_process_as_it_is_and_ready() {
    let folder = Folder::new("fails");
    let program = folder.file("speak");
    symlink(command().get_program(), &program).expect("a link");
    let mut start = Command::new(&program);
    start.args(["--listen", "127.0.0.1:0"]);
    let (systemd, server) = Systemd::with_server(&folder, start);
    fs::remove_file(&program).expect("the link");
    // First there is no program to start, then one that exits at once.
    for _ in 0..2 {
        let before = monotonic_usec();
        server.signal(Signal::USR2);
        systemd.hears_of_reloading(before);
        let text = systemd.hears();
        assert!(
            text.starts_with("READY=1\nSTATUS=upgrade failed; the old process is still serving"),
            "{text:?}"
        );
        server.get("/health", &[]).ok();
        let _ = symlink("/bin/false", &program);
    }
    assert!(!systemd.has_more());
}

#[test]
fn the_watchdog_is_pinged_when_idle_and_after_an_upgrade() {
    let folder = Folder::new("watchdog");
    let mut command = speak();
    command.env("WATCHDOG_USEC", "100000");
    let (mut systemd, mut server) = Systemd::with_server(&folder, command);
    for _ in 0..3 {
        assert_eq!(systemd.hears(), "WATCHDOG=1");
    }
    server.upgrade();
    let text = std::iter::repeat_with(|| systemd.hears()).find(|text| text.starts_with("MAINPID="));
    assert!(text.expect("an endless line").contains("\nREADY=1\n"));
    systemd.main = server.id();
    for _ in 0..3 {
        assert_eq!(systemd.hears(), "WATCHDOG=1");
    }
}

#[test]
fn a_watchdog_of_another_process_is_ignored() {
    let folder = Folder::new("other");
    let mut command = speak();
    command.env("WATCHDOG_USEC", "2000").env("WATCHDOG_PID", "1");
    let (systemd, mut server) = Systemd::with_server(&folder, command);
    for _ in 0..20 {
        server.write("room", "a turn of the loop");
    }
    server.stop();
    assert_eq!(systemd.hears(), "STOPPING=1\nSTATUS=stopping");
}

#[test]
fn an_unreachable_notify_socket_does_not_stop_the_server() {
    let mut command = speak();
    command.env("NOTIFY_SOCKET", "/nowhere/notify").env("WATCHDOG_USEC", "2000");
    let server = Server::spawn(command, 1);
    server.get("/health", &[]).ok();
    // The log is read by another thread, and a line may arrive after the response.
    until("it has warned", || server.logged("NOTIFY_SOCKET") > 0);
    assert_eq!(server.logged("NOTIFY_SOCKET"), 1, "{:?}", server.log());
}

/// Starts the server with these sockets as descriptors from 3 on, as systemd does.
fn passing(sockets: &[OwnedFd], names: &str, options: &[&str]) -> Command {
    // By way of high descriptors: one of ours may be in the place of another.
    let (mut away, mut back) = (String::new(), String::new());
    for (place, socket) in sockets.iter().enumerate() {
        fcntl_setfd(socket, FdFlags::empty()).expect("a descriptor to pass");
        let (high, passed, ours) = (200 + place, 3 + place, socket.as_raw_fd());
        write!(away, "exec {high}<&{ours}; ").expect("a String takes everything");
        write!(back, "exec {passed}<&{high} {high}<&-; ").expect("a String takes everything");
    }
    let count = sockets.len();
    let variables = format!("LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES={names}");
    let mut bash = Command::new("bash");
    bash.arg("-c").arg(format!("{away}{back}{variables} exec \"$0\" \"$@\""));
    bash.arg(command().get_program()).args(options);
    bash
}

#[test]
fn activated_sockets_survive_upgrades_and_their_files_remain() {
    let folder = Folder::new("passed");
    let path = folder.file("admin.sock");
    let public = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address: SocketAddr = public.local_addr().expect("its address");
    let admin = UnixListener::bind(&path).expect("a socket");
    let sockets = [public.into(), admin.into()];
    let mut server = Server::spawn(passing(&sockets, "speak:admin", &[]), 2);
    drop(sockets);
    assert_eq!(server.address(), address);
    assert_eq!(server.url(1), format!("unix:{}", path.display()));
    for round in 1..=3 {
        assert_eq!(server.write("room", "howdy"), round);
        assert!(get_at(&path, "/metrics").contains("speak_channels 1\n"));
        assert!(get_at(&path, "/read?channel=room").starts_with("HTTP/1.1 404 "));
        server.upgrade();
        let environment =
            fs::read(format!("/proc/{}/environ", server.id())).expect("our own process");
        assert!(!String::from_utf8_lossy(&environment).contains("LISTEN_"));
    }
    // Nothing else was bound: two listeners for each of four processes.
    assert_eq!(server.logged(" listening on "), 8, "{:?}", server.log());
    server.signal(Signal::TERM);
    until("it has stopped", || server.log().iter().any(|line| line.ends_with(" stopped")));
    assert!(path.exists());
}

#[cfg(feature = "tls")]
#[test]
fn an_activated_socket_of_that_name_speaks_tls_through_upgrades() {
    use common::{Pair, trusting};

    let folder = Folder::new("passed-tls");
    let pair = Pair::usual(&folder, "a");
    let config = trusting(&[&pair]);
    let public = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let sockets = [public.into()];
    let mut server = Server::spawn(passing(&sockets, "tls", &pair.options()), 1);
    for _ in 0..3 {
        let mut client = Client::connect_tls(server.address_of(0), &config, "a.test");
        client.get("/health", &[]).ok();
        server.upgrade();
        client.get("/health", &[]).ok();
    }
    let without = passing(&sockets, "tls", &[]);
    run(without).fails_with(1, &["FileDescriptorName=tls", "--tls-cert FILE"]);
    let not_named = passing(&sockets, "speak", &pair.options());
    run(not_named).fails_with(1, &["no listener speaks TLS"]);
    let unix = [UnixListener::bind(folder.file("socket")).expect("a socket").into()];
    run(passing(&unix, "tls", &pair.options())).fails_with(1, &["is for TCP"]);
}

#[test]
fn listeners_of_options_are_bound_in_addition_to_activated_ones() {
    let public = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = Server::spawn(passing(&[public.into()], "", &["--listen", "127.0.0.1:0"]), 2);
    assert_ne!(server.port(0), server.port(1));
    server.write("room", "one");
    let second = SocketAddr::from(([127, 0, 0, 1], server.port(1)));
    Client::connect(second).get("/health", &[]).ok();
}

#[test]
fn an_activated_descriptor_that_is_no_listener_stops_the_start() {
    let (one, _other) = UnixStream::pair().expect("a pair");
    let connected = [one.into()];
    let datagram = [UnixDatagram::unbound().expect("a socket").into()];
    let file = [fs::File::open("/dev/null").expect("a file").into()];
    let [connected, datagram, file] =
        [&connected, &datagram, &file].map(|it| passing(it, "speak", &[]));
    let mut nothing = Command::new("bash");
    nothing
        .args(["-c", "LISTEN_PID=$$ LISTEN_FDS=60 exec \"$0\" \"$@\""])
        .arg(command().get_program());
    for (command, reason) in [
        (connected, "does not listen"),
        (datagram, "does not listen"),
        (file, "a socket that systemd passed"),
        (nothing, "LISTEN_FDS counts descriptor"),
    ] {
        run(command).fails_with(1, &[reason]);
    }
}

/// Runs `systemd-analyze`, which must succeed, and returns its output.
fn analyze(arguments: &[&str]) -> String {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .output()
        .expect("systemd-analyze, of Debian's systemd");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{arguments:?}: {text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[test]
fn systemd_rates_the_exposure_of_the_units_below_two() {
    let folder = Folder::new("exposure");
    // The unit of one node, as of any instance.
    let node = folder.file("speak@8081.service");
    fs::copy(NODE, &node).expect("a copy");
    for unit in [Path::new(SERVICE), &node] {
        let path = unit.to_str().expect("a path in UTF-8");
        let report = analyze(&["security", "--offline=true", "--no-pager", path]);
        let line =
            report.lines().find(|line| line.contains("Overall exposure level")).expect("a result");
        let (_, rest) = line.split_once(".service: ").expect("the service");
        let figure: f64 = rest.split(' ').next().expect("a figure").parse().expect("a number");
        assert!(figure < 2.0, "{line}");
    }
}

/// So what other tests find out about the one unit is true for the other.
#[test]
fn both_units_restrict_the_process_alike() {
    let restrictions = |unit: &str| {
        let text = fs::read_to_string(unit).expect("the unit");
        let (_, rest) = text.split_once("\n# Files, devices and processes").expect("a section");
        rest.to_owned()
    };
    assert_eq!(restrictions(NODE), restrictions(SERVICE));
}

#[test]
fn systemd_verifies_the_units() {
    let folder = Folder::new("units");
    let here = command().get_program().to_str().expect("a path in UTF-8").to_owned();
    let here = fs::canonicalize(here).expect("the binary");
    let renewal = format!("{ACME}/speak-acme@.service");
    let timer = format!("{ACME}/speak-acme@.timer");
    for (unit, name) in [
        (SERVICE, "speak.service"),
        (NODE, "speak@8081.service"),
        (&renewal, "speak-acme@lego.service"),
        (&timer, "speak-acme@lego.timer"),
    ] {
        let unit = fs::read_to_string(unit).expect("the unit");
        // It has to find the programs.
        let unit = unit.replace("/usr/bin/speak", here.to_str().expect("a path in UTF-8"));
        let unit = unit.replace("/usr/lib/speak/acme", ACME);
        fs::write(folder.file(name), unit).expect("a copy");
    }
    for name in ["speak.socket", "speak-admin.socket"] {
        fs::copy(Path::new(SOCKETS).join(name), folder.file(name)).expect("a copy");
    }
    let names = ["speak.service", "speak@8081.service", "speak.socket", "speak-admin.socket"];
    let renewal = ["speak-acme@lego.service", "speak-acme@lego.timer"];
    let files = names.into_iter().chain(renewal).map(|name| folder.file(name));
    let mut command = Command::new("systemd-analyze");
    let output =
        command.args(["verify", "--man=no"]).args(files).output().expect("systemd-analyze");
    let said = [output.stdout, output.stderr].concat();
    // Units of the machine itself do not matter.
    let said = String::from_utf8_lossy(&said);
    let ours: Vec<_> = said.lines().filter(|line| line.contains("speak")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
}

/// Collects the system calls of a set, including nested sets.
fn calls_of(set: &str, calls: &mut BTreeSet<String>) {
    for line in analyze(&["syscall-filter", set]).lines().map(str::trim) {
        if line.starts_with('@') && line != set {
            calls_of(line, calls);
        } else if !line.is_empty() && !line.starts_with(['#', '@']) {
            calls.insert(line.to_owned());
        }
    }
}

/// Returns the calls allowed by the unit's filter, by the rules of `SystemCallFilter=`.
fn allowed_calls() -> BTreeSet<String> {
    let unit = fs::read_to_string(SERVICE).expect("the unit");
    let mut allowed = BTreeSet::new();
    calls_of("@default", &mut allowed);
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (is_denied, names) =
            line.strip_prefix('~').map_or((false, line), |names| (true, names));
        for name in names.split(' ') {
            let mut calls = BTreeSet::new();
            if name.starts_with('@') {
                calls_of(name, &mut calls);
            } else {
                calls.insert(name.to_owned());
            }
            if is_denied {
                allowed.retain(|call| !calls.contains(call));
            } else {
                allowed.append(&mut calls);
            }
        }
    }
    allowed
}

/// Returns each call once, as strace names it, from lines of `-f -o`: `123 name(…` or `123 <...
/// name resumed>`.
fn traced_calls(trace: &str) -> BTreeSet<String> {
    let calls = trace.lines().filter_map(|line| {
        let (_, rest) = line.trim_start().split_once(' ')?;
        let (name, _) = rest.trim_start().split_once('(')?;
        name.bytes()
            .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'_')
            .then(|| name.to_owned())
    });
    calls.collect()
}

/// Runs a command under strace, as a child process next to the tracer.
fn traced(command: &Command, trace: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace
        .args(["-D", "-f", "-q", "-o"])
        .arg(trace)
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    strace
}

/// Makes every kind of client request once.
fn use_it(server: &Server) {
    let josh = server.introduce("room", "Josh");
    let mut waiting = server.park(&josh.and(&[("channel", "room")]));
    let mut events = server.events(&[("channel", "room"), ("from_id", "1")]);
    let socket = server.socket(&[("channel", "room")]);
    server.client().post("/write?channel=room", "text/plain", "a long message ".repeat(2000)).ok();
    waiting.response().ok();
    events.event();
    for path in ["/", "/speak.js", "/health", "/create", "/image-test", "/nowhere"] {
        server.get(path, &[]);
    }
    server.get("/goodbye", &josh.and(&[])).ok();
    drop((waiting, events, socket));
}

#[test]
fn the_units_system_call_filter_allows_every_call_of_speak() {
    let folder = Folder::new("filter");
    let (unix, admin, state) =
        (folder.file("speak.sock"), folder.file("admin.sock"), folder.file("state"));
    let notify = folder.file("notify");
    let _systemd = Systemd::at(&UnixAddr::from_pathname(&notify).expect("a path"));
    let mut speak = speak();
    speak.arg("--listen").arg(format!("unix:{}", unix.display()));
    speak.arg("--admin-listen").arg(format!("unix:{}", admin.display())).arg("--state").arg(&state);
    speak.env("NOTIFY_SOCKET", notify).env("WATCHDOG_USEC", "50000");
    let mut calls = BTreeSet::new();
    // The second start restores the state of the first.
    for start in ["first", "second"] {
        let trace = folder.file(start);
        let mut server = Server::spawn(traced(&speak, &trace), 3);
        use_it(&server);
        assert!(get_at(&admin, "/metrics").contains("process_open_fds"));
        // As `ExecReload=` does it, within the same filter.
        let kill = folder.file("kill");
        let id = server.id().to_string();
        let mut reload = Command::new("strace");
        reload.arg("-qqfo").arg(&kill).args(["/bin/kill", "-USR2", &id]);
        assert!(reload.status().expect("strace").success());
        server.wait_for_upgrades(1);
        server.adopt_successor();
        use_it(&server);
        server.signal(Signal::TERM);
        let heir = server.id();
        let is_complete = |text: &str| {
            text.lines().any(|line| {
                line.starts_with(&heir.to_string()) && line.contains("+++ exited with 0")
            })
        };
        until("the trace is complete", || {
            is_complete(&fs::read_to_string(&trace).unwrap_or_default())
        });
        for file in [trace, kill] {
            calls.append(&mut traced_calls(&fs::read_to_string(file).expect("a trace")));
        }
    }
    // A node of a cluster.
    let redis = Redis::start();
    redis.promise_no_nodes();
    let mut node = common::command();
    node.args(["--listen", "127.0.0.1:0", "--cluster", &redis.url()]);
    let trace = folder.file("node");
    let mut node = Server::spawn_node(traced(&node, &trace), 1);
    until("the node has joined", || node.get("/health", &[]).status == 200);
    use_it(&node);
    node.stop();
    let text = || fs::read_to_string(&trace).unwrap_or_default();
    until("the trace is complete", || text().contains("+++ exited with 0"));
    calls.append(&mut traced_calls(&text()));
    assert!(calls.contains("connect"), "{calls:?}");
    for needed in ["execve", "timerfd_settime", "sendmsg", "capset", "landlock_create_ruleset"] {
        assert!(calls.contains(needed), "{needed} was not traced: {calls:?}");
    }
    let allowed = allowed_calls();
    assert!(!allowed.contains("mount") && !allowed.contains("setuid"), "{allowed:?}");
    let refused: Vec<_> = calls.difference(&allowed).collect();
    assert!(refused.is_empty(), "the unit would refuse {refused:?}");
}
