//! Deleting what was removed, behind everybody's back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brig_storage::Snapshots;

/// At most one thread deletes. It is a plain one: the engine does not wait for it when it ends, since the next engine
/// goes on where this one was.
#[derive(Clone, Debug, Default)]
pub(super) struct Sweeper(Arc<Mutex<State>>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    Sweeping,
    /// More was removed since the sweep began.
    Again,
}

impl Sweeper {
    pub(super) fn sweep(&self, snapshots: Snapshots) {
        {
            let mut state = self.state();
            if *state != State::Idle {
                *state = State::Again;
                return;
            }
            *state = State::Sweeping;
        }
        let this = self.clone();
        let thread = std::thread::Builder::new().name("sweeper".into());
        if let Err(error) = thread.spawn(move || this.work(&snapshots)) {
            tracing::error!("start the thread that deletes removed layers: {error}");
            *self.state() = State::Idle;
        }
    }

    fn work(&self, snapshots: &Snapshots) {
        loop {
            if let Err(error) = snapshots.sweep() {
                tracing::error!(?error, "delete removed layers; the next start tries again");
            }
            let mut state = self.state();
            if *state != State::Again {
                *state = State::Idle;
                return;
            }
            *state = State::Sweeping;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
