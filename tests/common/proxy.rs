//! Real proxies in front of servers: nginx, `HAProxy` and Caddy, with the files of `dist/proxies`
//! and `dist/cluster`.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, getuid, kill_process_group};

use super::folder::Folder;
use super::running::Running;
use super::wait::until;

pub const PROXY_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/proxies");
/// Files for a cluster of two nodes.
pub const CLUSTER_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/cluster");
/// Addresses of the nodes in the files.
const NODES: [&str; 2] = ["127.0.0.1:8080", "127.0.0.1:8081"];
/// Folder of nginx's logs, as in its file.
const NGINX_LOGS: &str = "/var/log/nginx";

/// A proxy and its configuration.
pub struct Recipe {
    pub file: &'static str,
    /// The public address in the file, and its replacement in a test.
    listener: (&'static str, &'static str),
    run: fn(&Path, &Path) -> Command,
}

pub const RECIPES: [Recipe; 3] = [
    Recipe { file: "nginx.conf", listener: ("listen 80;", "listen ADDRESS;"), run: nginx },
    Recipe { file: "haproxy.cfg", listener: ("bind :80 ", "bind ADDRESS "), run: haproxy },
    Recipe {
        file: "Caddyfile",
        listener: ("chat.example.org {", "http://:PORT {\n\tbind IP"),
        run: caddy,
    },
];

/// Returns the lines outside of the http block that the comment of nginx's file asks for.
fn main_lines(folder: &Path, file: &Path) -> String {
    let text = fs::read_to_string(file).expect("the configuration");
    let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("#     ")).collect();
    lines.join("\n").replace(NGINX_LOGS, &folder.display().to_string())
}

/// nginx needs a frame around the contents of its http block. As Debian's, it logs queries.
fn nginx(folder: &Path, file: &Path) -> Command {
    let place = |name: &str| folder.join(name).display().to_string();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|name| format!("{name}_temp_path {};", place(name))).join(" ");
    // Root has to name a user; in a namespace, it may be the only one.
    let user = if getuid().is_root() { "user root;" } else { "" };
    let frame = format!(
        "daemon off; {user} pid {}; {} http {{ access_log {}; {temporary} include {}; }}",
        place("pid"),
        main_lines(folder, file),
        place("access.log"),
        file.display(),
    );
    fs::write(folder.join("frame.conf"), frame).expect("a configuration");
    // systemd starts it with this limit.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 1024 && exec nginx -e stderr -c \"$1\"", "sh"]);
    command.arg(folder.join("frame.conf"));
    command
}

fn haproxy(_: &Path, file: &Path) -> Command {
    // As Debian's, its defaults log queries.
    let text = fs::read_to_string(file).expect("the configuration");
    let frame = "global\n log stdout format raw local0\ndefaults\n log global\n option httplog\n";
    fs::write(file, format!("{frame}{text}")).expect("a configuration");
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file);
    command
}

fn caddy(folder: &Path, file: &Path) -> Command {
    // Its admin port would be the same for all instances.
    let text = fs::read_to_string(file).expect("the configuration");
    let (comment, rules) = text.split_once("\n{\n").expect("global options");
    fs::write(file, format!("{comment}\n{{\n\tadmin off\n{rules}")).expect("a configuration");
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
    command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
    command
}

/// A running proxy.
pub struct ProxyProcess {
    running: Running,
    pub address: SocketAddr,
    folder: Folder,
}

impl Recipe {
    /// Starts a proxy at an address, before these servers. `files` is the folder of the recipe.
    pub fn run_before(
        &self,
        files: &str,
        address: SocketAddr,
        servers: &[SocketAddr],
    ) -> ProxyProcess {
        let folder = Folder::new("proxy");
        let file = folder.file(self.file);
        let text = self.configuration(files, folder.path(), address, servers);
        fs::write(&file, text).expect("a configuration");
        let log = fs::File::create(folder.file("log")).expect("a log");
        let mut command = (self.run)(folder.path(), &file);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
        // A process group of its own, so that its workers end with it.
        let running = Running::start(command.process_group(0));
        let mut proxy = ProxyProcess { running, address, folder };
        until(&format!("{} listens", self.file), || {
            let status = proxy.running.status();
            let said = || fs::read_to_string(proxy.folder.file("log"));
            assert!(status.is_none(), "{} ended with {status:?}: {:?}", self.file, said());
            TcpStream::connect(address).is_ok()
        });
        proxy
    }

    /// Returns the file with other addresses, and with its logs in the folder.
    fn configuration(
        &self,
        files: &str,
        folder: &Path,
        address: SocketAddr,
        servers: &[SocketAddr],
    ) -> String {
        let text = fs::read_to_string(Path::new(files).join(self.file)).expect("the recipe");
        // The first lines, which are about Speak, stay unchanged.
        let (comment, rules) = text.split_once("\n\n").expect("lines about Speak");
        let replaced = |text: &str, old: &str, new: &str| {
            assert_eq!(text.matches(old).count(), 1, "{old:?} in {}", self.file);
            text.replace(old, new)
        };
        let mut rules = rules.to_owned();
        // Further servers are lines like that of the second one.
        for server in servers.iter().skip(NODES.len()) {
            let line = rules.lines().find(|line| line.contains(NODES[1])).expect("a second one");
            let further = line.replace(NODES[1], &server.to_string());
            let further = further.replace("speak2", &format!("speak-{}", server.port()));
            rules = rules.replace(line, &format!("{line}\n{further}"));
        }
        for (node, server) in NODES.iter().zip(servers) {
            rules = replaced(&rules, node, &server.to_string());
        }
        let listener = self.listener.1.replace("ADDRESS", &address.to_string());
        let listener = listener
            .replace("PORT", &address.port().to_string())
            .replace("IP", &address.ip().to_string());
        let rules = replaced(&rules, self.listener.0, &listener);
        let rules = rules.replace(NGINX_LOGS, &folder.display().to_string());
        format!("{comment}\n\n{rules}")
    }
}

impl ProxyProcess {
    /// Returns everything that the proxy has logged.
    pub fn logs(&self) -> String {
        let files = fs::read_dir(self.folder.path()).expect("a folder");
        let paths = files.map(|file| file.expect("a file").path());
        let logs = paths.filter(|path| path.to_string_lossy().ends_with("log"));
        logs.map(|path| String::from_utf8_lossy(&fs::read(path).expect("a log")).into_owned())
            .collect()
    }
}

impl Drop for ProxyProcess {
    fn drop(&mut self) {
        // Fails only if the proxy has exited.
        let _ = kill_process_group(Pid::from_child(&self.running.0), Signal::KILL);
    }
}
