//! Binding of all listeners at the start: activated ones, inherited ones, and those of the options.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use super::activation::ActivatedSocket;
use super::diagnose::{SocketOwner, explain_bind_error, running_speak};
use super::listener::OsListener;
use super::start_error::StartError;
use super::tls::ServerTls;
use super::upgrade::Predecessor;
use crate::options::{ListenAddr, NAME_AND_VERSION, Options};
use crate::service::{Listener, ListenerKind};

/// Hint for the first start, printed if no option says where to listen.
const QUICK_START: &str = "try it, in two terminals:\n  \
    curl 'localhost:8080/read?channel=test'\n  \
    curl 'localhost:8080/write?channel=test&message=howdy'\n";

/// Bind attempts after a takeover, 2 s in all: if the predecessor was killed a moment ago, the
/// kernel still has to close its sockets.
const BIND_ATTEMPTS: u32 = 100;
const BIND_RETRY_DELAY: Duration = Duration::from_millis(20);

/// Opens all listeners and prints one line for each: activated sockets first, then the addresses of
/// the options. A predecessor's socket for the same address is reused.
///
/// # Errors
///
/// [`StartError`] for a socket that does not listen or an address that cannot be bound.
pub(super) fn bind_listeners(
    options: &Options,
    activated: Vec<ActivatedSocket>,
    mut predecessor: Option<&mut Predecessor>,
    tls: Option<&ServerTls>,
) -> Result<Vec<OsListener>, StartError> {
    let inherited = predecessor.as_mut().map_or(Vec::new(), |it| it.take_activated());
    let activated = activated.into_iter().map(|socket| (socket.kind(), socket.is_tls(), socket.fd));
    let mut listeners = Vec::new();
    for (kind, is_tls, fd) in activated.chain(inherited) {
        let listener = OsListener::from_activation(kind, is_tls, fd, options.request_timeout);
        listeners.push(listener.map_err(|error| {
            StartError(format!("cannot use a socket that systemd passed: {error}"))
        })?);
    }
    for (kind, address) in addresses(options, &listeners) {
        let listener = bind(options, kind, address, predecessor.as_deref_mut());
        listeners.push(listener.map_err(|error| StartError(explain_bind_error(address, &error)))?);
    }
    set_up_tls(&mut listeners, tls)?;
    print_addresses(&listeners);
    let is_first_start = options.has_default_listeners() && tls.is_none() && predecessor.is_none();
    if is_first_start && !listeners.iter().any(OsListener::is_activated) {
        // Fails only if standard error is closed.
        let _ = io::stderr().write_all(QUICK_START.as_bytes());
    }
    Ok(listeners)
}

/// Lets the listeners that the options or systemd say so speak TLS.
///
/// # Errors
///
/// [`StartError`] for certificates without such a listener, or the opposite.
fn set_up_tls(listeners: &mut [OsListener], tls: Option<&ServerTls>) -> Result<(), StartError> {
    check_tls(tls.is_some(), listeners.iter().any(OsListener::is_tls))?;
    if let Some(tls) = tls {
        let with_tls = listeners.iter_mut().filter(|it| it.is_tls());
        with_tls.for_each(|listener| listener.set_tls(tls.acceptor()));
    }
    Ok(())
}

/// Checks that there are certificates if and only if there is a listener for them.
///
/// # Errors
///
/// [`StartError`] if there is one without the other.
pub(super) fn check_tls(has_certificates: bool, has_listener: bool) -> Result<(), StartError> {
    let line = match (has_certificates, has_listener) {
        (true, false) => {
            "--tls-cert: no listener speaks TLS; add --listen tls:443, or in a socket unit \
             FileDescriptorName=tls"
        }
        (false, true) => {
            "a socket unit has FileDescriptorName=tls, and there is no certificate; give \
             --tls-cert FILE and --tls-key FILE"
        }
        (true, true) | (false, false) => return Ok(()),
    };
    Err(StartError(line.into()))
}

/// Addresses to bind. Activated public listeners replace the default addresses.
fn addresses<'o>(
    options: &'o Options,
    activated: &[OsListener],
) -> impl Iterator<Item = (ListenerKind, &'o ListenAddr)> + use<'o> {
    let has_public = activated.iter().any(|it| it.kind() == ListenerKind::Public);
    let public =
        if options.has_default_listeners() && has_public { &[][..] } else { &options.listen };
    let public = public.iter().map(|address| (ListenerKind::Public, address));
    public.chain(options.admin_listen.iter().map(|address| (ListenerKind::Admin, address)))
}

/// Checks that the addresses of the options could be bound, and leaves nothing behind. Passes each
/// to `report`, with the running Speak that has it, if there is one.
///
/// # Errors
///
/// [`StartError`] as for a start, except that a running Speak may have an address: it hands the
/// address over in an upgrade, and a restart frees it.
pub(super) fn check_addresses(
    options: &Options,
    report: &mut dyn FnMut(&ListenAddr, Option<SocketOwner>),
) -> Result<(), StartError> {
    for (_, address) in addresses(options, &[]) {
        match OsListener::check(address, options.request_timeout) {
            Ok(()) => report(address, None),
            Err(error) => {
                let is_in_use = error.kind() == io::ErrorKind::AddrInUse;
                let owner = is_in_use.then(|| running_speak(address)).flatten();
                if owner.is_none() {
                    return Err(StartError(explain_bind_error(address, &error)));
                }
                report(address, owner);
            }
        }
    }
    Ok(())
}

fn bind(
    options: &Options,
    kind: ListenerKind,
    address: &ListenAddr,
    predecessor: Option<&mut Predecessor>,
) -> io::Result<OsListener> {
    let bind = || OsListener::bind(address, kind, options.request_timeout);
    let Some(predecessor) = predecessor else { return bind() };
    match predecessor.take_listener(kind, address) {
        Some(fd) => Ok(OsListener::inherit(address, kind, fd)),
        None => bind_with_retry(bind),
    }
}

/// Binds an address that a predecessor, killed a moment ago, may still have.
fn bind_with_retry(bind: impl Fn() -> io::Result<OsListener>) -> io::Result<OsListener> {
    for _ in 1..BIND_ATTEMPTS {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                thread::sleep(BIND_RETRY_DELAY);
            }
            result => return result,
        }
    }
    bind()
}

fn print_addresses(listeners: &[OsListener]) {
    for listener in listeners {
        let note = match listener.kind() {
            ListenerKind::Public => "",
            ListenerKind::Admin => " (admin)",
        };
        // Fails only if standard error is closed.
        let _ = writeln!(io::stderr(), "{NAME_AND_VERSION} listening on {listener}{note}");
    }
}
