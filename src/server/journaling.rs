//! The journal's way through the life of the process: read at the start, written while it serves,
//! and handed to the successor in an upgrade.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mio::{Registry, Waker};

use super::clock::unix_ms;
use super::event_source::EventSource;
use super::listener::OsListener;
use super::start_error::StartError;
use super::timer_fd::TimerFd;
use crate::hub::{self, Hub, Now, Recovery};
use crate::journal::{self, Checked, Config, Item, JournalError, Opened, Recovered};
use crate::options::Options;
use crate::service::{Service, command_position, record_position};

/// Interval at which the end of a write is checked for while nothing else is done.
const WAIT: Duration = Duration::from_micros(200);

/// Waits until the log is idle before an upgrade.
const DRAIN_WAITS_MAX: u32 = 10_000;

/// Longest time until the lock of a predecessor that was killed is free: the kernel ends its writes
/// before it closes the files, and closes them one after the other.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// The journal before this process serves.
pub(super) enum PendingJournal {
    /// It was read, and this process has its lock.
    Read(Box<Recovered>),
    /// The predecessor writes it until this process serves.
    OfPredecessor(Config),
}

/// What it takes to open the journal again.
pub(super) struct JournalHandle {
    pub(super) config: Config,
    /// Wakes the loop when the journal has written. A poll can have only one.
    pub(super) waker: Arc<Waker>,
    /// Ends the delay of a record.
    pub(super) commit_delay: TimerFd,
}

impl JournalHandle {
    pub(super) fn new(config: Config, registry: &Registry) -> io::Result<Self> {
        let waker = Arc::new(Waker::new(registry, EventSource::Journal.token())?);
        let commit_delay = TimerFd::new(registry, EventSource::CommitDelay)?;
        Ok(Self { config, waker, commit_delay })
    }
}

/// Returns the settings of the journal, if there is one.
pub(super) fn config(options: &Options) -> Option<Config> {
    let directory = options.journal.clone()?;
    Some(Config::new(directory, options.journal_sync))
}

/// Opens and reads a journal. Returns its hub and the hub's present time; `None` for a new journal.
///
/// # Errors
///
/// [`StartError`] if it cannot be used.
pub(super) fn read(
    config: Config,
    hub_config: &hub::Config,
) -> Result<(Option<(Hub, Now)>, PendingJournal), StartError> {
    read_opened(Opened::open(config), hub_config)
}

/// Reads the journal of a predecessor that exited before it had transferred its state.
///
/// # Errors
///
/// [`StartError`] if it cannot be used.
pub(super) fn read_of_exited(
    config: Config,
    hub_config: &hub::Config,
) -> Result<(Option<(Hub, Now)>, PendingJournal), StartError> {
    read_opened(Opened::open_released(config, RELEASE_MAX), hub_config)
}

/// Checks the journal of the options as a start would, and changes nothing. `None` without one.
///
/// # Errors
///
/// [`StartError`] if it cannot be used, also if another process uses it, unless `may_be_in_use`.
pub(super) fn check(
    options: &Options,
    may_be_in_use: bool,
    hub_config: &hub::Config,
) -> Result<Option<Checked>, StartError> {
    let Some(directory) = options.journal.as_deref() else { return Ok(None) };
    let mut recovery = Recovery::new(hub_config.clone());
    let checked = journal::check(directory, may_be_in_use, &mut |item| load(&mut recovery, &item));
    checked.map(Some).map_err(cannot_use)
}

/// Loads a part of a journal.
fn load(recovery: &mut Recovery, item: &Item<'_>) -> Result<(), String> {
    match item {
        Item::Piece(piece) => recovery.load_piece(piece),
        Item::Record(record) => {
            let now = Now { mono: hub::Millis(record.mono_ms), unix_ms: record.unix_ms };
            recovery.apply_record(now, record.commands, |index| {
                command_position(record.position, index)
            })
        }
    }
    .map_err(|hub::Corrupt(fault)| format!("the journal has contents of no version: {fault}"))
}

fn read_opened(
    opened: Result<Opened, JournalError>,
    hub_config: &hub::Config,
) -> Result<(Option<(Hub, Now)>, PendingJournal), StartError> {
    let mut recovery = Recovery::new(hub_config.clone());
    let recovered = opened
        .and_then(|opened| opened.recover(&mut |item| load(&mut recovery, &item)))
        .map_err(cannot_use)?;
    let restored = recovery.finish(unix_ms()).map(|(mut hub, now)| {
        if recovered.needs_new_epoch {
            log::warn!("journal: the last records may be lost; message ids begin a new epoch");
            hub.set_epoch(hub_config.epoch);
        }
        let gauges = hub.gauges();
        log::info!(
            "recovered journal records={} channels={} connections={}",
            recovered.records,
            gauges.channels,
            gauges.sessions
        );
        (hub, now)
    });
    Ok((restored, PendingJournal::Read(Box::new(recovered))))
}

impl PendingJournal {
    /// Starts to write the journal, and makes the service wait for it.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the directory cannot be used.
    pub(super) fn start(
        self,
        service: &mut Service<OsListener>,
        waker: Arc<Waker>,
    ) -> Result<(), StartError> {
        let recovered = match self {
            Self::Read(recovered) => *recovered,
            Self::OfPredecessor(config) => {
                find_end(config, record_position(service.hub().0.position())).map_err(cannot_use)?
            }
        };
        let needs_numbering = recovered.needs_new_epoch || recovered.position == 0;
        let is_new = recovered.position == 0;
        let journal = recovered.start(waker).map_err(cannot_use)?;
        service.set_log(Box::new(journal));
        if needs_numbering { begin_numbering(service, is_new) } else { Ok(()) }
    }
}

