//! Starts the peers that are not one process of a program: rooms in Node, and Pushpin with a
//! backend.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::process::{Cores, Process, Running, START_MAX, fresh_folder};

use crate::result::Result;
use crate::target::{Kind, Target};

/// Folder with the programs and configurations of the peers.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");
const PUSHPIN_CONF: &str = include_str!("../peers/pushpin.conf");
const BACKEND_CONF: &str = include_str!("../peers/pushpin-backend.conf");
pub(crate) const NGINX: [&str; 2] = ["/usr/sbin/nginx", "/usr/bin/nginx"];
const PUSHPIN: [&str; 3] = ["/usr/bin/pushpin", "/usr/bin/condure", "/usr/bin/zurl"];
/// Processes that Pushpin starts: the listener, the client of the backend, proxy and handler.
const PUSHPIN_CHILDREN: usize = 4;
const NODE: [&str; 2] = ["/usr/bin/node", "/usr/local/bin/node"];

/// Certificate and key of all servers with TLS: ECDSA with P-256.
pub(crate) const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/tls/ecdsa.pem");
pub(crate) const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/tls/ecdsa.key");

/// Returns why a peer cannot be started here.
pub(crate) fn missing(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Pushpin if PUSHPIN.iter().any(|path| !Path::new(path).exists()) => {
            Some("install pushpin, condure and zurl")
        }
        Kind::Ws | Kind::SocketIo if first_file(&NODE).is_none() => Some("install nodejs"),
        Kind::Ws | Kind::SocketIo if !Path::new(FOLDER).join("node_modules/ws").exists() => {
            Some("run .ci/npm bench/peers")
        }
        _ => None,
    }
}

/// Returns a port that is free now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

pub(crate) fn at(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new([127, 0, 0, 1].into(), port)
}

/// Returns the command of a server in Node.
pub(crate) fn node(kind: Kind, port: u16, is_tls: bool) -> Result<Command> {
    let mut command = Command::new(first_file(&NODE).ok_or("no node")?);
    let file = if kind == Kind::Ws { "ws.mjs" } else { "socketio.mjs" };
    command.env("NODE_ENV", "production").arg(Path::new(FOLDER).join(file)).arg(port.to_string());
    if is_tls {
        command.args([CERTIFICATE, KEY]);
    }
    Ok(command)
}

/// Waits until a server accepts.
pub(crate) fn await_port(running: &mut Running, port: u16) -> Result<()> {
    let deadline = Instant::now() + START_MAX;
    while TcpStream::connect(at(port)).is_err() {
        running.check_start(deadline)?;
    }
    Ok(())
}

/// Starts Pushpin and its backend, in this order in the result, and waits until a client is
/// subscribed.
pub(crate) fn start_pushpin(cores: Cores) -> Result<(Target, Running, Running)> {
    let [backend_port, port, publish] = [free_port()?, free_port()?, free_port()?];
    let (backend_folder, folder) = (fresh_folder("speak-bench")?, fresh_folder("speak-bench")?);
    let conf = backend_folder.join("nginx.conf");
    fs::write(&conf, filled(BACKEND_CONF, &backend_folder, backend_port))?;
    let mut command = Command::new(first_file(&NGINX).ok_or("no nginx")?);
    command.arg("-p").arg(&backend_folder).arg("-c").arg(conf);
    let mut backend = Running::spawn(command, cores, backend_folder)?;
    await_port(&mut backend, backend_port)?;

    let text = filled(PUSHPIN_CONF, &folder, port).replace("@PUBLISH@", &publish.to_string());
    fs::write(folder.join("pushpin.conf"), text)?;
    fs::write(folder.join("routes"), format!("* 127.0.0.1:{backend_port},over_http\n"))?;
    let mut command = Command::new(PUSHPIN[0]);
    command.arg("--config").arg(folder.join("pushpin.conf")).arg("--merge-output");
    let mut running = Running::spawn(command, cores, folder)?;
    let deadline = Instant::now() + START_MAX;
    while !serves(port) || TcpStream::connect(at(publish)).is_err() {
        running.check_start(deadline)?;
    }
    let children = running.process().children()?;
    if children.len() != PUSHPIN_CHILDREN {
        return Err(format!("Pushpin has {} processes", children.len()).into());
    }
    let target = Target {
        process: Some(running.process()),
        // The list lives as long as the program: a run starts a few of these servers.
        helpers: children.into_iter().map(Process).collect::<Vec<_>>().leak(),
        publish: Some(at(publish)),
        ..Target::new(at(port), Kind::Pushpin.dialect())
    };
    Ok((target, running, backend))
}

fn filled(conf: &str, folder: &Path, port: u16) -> String {
    conf.replace("@PORT@", &port.to_string()).replace("@FOLDER@", &folder.to_string_lossy())
}

/// Returns whether an event stream begins.
fn serves(port: u16) -> bool {
    let begins = || -> Result<bool> {
        let mut stream = TcpStream::connect(at(port))?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(b"GET /events?channel=start HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(&head == b"HTTP/1.1 200")
    };
    begins().unwrap_or(false)
}

pub(crate) fn first_file(paths: &[&'static str]) -> Option<&'static str> {
    paths.iter().copied().find(|path| Path::new(path).exists())
}
