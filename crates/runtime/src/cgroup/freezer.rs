//! Freezing and thawing: `cgroup.freeze` with its event where cgroup2 is mounted, `freezer.state` otherwise.

use std::thread;
use std::time::{Duration, Instant};

use super::directory::{Directory, keyed_number};
use super::failure::{self, Result};
use super::processes::wait_event;
use super::{Cgroup, Placement, open_place};

/// How long the kernel may take to stop every task. A task in an uninterruptible wait (a stuck NFS server) holds it up.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);
/// v1 reports nothing, so its state is read again after this long, doubling up to the maximum.
const V1_FIRST_WAIT: Duration = Duration::from_micros(50);
const V1_LONGEST_WAIT: Duration = Duration::from_millis(10);
/// A v1 freeze that does not settle is thawed for a moment and tried anew, which lets the straggler reach a safe point
/// (the same remedy as runc's).
const V1_ATTEMPT: Duration = Duration::from_millis(500);

/// Whether a cgroup's processes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezerState {
    /// They run.
    Thawed,
    /// They were told to stop and some still run.
    Freezing,
    /// All stand still.
    Frozen,
}

/// Whether the processes of a cgroup stand still, without opening it in every hierarchy. A cgroup that is gone, or has no
/// freezer, does not.
pub(crate) fn is_frozen(placement: &Placement) -> bool {
    let says = |directory: Result<Directory>, file: &str, frozen: fn(&str) -> bool| {
        directory.and_then(|directory| directory.read(file)).is_ok_and(|text| frozen(&text))
    };
    let event: fn(&str) -> bool = |text| keyed_number(text, "frozen") == Some(1);
    let state: fn(&str) -> bool = |text| text.trim() == "FROZEN";
    let legacy = placement.controller("freezer");
    placement.unified.as_ref().is_some_and(|place| says(open_place(place), "cgroup.events", event))
        || legacy.is_some_and(|place| says(open_place(place), "freezer.state", state))
}

impl Cgroup {
    /// Stops every process and returns when all stand still.
    ///
    /// # Errors
    /// The host has no freezer (`Unsupported`), or some task did not stop in 10 s (`Exhausted`; the group is thawed
    /// again).
    pub fn freeze(&self) -> Result<()> {
        if let Some(directory) = self.unified_freezer() {
            directory.write("cgroup.freeze", "1")?;
            if wait_event(directory, "frozen", 1, Instant::now() + FREEZE_TIMEOUT)? {
                return Ok(());
            }
            directory.write("cgroup.freeze", "0")?;
            return Err(failure::timeout("freeze", directory.path(), FREEZE_TIMEOUT));
        }
        match self.legacy_controller("freezer") {
            Some(directory) => freeze_v1(directory),
            None => Err(failure::controller("the freezer", "freezer")),
        }
    }

    /// Lets every process run again.
    ///
    /// # Errors
    /// The host has no freezer, or the kernel refuses.
    pub fn thaw(&self) -> Result<()> {
        if let Some(directory) = self.unified_freezer() {
            directory.write("cgroup.freeze", "0")?;
        }
        self.thaw_legacy()
    }

    /// Reads whether the processes are frozen: the result, not the request.
    ///
    /// # Errors
    /// The state cannot be read. A host without a freezer answers [`FreezerState::Thawed`].
    pub fn freezer_state(&self) -> Result<FreezerState> {
        if let Some(directory) = self.unified_freezer() {
            let frozen = keyed_number(&directory.read("cgroup.events")?, "frozen") == Some(1);
            let asked = directory.read("cgroup.freeze")?.trim() == "1";
            return Ok(match (frozen, asked) {
                (true, _) => FreezerState::Frozen,
                (false, true) => FreezerState::Freezing,
                (false, false) => self.legacy_freezer_state()?,
            });
        }
        self.legacy_freezer_state()
    }

    /// Thaws the v1 freezer if it is not thawed: on a hybrid host other tools may use it.
    pub(super) fn thaw_legacy(&self) -> Result<()> {
        match self.legacy_controller("freezer") {
            Some(directory) if v1_state(directory)? != FreezerState::Thawed => {
                directory.write("freezer.state", "THAWED")
            }
            _ => Ok(()),
        }
    }

    fn legacy_freezer_state(&self) -> Result<FreezerState> {
        self.legacy_controller("freezer").map_or(Ok(FreezerState::Thawed), v1_state)
    }

    /// `cgroup.freeze` exists since kernel 5.2.
    fn unified_freezer(&self) -> Option<&Directory> {
        let unified = self.unified.as_ref()?;
        unified.directory.has("cgroup.freeze").then_some(&unified.directory)
    }
}

fn v1_state(directory: &Directory) -> Result<FreezerState> {
    Ok(match directory.read("freezer.state")?.trim() {
        "FROZEN" => FreezerState::Frozen,
        "FREEZING" => FreezerState::Freezing,
        _ => FreezerState::Thawed,
    })
}

fn freeze_v1(directory: &Directory) -> Result<()> {
    let deadline = Instant::now() + FREEZE_TIMEOUT;
    while Instant::now() < deadline {
        let attempt = Instant::now() + V1_ATTEMPT;
        let mut pause = V1_FIRST_WAIT;
        while Instant::now() < attempt {
            // Written each time: tasks that were forked meanwhile are caught by a new request.
            directory.write("freezer.state", "FROZEN")?;
            if v1_state(directory)? == FreezerState::Frozen {
                return Ok(());
            }
            thread::sleep(pause);
            pause = (pause * 2).min(V1_LONGEST_WAIT);
        }
        directory.write("freezer.state", "THAWED")?;
    }
    Err(failure::timeout("freeze", directory.path(), FREEZE_TIMEOUT))
}
