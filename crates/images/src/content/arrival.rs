//! Reading a blob while it is being written, so that a layer is unpacked while it comes.
//!
//! Whoever reads has no more than the promise that bytes below the count are written: what they are worth is known when
//! their digest is, as with any reader of a layer.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use crate::digest::Digest;

/// The blobs that this process is writing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals(Arc<Mutex<HashMap<Digest, Weak<Arrival>>>>);

impl Arrivals {
    /// Announces a writer. The arrival ends when the returned value is dropped.
    pub(crate) fn begin(&self, digest: &Digest, written: u64, size: u64) -> Arriving {
        let state = State { written, generation: 0, ended: false };
        let arrival = Arc::new(Arrival { size, state: Mutex::new(state), changed: Condvar::new() });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, arrival| arrival.strong_count() > 0);
        all.insert(digest.clone(), Arc::downgrade(&arrival));
        Arriving(arrival)
    }

    pub(crate) fn find(&self, digest: &Digest) -> Option<Arc<Arrival>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest)?.upgrade()
    }
}

/// How far one blob has come.
#[derive(Debug)]
pub(crate) struct Arrival {
    size: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    written: u64,
    /// Raised when the writer starts over.
    generation: u64,
    ended: bool,
}

impl Arrival {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }
}

/// The writer's end.
#[derive(Debug)]
pub(crate) struct Arriving(Arc<Arrival>);

impl Arriving {
    pub(crate) fn advance(&self, written: u64) {
        self.0.change(|state| state.written = written);
    }

    pub(crate) fn restart(&self) {
        self.0.change(|state| (state.written, state.generation) = (0, state.generation + 1));
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.change(|state| state.ended = true);
    }
}

/// A blob that may still be growing. Blocks where the writer is not yet.
#[derive(Debug)]
pub(crate) struct Growing {
    file: File,
    arrival: Arc<Arrival>,
    generation: u64,
    position: u64,
}

impl Growing {
    /// `file` is the partial blob, from its start.
    pub(crate) fn new(file: File, arrival: Arc<Arrival>) -> Self {
        let generation = arrival.state().generation;
        Self { file, arrival, generation, position: 0 }
    }

    /// How many bytes can be read from here without waiting; zero at the end.
    fn wait(&self) -> io::Result<u64> {
        let mut state = self.arrival.state();
        loop {
            if state.generation != self.generation {
                return Err(io::Error::other("the download started over"));
            }
            if state.written > self.position || self.position == self.arrival.size {
                return Ok(state.written.saturating_sub(self.position));
            }
            if state.ended {
                let problem = "the download was given up";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
            }
            state = self.arrival.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Read for Growing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ready = usize::try_from(self.wait()?).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read(&mut buffer[..ready])?;
        self.position += count as u64;
        Ok(count)
    }
}