/// Finishes all writes before an upgrade: the state of the hub is then that of the log. Refuses
/// those for which the log has no space. Calls `exchange` meanwhile, which sends and receives.
/// Returns false if the log takes too long, or has failed.
pub(super) fn drain(service: &mut Service<OsListener>, mut exchange: impl FnMut()) -> bool {
    for _ in 0..DRAIN_WAITS_MAX {
        // The time of the next attempt does not come here: no turn begins.
        service.refuse_while_full();
        if service.advance_log() {
            // A successor would read from a journal that has failed what was not acknowledged.
            return !service.has_log_failed();
        }
        exchange();
        thread::sleep(WAIT);
    }
    false
}

/// Opens the journal again whose lock was released for a successor that did not take over.
///
/// # Errors
///
/// [`StartError`] if the directory cannot be used any more.
pub(super) fn reopen(
    handle: &JournalHandle,
    service: &mut Service<OsListener>,
) -> Result<(), StartError> {
    PendingJournal::OfPredecessor(handle.config.clone()).start(service, Arc::clone(&handle.waker))
}

/// Opens a journal whose state this process has already, with all records up to `position`. That is
/// 0 if an earlier version of the program sent the state, without the position: then all records
/// have to be read to find the last.
fn find_end(config: Config, position: u64) -> Result<Recovered, JournalError> {
    let opened = Opened::open_released(config, RELEASE_MAX)?;
    if position > 0 { opened.resume(position) } else { opened.recover(&mut |_| Ok(())) }
}

/// Writes the record that begins a numbering of ids, and waits for it.
fn begin_numbering(service: &mut Service<OsListener>, is_new: bool) -> Result<(), StartError> {
    let before = service.hub().0.position();
    service.begin_numbering(is_new);
    while !service.advance_log() {
        thread::sleep(WAIT);
    }
    let problem = match () {
        () if service.hub().0.position() > before => return Ok(()),
        () if service.has_log_failed() => "fails (see log)",
        () => "is full; make room",
    };
    Err(StartError(format!("cannot begin the journal: its disk {problem}")))
}

fn cannot_use(JournalError(line): JournalError) -> StartError {
    StartError(line)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::{env, fs, process};

    use mio::Poll;

    use super::*;
    use crate::hub::Epoch;
    use crate::options::{Command, parse};
    use crate::service::{AcceptLimits, InitialHub, hub_config};
    use crate::snapshot;

    /// A directory that is removed when the test ends.
    struct Directory(PathBuf);

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("the directory is there");
        }
    }

    fn fill(bytes: &mut [u8]) {
        bytes.fill(7);
    }

    fn position_and_hash(service: &Service<OsListener>) -> (u64, u64) {
        let (hub, _) = service.hub();
        (hub.position(), hub.applied_hash())
    }

    #[test]
    fn the_hash_continues_over_restarts_upgrades_and_new_epochs() {
        let path = env::temp_dir().join(format!("speak-journaling-{}", process::id()));
        let directory = Directory(path);
        let Ok(Command::Run(options)) = parse([], |_| None) else { panic!("these are options") };
        let config = hub_config(&options, fill);
        let journal = Config::new(directory.0.clone(), crate::log::SyncMode::Always);
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), EventSource::Journal.token()).unwrap());
        let serve = |initial: InitialHub, pending: PendingJournal| {
            let limits = AcceptLimits::new(1, 1);
            let mut service = Service::with_hub(&options, initial, Vec::new(), limits, fill);
            pending.start(&mut service, Arc::clone(&waker)).map_err(|it| it.0).unwrap();
            service
        };
        let recover = || {
            let (restored, pending) =
                read(journal.clone(), &config).map_err(|it| it.0).expect("a good journal");
            (restored.map(|(hub, now)| InitialHub { hub, now }), pending)
        };

        let (nothing, pending) = recover();
        assert!(nothing.is_none());
        let new = InitialHub { hub: Hub::new(config.clone()), now: Now::default() };
        let mut service = serve(new, pending);
        let first = position_and_hash(&service);
        assert_eq!(first.0, command_position(1, 0));
        assert_ne!(first.1, 0);
        service.release_log();

        let (recovered, pending) = recover();
        let mut service = serve(recovered.unwrap(), pending);
        assert_eq!(position_and_hash(&service), first);
        service.release_log();

        let (hub, now) = service.hub();
        let mut bytes = Vec::new();
        snapshot::write(hub, now, 0, &mut bytes).unwrap();
        let (hub, now) = snapshot::read(&config, 0, &mut bytes.as_slice()).ok().unwrap();
        let mut service =
            serve(InitialHub { hub, now }, PendingJournal::OfPredecessor(journal.clone()));
        assert_eq!(position_and_hash(&service), first);
        service.release_log();

        // As after the loss of some records.
        let (recovered, pending) = recover();
        let PendingJournal::Read(mut pending) = pending else { panic!("it was read") };
        pending.needs_new_epoch = true;
        let InitialHub { mut hub, now } = recovered.unwrap();
        hub.set_epoch(Epoch::new(*b"newepoch"));
        let mut service = serve(InitialHub { hub, now }, PendingJournal::Read(pending));
        let second = position_and_hash(&service);
        assert_eq!(second.0, command_position(2, 0));
        assert_ne!(second.1, first.1);
        service.release_log();

        let (recovered, _) = recover();
        let InitialHub { hub, .. } = recovered.unwrap();
        assert_eq!((hub.position(), hub.applied_hash()), second);
        assert_eq!(hub.epoch().as_bytes(), b"newepoch");
    }
}
