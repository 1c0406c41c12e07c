//! A process of another program, killed at the end of the test.

use std::process::{Child, Command, ExitStatus};

use super::wait::until;

/// A process that is killed and reaped when dropped.
pub struct Running(pub Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub fn status(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("asking for our own child")
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(&mut self, what: &str) -> ExitStatus {
        until(&format!("{what} ends"), || self.status().is_some());
        self.status().expect("it has ended")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if the process was reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
