//! Privileges that the process drops before it serves, and the operations that still work.
//!
//! Each test asks the kernel for Landlock. Without it, the tests cover the server without Landlock.
//! Only root can switch users: these tests run as root and print a note otherwise.

mod common;

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{self as unix, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;

use common::{Folder, Server, command, free_address, run, until};
use landlock::{LandlockStatus, RestrictSelf};
use rustix::process::{Pid, Resource, Rlimit, geteuid, prlimit, test_kill_process};
use speak::options::{self, Options};
use speak::sandbox::{Landlock, OutgoingPorts, Sandbox, SandboxStatus};

/// A user that no file mentions.
const OTHER_USER: &str = "65533:65532";

/// Returns the kernel's Landlock version, 0 without Landlock.
fn landlock_version() -> u32 {
    let asked = RestrictSelf::default().no_new_privs(false).apply().expect("a question");
    match asked.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
        _ => 0,
    }
}

fn is_root(test: &str) -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        println!("{test}: not tried, since only root can");
    }
    is_root
}

/// A folder that every user can enter.
fn open_folder() -> Folder {
    let folder = Folder::new("sandbox");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("its rights");
    folder
}

fn socket_in(folder: &Folder) -> String {
    format!("unix:{}", folder.file("socket").display())
}

/// Returns a field of `/proc/PID/status`.
fn status(id: impl std::fmt::Display, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let words = line.unwrap_or_else(|| panic!("no {name} in {status}")).split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}

/// Returns the server's log line about the sandbox, its last before it serves.
fn sandbox_line(server: &Server) -> String {
    server.get("/health", &[]).ok();
    let find = || {
        server.log().iter().find_map(|line| Some(line.split_once("INFO sandbox: ")?.1.to_owned()))
    };
    until("the sandbox is logged", || find().is_some());
    find().expect("a line about the sandbox")
}

fn landlock_status() -> String {
    match landlock_version() {
        0 => "no Landlock here".to_owned(),
        version => format!("Landlock ABI {version}"),
    }
}

#[test]
fn every_server_drops_capabilities_and_new_privileges() {
    let server = Server::start();
    let uid = geteuid().as_raw();
    let expected = format!("user {uid}, no new privileges, {}", landlock_status());
    assert_eq!(sandbox_line(&server), expected);
    assert_eq!(status(server.id(), "NoNewPrivs"), "1");
    // Root keeps the right to enter other users' directories: it must be able to start its own
    // executable again.
    let none = "0000000000000000";
    let kept = if uid == 0 { "0000000000000002" } else { none };
    for (set, expected) in [("CapEff", kept), ("CapPrm", kept), ("CapInh", none), ("CapAmb", none)]
    {
        assert_eq!(status(server.id(), set), expected, "{set}");
    }
    assert_eq!(status(server.id(), "Seccomp"), status("self", "Seccomp"));
    let warns = |line: &&String| line.contains("WARN") && line.contains("--user");
    let warnings = server.log().iter().filter(warns).count();
    assert_eq!(warnings, usize::from(uid == 0), "{:?}", server.log());
}

#[test]
fn without_the_sandbox_the_process_is_unchanged() {
    let server = Server::with(&["--no-sandbox"]);
    let expected = format!("user {}, not confined (--no-sandbox)", geteuid().as_raw());
    assert_eq!(sandbox_line(&server), expected);
    for fact in [
        "NoNewPrivs",
        "CapEff",
        "CapPrm",
        "CapBnd",
        "CapInh",
        "CapAmb",
        "Seccomp",
        "Uid",
        "Gid",
        "Groups",
    ] {
        assert_eq!(status(server.id(), fact), status("self", fact), "{fact}");
    }
}

#[track_caller]
fn is_user(server: &Server, uid: &str, gid: &str, groups: &str) {
    sandbox_line(server);
    assert_eq!(status(server.id(), "Uid"), [uid; 4].join(" "));
    assert_eq!(status(server.id(), "Gid"), [gid; 4].join(" "));
    assert_eq!(status(server.id(), "Groups"), groups);
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"] {
        assert_eq!(status(server.id(), set), "0000000000000000", "{set}");
    }
}

