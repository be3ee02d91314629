//! Compares what the machine holds before and after a privileged test, and fails the test for whatever is left.
//!
//! Tests run side by side, and others work on the same machine, so a [`Guard`] looks only at what carries its test's
//! mark: its directory, the name of its cgroups, and the namespaces that its holder keeps.
//!
//! | kind | compared where |
//! |---|---|
//! | mount | those with the directory in their line, here and in the holder's mount namespace |
//! | network namespace | those bound beneath the directory, and those of marked processes |
//! | link, nft rule | all of the holder's network namespace, which is the test's own |
//! | cgroup | those beneath the name in every hierarchy, and at the end those of the name too |
//! | process | those whose command, environment, working directory, cgroup or namespace carries the mark, and, once no guarded test of the program runs, all that descend from it |
//! | descriptor | those of this process that lead beneath the directory, and, once no guarded test of the program runs, all of this process |
//! | file | names beneath the directories that the test says must come back to what they were |
//!
//! It depends on nothing of ours, so that the tests of any crate may use it.
#![forbid(unsafe_code)]

mod holdings;
mod program;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdings::Holdings;

/// How long what was let go may take to go: the kernel and daemons clean up a moment later.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What tells the things of one test from everybody else's.
#[derive(Debug, Clone, Default)]
struct Mark {
    /// The test's own directory.
    directory: PathBuf,
    /// The name of the cgroup that is the parent of all its cgroups; empty when it has none.
    cgroup: String,
    /// The process that keeps the test's mount and network namespaces, when it has such.
    holder: Option<u32>,
    /// Directories whose names must come back to what they were.
    files: Vec<PathBuf>,
}

/// What the machine held of a test when this was made. To be dropped last of all that the test has.
#[derive(Debug)]
pub struct Guard {
    mark: Mark,
    before: Holdings,
    _program: program::Running,
}

impl Guard {
    /// For a test that has a directory, the name for a parent of its cgroups (empty when it makes none), and nothing
    /// else yet.
    #[must_use]
    pub fn new(directory: &Path, cgroup: &str) -> Self {
        let (directory, cgroup) = (directory.to_owned(), cgroup.to_owned());
        let mark = Mark { directory, cgroup, ..Mark::default() };
        Self { mark, before: Holdings::default(), _program: program::Running::enter() }
    }

    /// Looks at what there is once the test is prepared: in the namespaces that a process holds for it, and at the names
    /// beneath `files`. That may stay; what comes later may not.
    pub fn prepared(&mut self, holder: Option<u32>, files: Vec<PathBuf>) {
        (self.mark.holder, self.mark.files) = (holder, files);
        self.before = Holdings::look(&self.mark).with_parent_of_cgroups(&self.mark);
    }

    /// What is there and was not when the test was [`prepared`](Self::prepared), a line each. It gets a while to go.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        settle(|| self.glance())
    }

    /// As [`left`](Self::left), at once.
    #[must_use]
    pub fn glance(&self) -> Vec<String> {
        self.before.grown(&Holdings::look(&self.mark))
    }

    /// What is there of the test although all of it should have gone, its holder too.
    #[must_use]
    pub fn left_at_the_end(&self) -> Vec<String> {
        let mark = Mark { holder: None, files: Vec::new(), ..self.mark.clone() };
        settle(|| Holdings::default().grown(&Holdings::look(&mark)))
    }
}

/// Asks until nothing is left or time is up.
fn settle(mut look: impl FnMut() -> Vec<String>) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = look();
        if left.is_empty() || Instant::now() >= deadline {
            return left;
        }
        std::thread::sleep(PAUSE);
    }
}
