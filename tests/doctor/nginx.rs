//! A running nginx with one port per site, in a folder of its own.

use std::fmt::Write;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::common::{Folder, Running, until};

/// Directives of every site, unless the site has its own of the same name.
const GOOD: &[&str] = &[
    "proxy_http_version 1.1;",
    "proxy_set_header Upgrade $http_upgrade;",
    "proxy_set_header Connection $connection_upgrade;",
    "large_client_header_buffers 4 16k;",
];
/// Directives that belong into `server`, not into `location`.
const SERVER_DIRECTIVES: &[&str] = &["large_client_header_buffers"];

/// One port of an nginx.
pub struct Site {
    lines: String,
    /// Path of certificate and key, without `.crt` and `.key`.
    certificate: Option<PathBuf>,
}

pub struct Nginx {
    _running: Running,
    /// Files of the process. Dropped after it.
    _folder: Folder,
    /// URL of each site.
    urls: Vec<String>,
}

impl Site {
    pub fn plain(lines: &str) -> Self {
        Self { lines: lines.to_owned(), certificate: None }
    }

    pub fn tls(certificate: &Path) -> Self {
        Self { lines: String::new(), certificate: Some(certificate.to_owned()) }
    }

    fn url(&self, port: u16) -> String {
        match self.certificate {
            Some(_) => format!("https://localhost:{port}"),
            None => format!("http://127.0.0.1:{port}"),
        }
    }

    fn configuration(&self, port: u16, speak: SocketAddr) -> String {
        let tls = self.certificate.as_ref().map_or_else(String::new, |path| {
            let path = path.display();
            format!(" ssl; ssl_certificate {path}.crt; ssl_certificate_key {path}.key")
        });
        let mut server = format!("listen 127.0.0.1:{port}{tls};");
        let mut location = String::new();
        let own: Vec<&str> = self.lines.split_inclusive(';').map(str::trim).collect();
        let pass = format!("proxy_pass http://{speak};");
        let good = GOOD.iter().copied().chain([pass.as_str()]);
        let kept = good.filter(|line| own.iter().all(|own| key(own) != key(line)));
        for line in kept.chain(own.iter().copied()) {
            let is_of_server = SERVER_DIRECTIVES.contains(&key(line).as_str());
            let block = if is_of_server { &mut server } else { &mut location };
            write!(block, " {line}").expect("a String accepts all text");
        }
        format!("server {{ {server} location / {{ {location} }} }}\n")
    }
}

/// Returns the name of a directive. For one that sets a header, the name of the header is part of
/// it.
fn key(line: &str) -> String {
    let count = if line.starts_with("proxy_set_header") { 2 } else { 1 };
    line.split_whitespace().take(count).collect::<Vec<_>>().join(" ")
}

impl Nginx {
    /// Starts an nginx whose `sites` are proxies of `speak`.
    pub fn start(name: &str, speak: SocketAddr, sites: &[Site]) -> Self {
        // Another process may take a port before nginx does.
        let started = (0..5).find_map(|_| Self::try_to_start(name, speak, sites));
        started.expect("nginx starts: are its ports taken, or its configuration wrong?")
    }

    /// Returns None if nginx exits at once.
    fn try_to_start(name: &str, speak: SocketAddr, sites: &[Site]) -> Option<Self> {
        let folder = Folder::new(name);
        // All ports are held until all are known, so that they differ.
        let held: Vec<_> =
            sites.iter().map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let ports: Vec<u16> =
            held.iter().map(|port| port.local_addr().expect("its address").port()).collect();
        drop(held);
        let here = folder.path().display();
        let pid = folder.file("pid");
        let mut text = format!(
            "daemon off; master_process off; pid {here}/pid; error_log {here}/error.log warn;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; default_type text/html;\n\
             map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}\n\
             proxy_cache_path {here}/cache keys_zone=answers:1m;\n"
        );
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(text, "{kind}_temp_path {here}/{kind};").expect("a String accepts all text");
        }
        for (site, port) in sites.iter().zip(&ports) {
            text.push_str(&site.configuration(*port, speak));
        }
        text.push_str("}\n");
        let path = folder.file("nginx.conf");
        fs::write(&path, text).expect("writing the configuration");
        // On Debian, nginx is not in the PATH of users.
        let program =
            if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
        let mut command = Command::new(program);
        command.arg("-c").arg(&path).arg("-e").arg(folder.file("error.log"));
        command.arg("-p").arg(folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let mut running = Running::start(&mut command);
        let mut has_ended = false;
        until("nginx runs", || {
            has_ended = running.status().is_some();
            // An open port could be that of another process. nginx writes its pid file after it has
            // bound all ports.
            has_ended || pid.exists()
        });
        let urls = sites.iter().zip(ports).map(|(site, port)| site.url(port)).collect();
        (!has_ended).then_some(Self { _running: running, _folder: folder, urls })
    }

    /// Returns the URL of a site.
    pub fn url(&self, index: usize) -> &str {
        &self.urls[index]
    }
}
