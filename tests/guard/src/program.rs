//! The test program as a whole: descriptors and descendants that no mark attributes to a test.
//!
//! They are compared from the moment the first guarded test begins until the last one that runs beside it has ended:
//! only then is nothing there that somebody still uses.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::holdings::{descendants, descriptors, own_descriptor};
use crate::settle;

static TESTS: Mutex<Tests> = Mutex::new(Tests { running: 0, before: BTreeSet::new() });

#[derive(Debug)]
struct Tests {
    running: usize,
    before: BTreeSet<String>,
}

/// A guarded test that runs. Dropping it compares, if it is the last.
#[derive(Debug)]
pub(crate) struct Running(());

impl Running {
    pub(crate) fn enter() -> Self {
        let mut tests = lock();
        if tests.running == 0 {
            tests.before = look();
        }
        tests.running += 1;
        Self(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Held while looking, so that no test begins meanwhile.
        let mut tests = lock();
        tests.running -= 1;
        if tests.running > 0 || std::thread::panicking() {
            return;
        }
        let before = &tests.before;
        let left = settle(|| look().difference(before).cloned().collect());
        assert!(left.is_empty(), "this test, or one that ran beside it, left behind: {left:#?}");
    }
}

fn look() -> BTreeSet<String> {
    let mut found: BTreeSet<String> = descendants().collect();
    found.extend(descriptors().filter(|line| !own_descriptor(line)));
    found
}

fn lock() -> MutexGuard<'static, Tests> {
    TESTS.lock().unwrap_or_else(PoisonError::into_inner)
}