#[test]
fn root_switches_to_the_user_permanently() {
    if !is_root("root_switches_to_the_user_permanently") {
        return;
    }
    let server = Server::with(&["--user", OTHER_USER]);
    is_user(&server, "65533", "65532", "65532");
    let expected = format!("user {OTHER_USER}, no new privileges, {}", landlock_status());
    assert_eq!(sandbox_line(&server), expected);
    assert_eq!(server.logged("WARN"), 0, "{:?}", server.log());
    is_user(&Server::with(&["--user", OTHER_USER, "--no-sandbox"]), "65533", "65532", "65532");

    let id = |flag: &str| {
        let output =
            Command::new("id").args([flag, "nobody"]).output().expect("id, of every system");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    is_user(&Server::with(&["--user", "nobody"]), &id("-u"), &id("-g"), &id("-G"));
}

#[test]
fn an_unusable_user_stops_the_start() {
    let mut cases = vec![("no-such-user", "no such user"), ("65533", "65533:GID"), ("0:0", "root")];
    if !geteuid().is_root() {
        cases.push((OTHER_USER, "only root"));
    }
    for (user, reason) in cases {
        let folder = open_folder();
        let mut command = command();
        command.args(["--listen", &socket_in(&folder), "--user", user]);
        let finished = run(command);
        let shown = format!("{user}: {finished:?}");
        assert_eq!(finished.code, Some(1), "{shown}");
        assert_eq!(finished.stderr.matches('\n').count(), 1, "{shown}");
        assert!(finished.stderr.contains("--user") && finished.stderr.contains(reason), "{shown}");
    }
}

#[test]
fn the_user_option_is_accepted_only_for_root_or_the_same_user() {
    let folder = open_folder();
    let mut others = command();
    let mut own = command();
    let mut me = format!("{}:{}", geteuid().as_raw(), rustix::process::getegid().as_raw());
    if geteuid().is_root() {
        // That user may not reach the folder in which the tests are built.
        let binary = folder.file("speak");
        fs::copy(own.get_program(), &binary).expect("a copy");
        for command in [&mut own, &mut others] {
            *command = Command::new(&binary);
            command.uid(65533).gid(65532);
        }
        OTHER_USER.clone_into(&mut me);
    }
    own.args(["--listen", "127.0.0.1:0", "--user", &me]);
    let server = Server::spawn(own, 1);
    assert!(sandbox_line(&server).contains("no new privileges"), "{:?}", server.log());

    others.args(["--listen", "127.0.0.1:0", "--user", "65531:65532"]);
    let finished = run(others);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("only root"), "{finished:?}");
}

#[test]
fn the_unix_socket_belongs_to_the_user_and_is_removed_at_the_end() {
    let folder = open_folder();
    let mut options = vec![];
    let mut uid = geteuid().as_raw();
    if geteuid().is_root() {
        uid = 65533;
        chown(folder.path(), Some(uid), None).expect("root's right");
        options = vec!["--user", OTHER_USER];
    }
    let mut server = Server::on(&["127.0.0.1:0", &socket_in(&folder)], &options);
    sandbox_line(&server);
    assert_eq!(fs::symlink_metadata(folder.file("socket")).expect("a socket").uid(), uid);
    let _client = UnixStream::connect(folder.file("socket")).expect("a connection");
    server.stop();
    assert!(!folder.file("socket").exists());
    let is_expected = |line: &String| !line.contains("WARN") || line.contains("as root");
    assert!(server.log().iter().all(is_expected), "{:?}", server.log());
}

#[test]
fn out_of_descriptors_clients_are_shed_one_by_one() {
    let server = Server::start();
    sandbox_line(&server);
    let mut client = server.client();
    client.get("/health", &[]).ok();
    // The number of open files now, or one more if a client is just leaving.
    let pid = Pid::from_raw(i32::try_from(server.id()).expect("an id"));
    let open = server.open_files() as u64;
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(open), maximum: Some(open) })
        .expect("a lower limit");
    // Each takes the place of the reserve descriptor, which has to be opened again for the next.
    let mut others = Vec::new();
    until("three are shed", || {
        others.push(server.client());
        others.iter().filter(|other| other.has_something()).count() >= 3
    });
    until("it is logged", || server.logged("limit on open files") > 0);
    client.get("/health", &[]).ok();
}

