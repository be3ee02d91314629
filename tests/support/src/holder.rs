//! A process that holds namespaces open for a test: it does nothing, and ends when its input does.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};

/// The script that a holder runs once its namespaces are there; whatever comes before it prepares them.
pub const HOLD: &str = "ip link set lo up && echo ready && exec cat";

/// The holder. Dropping it lets the namespaces go.
#[derive(Debug)]
pub struct Holder(Child);

impl Holder {
    /// Starts a command that says `ready` on a line of its own and then waits for the end of its input.
    ///
    /// # Panics
    /// It cannot be started or does not become ready.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("start a holder of namespaces");
        let mut ready = [0; 6];
        let output = child.stdout.as_mut().expect("its output is piped");
        output.read_exact(&mut ready).expect("the holder becomes ready");
        Self(child)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Ends it and waits for its end.
    pub fn release(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.release();
    }
}
