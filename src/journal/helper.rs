//! The helper thread: it writes, so that the loop never waits for the disk.
//!
//! Jobs are done in order. Each has one result, and the waker tells the loop that it is there.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{Builder, JoinHandle};

use mio::Waker;

use super::storage::Storage;
use super::worker::{Done, HelperGone, Job, JobQueue, Worker};

/// Name of the thread.
const THREAD_NAME: &str = "journal";
/// The thread calls nothing that needs more.
const STACK_BYTES: usize = 128 * 1024;

/// The thread, as the loop sees it.
pub(super) struct Helper {
    /// `None` when the thread was told to end.
    jobs: Option<Sender<Job>>,
    results: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl Helper {
    pub(super) fn start(storage: Arc<dyn Storage>, waker: Arc<Waker>) -> io::Result<Self> {
        let (jobs, job_queue) = mpsc::channel();
        let (result_queue, results) = mpsc::channel();
        let worker = Worker::new(storage);
        let thread = Builder::new()
            .name(THREAD_NAME.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || run(worker, &job_queue, &result_queue, &waker))?;
        Ok(Self { jobs: Some(jobs), results, thread: Some(thread) })
    }
}

impl JobQueue for Helper {
    fn send(&self, job: Job) {
        // If the thread is gone, `try_result` reports it.
        let _ = self.jobs.as_ref().expect("the thread was not told to end").send(job);
    }

    fn try_result(&self) -> Result<Option<Done>, HelperGone> {
        match self.results.try_recv() {
            Ok(done) => Ok(Some(done)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(HelperGone),
        }
    }

    /// Waits for the end of the thread too.
    fn end(&mut self) {
        self.jobs = None;
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

/// Does jobs until none can come any more.
fn run(mut worker: Worker, jobs: &Receiver<Job>, results: &Sender<Done>, waker: &Waker) {
    while let Ok(job) = jobs.recv() {
        let Some(done) = worker.handle(job) else { continue };
        // Fails if the journal is gone: there is nothing to report to.
        let _ = results.send(done);
        if let Err(error) = waker.wake() {
            log::error!("cannot wake the loop: {error}");
        }
    }
}
