//! Real proxies in front of servers: nginx, `HAProxy` and Caddy, with the files of `dist/proxies`
//! and `dist/cluster`.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, getuid, kill_process_group};

use super::folder::Folder;
use super::ports::free_address;
use super::running::Running;
use super::tls::Pair;
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
    /// Parts of the file, with their replacements in a test: the public address first.
    parts: &'static [(&'static str, &'static str)],
    run: fn(&Path, &Path) -> Command,
}

pub const RECIPES: [Recipe; 3] = [
    Recipe {
        file: "nginx.conf",
        parts: &[
            ("listen 80;", "listen ADDRESS;"),
            ("listen 443 ", "listen TLS "),
            ("/etc/letsencrypt/live/chat.example.org/fullchain.pem", "FOLDER/both.pem"),
            ("/etc/letsencrypt/live/chat.example.org/privkey.pem", "FOLDER/both.pem"),
        ],
        run: nginx,
    },
    Recipe {
        file: "haproxy.cfg",
        parts: &[
            ("bind :80 ", "bind ADDRESS "),
            ("bind :443 ", "bind TLS "),
            ("/etc/haproxy/chat.example.org.pem", "FOLDER/both.pem"),
        ],
        run: haproxy,
    },
    Recipe {
        file: "Caddyfile",
        // Both are for any host: a site of `https://` and `http://` is two.
        parts: &[
            ("chat.example.org {", "http://:PORT {\n\tbind IP"),
            ("SECOND.example.org {", "https://:SECURE {\n\tbind SAFE"),
            (
                "SECOND: tls /etc/ssl/chat.pem /etc/ssl/chat.key",
                "\n\ttls FOLDER/both.pem FOLDER/both.pem",
            ),
        ],
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
    // Its admin port would be the same for all instances, and so would port 80.
    let text = fs::read_to_string(file).expect("the configuration");
    let (comment, rules) = text.split_once("\n{\n").expect("global options");
    fs::write(file, format!("{comment}\n{{\n\tadmin off\n\tauto_https disable_redirects\n{rules}"))
        .expect("a configuration");
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
    command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
    command
}

/// A running proxy.
pub struct ProxyProcess {
    running: Running,
    pub address: SocketAddr,
    /// Address with TLS, if the recipe has one.
    pub tls_address: SocketAddr,
    /// Certificate for `chat.test` and 127.0.0.1.
    pub pair: Pair,
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
        let tls_address = free_address();
        let pair = Pair::usual(&folder, "chat");
        let both = [&pair.certificate, &pair.key].map(|it| fs::read(it).expect("a file in PEM"));
        fs::write(folder.file("both.pem"), both.concat()).expect("a file with both");
        let text = self.configuration(files, folder.path(), [address, tls_address], servers);
        fs::write(&file, text).expect("a configuration");
        let log = fs::File::create(folder.file("log")).expect("a log");
        let mut command = (self.run)(folder.path(), &file);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
        // A process group of its own, so that its workers end with it.
        let running = Running::start(command.process_group(0));
        let mut proxy = ProxyProcess { running, address, tls_address, pair, folder };
        until(&format!("{} listens", self.file), || {
            let status = proxy.running.status();
            let said = || fs::read_to_string(proxy.folder.file("log"));
            assert!(status.is_none(), "{} ended with {status:?}: {:?}", self.file, said());
            let has_tls = files == PROXY_FOLDER;
            TcpStream::connect(address).is_ok()
                && (!has_tls || TcpStream::connect(tls_address).is_ok())
        });
        proxy
    }

    /// Returns the file with other addresses, and with its logs in the folder.
    fn configuration(
        &self,
        files: &str,
        folder: &Path,
        [address, tls_address]: [SocketAddr; 2],
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
        // Caddy has a second site in place of a second listener.
        if let Some((_, site)) = rules.split_once("chat.example.org {") {
            let second = site.replace("For a certificate of your own: ", "SECOND: ");
            rules = [&rules, "SECOND.example.org {", &second].concat();
        }
        let place = folder.display().to_string();
        // Those of a cluster have no TLS.
        let count = if files == PROXY_FOLDER { self.parts.len() } else { 1 };
        for (old, new) in &self.parts[..count] {
            let new = new
                .replace("ADDRESS", &address.to_string())
                .replace("TLS", &tls_address.to_string())
                .replace("PORT", &address.port().to_string())
                .replace("SECURE", &tls_address.port().to_string())
                .replace("IP", &address.ip().to_string())
                .replace("SAFE", &tls_address.ip().to_string())
                .replace("FOLDER", &place);
            rules = replaced(&rules, old, &new);
        }
        let rules = rules.replace(NGINX_LOGS, &place);
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
