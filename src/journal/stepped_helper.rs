//! A helper without a thread, for simulations: it does a job when it is told to.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::storage::Storage;
use super::worker::{Done, HelperGone, Job, JobQueue, Worker};

/// A helper whose jobs a simulation does one by one. Clones are the same helper.
#[derive(Clone)]
pub struct SteppedHelper(Rc<RefCell<Steps>>);

struct Steps {
    worker: Worker,
    jobs: VecDeque<Job>,
    results: VecDeque<(Done, Duration)>,
}

impl SteppedHelper {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Self {
        let worker = Worker::new(storage);
        Self(Rc::new(RefCell::new(Steps {
            worker,
            jobs: VecDeque::new(),
            results: VecDeque::new(),
        })))
    }

    /// Returns whether a job waits.
    #[must_use]
    pub fn has_job(&self) -> bool {
        !self.0.borrow().jobs.is_empty()
    }

    /// Does the next job, if there is one, which takes this time. Returns whether it has a result:
    /// then the thread of a real helper wakes the loop.
    #[must_use]
    pub fn step(&self, took: Duration) -> bool {
        let steps = &mut *self.0.borrow_mut();
        let Some(done) = steps.jobs.pop_front().and_then(|job| steps.worker.handle(job)) else {
            return false;
        };
        steps.results.push_back((done, took));
        true
    }
}

impl JobQueue for SteppedHelper {
    fn send(&self, job: Job) {
        self.0.borrow_mut().jobs.push_back(job);
    }

    fn try_result(&self) -> Result<Option<(Done, Duration)>, HelperGone> {
        Ok(self.0.borrow_mut().results.pop_front())
    }

    fn end(&mut self) {
        while self.has_job() {
            let _ = self.step(Duration::ZERO);
        }
    }
}
