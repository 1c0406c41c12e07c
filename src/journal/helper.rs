//! The helper thread: it writes, so that the loop never waits for the disk.
//!
//! Jobs are done in order. Each has one result, and the waker tells the loop that it is there.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use mio::Waker;

use super::mailbox::{Closed, Mailbox};
use super::storage::Storage;
use super::worker::{Done, HelperGone, Job, JobQueue, Worker};

/// Name of the thread.
const THREAD_NAME: &str = "journal";
/// The thread calls nothing that needs more.
const STACK_BYTES: usize = 128 * 1024;

/// The thread, as the loop sees it.
pub(super) struct Helper {
    /// Closed when the thread was told to end.
    jobs: Arc<Mailbox<Job>>,
    /// Closed when the thread has ended.
    results: Arc<Mailbox<(Done, Duration)>>,
    thread: Option<JoinHandle<()>>,
}

impl Helper {
    pub(super) fn start(storage: Arc<dyn Storage>, waker: Arc<Waker>) -> io::Result<Self> {
        let jobs = Arc::new(Mailbox::new());
        let results = Arc::new(Mailbox::new());
        let queue = Arc::clone(&jobs);
        let end = CloseAtEnd(Arc::clone(&results));
        let worker = Worker::new(storage);
        let thread = Builder::new()
            .name(THREAD_NAME.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || run(worker, &queue, &end.0, &waker))?;
        Ok(Self { jobs, results, thread: Some(thread) })
    }
}

impl JobQueue for Helper {
    fn send(&self, job: Job) {
        // If the thread is gone, `try_result` reports it.
        self.jobs.send(job);
    }

    fn try_result(&self) -> Result<Option<(Done, Duration)>, HelperGone> {
        self.results.try_receive().map_err(|Closed| HelperGone)
    }

    /// Waits for the end of the thread too.
    fn end(&mut self) {
        self.jobs.close();
        if let Some(thread) = self.thread.take() {
            // An error is a panic, which was reported.
            let _ = thread.join();
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.end();
    }
}

/// Closes the results when the thread ends, also by a panic.
struct CloseAtEnd(Arc<Mailbox<(Done, Duration)>>);

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Does jobs until none can come any more.
fn run(
    mut worker: Worker,
    jobs: &Mailbox<Job>,
    results: &Mailbox<(Done, Duration)>,
    waker: &Waker,
) {
    while let Ok(job) = jobs.receive() {
        let start = Instant::now();
        let Some(done) = worker.handle(job) else { continue };
        results.send((done, start.elapsed()));
        if let Err(error) = waker.wake() {
            log::error!("cannot wake the loop: {error}");
        }
    }
}
