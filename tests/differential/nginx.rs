//! A running nginx, in a folder of its own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::common::{Folder, until};
use super::table;
use super::verdict::Listener;

pub struct Nginx {
    child: Child,
    folder: Folder,
}

/// A proxy's log, read as it grows.
pub struct Log {
    file: BufReader<File>,
    /// The next line, as far as it has been written.
    line: Vec<u8>,
    forwarded: Vec<Forwarded>,
}

/// A request that a proxy accepted.
pub struct Forwarded {
    /// Status of Speak's response. `None` if nginx did not ask Speak, or left before the response.
    pub status: Option<u16>,
    pub request_line: String,
}

impl Log {
    /// Returns all requests logged so far.
    pub fn forwarded(&mut self) -> &[Forwarded] {
        while self.file.read_until(b'\n', &mut self.line).expect("reading the log") > 0
            && self.line.ends_with(b"\n")
        {
            let line = String::from_utf8_lossy(&self.line);
            let (status, request_line) =
                line.trim_end_matches('\n').split_once(' ').expect("as it is configured");
            self.forwarded.push(Forwarded {
                status: status.parse().ok(),
                request_line: request_line.to_owned(),
            });
            self.line.clear();
        }
        &self.forwarded
    }

    /// Returns how many requests Speak has answered, as nginx sees it.
    pub fn answered(&mut self) -> usize {
        self.forwarded().iter().filter(|forwarded| forwarded.status.is_some()).count()
    }
}

impl Nginx {
    /// Starts nginx, whose sockets and logs are in this folder.
    pub fn start(folder: Folder) -> Self {
        let template = fs::read_to_string(table::folder().join("nginx.conf"));
        let here = folder.path().to_str().expect("a path in UTF-8");
        let text = template.expect("the configuration").replace("@FOLDER@", here);
        let configuration = folder.file("nginx.conf");
        fs::write(&configuration, text).expect("writing the configuration");
        let mut command = command();
        command.arg("-c").arg(configuration).arg("-e").arg(folder.file("error.log"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().expect("nginx, from the package nginx-light");
        let mut nginx = Self { child, folder };
        let sockets = ["origin", "answer", "buffering", "passing", "upgrading"];
        until("nginx is there", || {
            let status = nginx.child.try_wait().expect("asking for our own child");
            assert!(status.is_none(), "nginx did not start: {status:?}");
            sockets.iter().all(|name| UnixStream::connect(nginx.folder.file(name)).is_ok())
        });
        nginx
    }

    pub fn listener(&self, name: &str) -> Listener {
        Listener::Unix(self.folder.file(name))
    }

    /// Returns the log of a proxy.
    pub fn log(&self, proxy: &str) -> Log {
        let file = File::open(self.folder.file(&format!("{proxy}.log"))).expect("the log");
        Log { file: BufReader::new(file), line: Vec::new(), forwarded: Vec::new() }
    }

    pub fn stop(&mut self) {
        // Fails only if the process has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Returns the version, as in `1.22.1`.
pub fn version() -> String {
    let output = command().arg("-v").output().expect("nginx, from the package nginx-light");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let (_, version) = text.split_once("nginx/").unwrap_or_else(|| panic!("no version: {text}"));
    version.split_whitespace().next().unwrap_or_default().to_owned()
}

fn command() -> Command {
    // Debian installs nginx where only root's PATH looks.
    let debian = "/usr/sbin/nginx";
    Command::new(if Path::new(debian).exists() { debian } else { "nginx" })
}