/// Things outside of the sandbox, created before entering it.
struct Outside {
    folder: Folder,
    tcp: SocketAddr,
    _tcp: TcpListener,
    abstract_name: unix::SocketAddr,
    _abstract: UnixListener,
    sleeper: Child,
}

impl Outside {
    fn new() -> Self {
        let folder = open_folder();
        fs::write(folder.file("kept"), "precious").expect("a file");
        let name = folder.file("abstract");
        let abstract_name =
            unix::SocketAddr::from_abstract_name(name.as_os_str().as_encoded_bytes())
                .expect("a name");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut sleeper = Command::new("sleep");
        let sleeper = sleeper.arg("600").stdin(Stdio::null()).spawn();
        Self {
            tcp: tcp.local_addr().expect("its address"),
            _tcp: tcp,
            _abstract: UnixListener::bind_addr(&abstract_name).expect("an abstract socket"),
            abstract_name,
            sleeper: sleeper.expect("sleep, of every system"),
            folder,
        }
    }

    fn options(&self, more: &[&str]) -> Options {
        let address = socket_in(&self.folder);
        let arguments =
            ["--listen", &address].into_iter().chain(more.iter().copied()).map(Into::into);
        match options::parse(arguments, |_| None) {
            Ok(options::Command::Run(options)) => *options,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.sleeper.kill();
        let _ = self.sleeper.wait();
    }
}

/// Enters the sandbox in a thread, which is the unit of Landlock and `no_new_privs`, and runs
/// `attempt` there.
#[track_caller]
fn inside<T: Send>(
    options: &Options,
    ports: &[u16],
    act: impl FnOnce(SandboxStatus) -> T + Send,
) -> T {
    let sandbox = Sandbox::plan(options).expect("a plan");
    let enter =
        move || act(sandbox.enter(ports, &OutgoingPorts::Only(Vec::new())).expect("a sandbox"));
    thread::scope(|scope| scope.spawn(enter).join()).expect("no panic in the sandbox")
}

/// An operation that no server needs, and the Landlock version that denies it.
type Attempt = (&'static str, u32, fn(&Outside) -> io::Result<()>);

const ATTEMPTS: [Attempt; 11] = [
    ("read a file", 1, |_| fs::read("/etc/passwd").map(drop)),
    ("list a directory", 1, |outside| fs::read_dir(outside.folder.path()).map(drop)),
    ("read a file next to a socket", 1, |outside| fs::read(outside.folder.file("kept")).map(drop)),
    ("write a file", 1, |outside| fs::write(outside.folder.file("new"), "")),
    ("make a directory", 1, |outside| fs::create_dir(outside.folder.file("newer"))),
    ("make a socket", 1, |outside| UnixListener::bind(outside.folder.file("socket")).map(drop)),
    ("execute another program", 1, |_| Command::new("/bin/true").status().map(drop)),
    ("connect to a port", 4, |outside| TcpStream::connect(outside.tcp).map(drop)),
    ("bind another port", 4, |_| TcpListener::bind("127.0.0.1:0").map(drop)),
    ("signal another process", 6, |outside| {
        Ok(test_kill_process(Pid::from_child(&outside.sleeper))?)
    }),
    ("connect to an abstract socket", 6, |outside| {
        UnixStream::connect_addr(&outside.abstract_name).map(drop)
    }),
];

#[test]
fn unneeded_access_is_denied_as_far_as_the_kernel_can() {
    let version = landlock_version();
    println!("this kernel has version {version} of Landlock");
    // First without the sandbox: only an attempt that can succeed makes its failure meaningful.
    for (options, version) in [(&["--no-sandbox"][..], 0), (&[], version)] {
        let outside = Outside::new();
        let options = outside.options(options);
        let outcomes = inside(&options, &[], |in_force| {
            let expected = (version > 0).then_some(Landlock::Version(version));
            assert_eq!(in_force.landlock, expected.or(options.sandbox.then_some(Landlock::Absent)));
            assert_eq!(in_force.no_new_privs, options.sandbox);
            ATTEMPTS.map(|(_, _, attempt)| attempt(&outside))
        });
        for ((what, since, _), outcome) in ATTEMPTS.into_iter().zip(outcomes) {
            let is_barred =
                matches!(&outcome, Err(error) if error.kind() == io::ErrorKind::PermissionDenied);
            let is_as_expected = if version >= since { is_barred } else { outcome.is_ok() };
            assert!(is_as_expected, "{what}, with version {version}: {outcome:?}");
        }
    }
}

#[test]
fn needed_access_is_allowed() {
    let outside = Outside::new();
    let bound = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = bound.local_addr().expect("its address");
    let again = free_address();
    let socket = outside.folder.file("socket");
    drop(UnixListener::bind(&socket).expect("a socket"));
    let own = std::env::current_exe().expect("the path of this test");
    let _client = TcpStream::connect(address).expect("a client");
    inside(&outside.options(&[]), &[address.port(), again.port()], |_| {
        bound.accept().expect("to take in who comes");
        for path in ["/proc/self/stat", "/proc/self/limits", "/proc/self/status"] {
            assert!(!fs::read(path).expect("to look at itself").is_empty(), "{path}");
        }
        assert!(fs::read_dir("/proc/self/fd").expect("its descriptors").count() > 0);
        File::open("/dev/null").expect("a spare descriptor");
        TcpListener::bind(again).expect("to bind a port of --listen");
        fs::remove_file(&socket).expect("to remove its socket");
        let next = Command::new(&own)
            .arg("--list")
            .output()
            .expect("to start its own executable, as an upgrade does");
        assert!(next.status.success(), "{next:?}");
    });
}

/// Runs the server with one system call failing.
fn where_it_fails(call: &str, error: &str) -> Server {
    let own = command();
    let mut strace = Command::new("strace");
    // With -D the started process is the server, and strace a detached tracer.
    strace.args(["-D", "-qq", "-o", "/dev/null", "-e", &format!("inject={call}:error={error}")]);
    strace.arg(own.get_program()).args(["--listen", "127.0.0.1:0"]);
    Server::spawn(strace, 1)
}

#[test]
fn the_server_works_without_landlock() {
    // A kernel without Landlock, one with it disabled, and a container that forbids it.
    for error in ["ENOSYS", "EOPNOTSUPP", "EPERM"] {
        let line = sandbox_line(&where_it_fails("landlock_create_ruleset", error));
        assert!(line.ends_with("no new privileges, no Landlock here"), "{error}: {line}");
    }
    if landlock_version() > 0 {
        let server = where_it_fails("landlock_restrict_self", "EPERM");
        let line = sandbox_line(&server);
        assert!(line.ends_with("no new privileges, no Landlock"), "{line}");
        assert!(server.logged("WARN cannot enforce Landlock") > 0, "{:?}", server.log());
    }
}

#[test]
fn consecutive_upgrades_work_beyond_the_kernels_landlock_layers() {
    let outside = Outside::new();
    let options = outside.options(&[]);
    let reports = inside(&options, &[], |first| {
        let next = |_| {
            Sandbox::plan(&options)
                .expect("a plan")
                .enter(&[], &OutgoingPorts::Only(Vec::new()))
                .expect("a sandbox")
                .landlock
        };
        let mut reports = vec![first.landlock];
        reports.extend((0..20).map(next));
        assert!(
            landlock_version() == 0 || fs::read("/etc/passwd").is_err(),
            "the first layers hold"
        );
        reports
    });
    match landlock_version() {
        0 => assert!(reports.iter().all(|report| *report == Some(Landlock::Absent))),
        version => {
            assert_eq!(reports[..16], [Some(Landlock::Version(version)); 16]);
            assert_eq!(reports[16..], [Some(Landlock::Refused); 5]);
        }
    }
}
