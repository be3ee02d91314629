//! The states of a container and the steps between them.
//!
//! ```text
//!             start                    pause
//!  Created ──────────▶ Running ◀──────────────▶ Paused
//!     │                 │  ▲  ▲    unpause        │
//!     │            exit │  │  │ start             │ exit
//!     │                 ▼  │  └──────────┐        │
//!     │   policy says  Restarting ──stop──▶ Exited ◀
//!     │   restart            ▲               │  │
//!     │                      └───── exit ────┘  │ remove
//!     └───────────── remove ──────▶ Removing ◀──┘
//!                                      │ teardown failed
//!                                      ▼
//!                                     Dead ── remove ──▶ Removing
//! ```
//!
//! `Exited` is reached from `Running` and `Paused` by the end of the first process, from `Created` by a start that
//! failed (docker shows those as `created`, and so do we: a failed first start stays `Created`). Only the container's own
//! task takes these steps.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::models::{ContainerStateStatusEnum, ContainerSummaryStateEnum};

/// Where a container stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Made, never started.
    #[default]
    Created,
    /// Its first process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It ended and waits for its restart.
    Restarting,
    /// It is being torn down.
    Removing,
    /// Its first process ended.
    Exited,
    /// Its teardown failed; only removal is left.
    Dead,
}

/// What may happen to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The first process was started.
    Start,
    /// All processes were frozen.
    Pause,
    /// All processes were thawed.
    Unpause,
    /// The first process ended and stays ended.
    Exit,
    /// The first process ended and the policy starts it again later.
    ExitToRestart,
    /// The pending restart was called off.
    CancelRestart,
    /// Removal began.
    Remove,
    /// Removal failed.
    RemoveFailed,
}

impl Phase {
    /// The phase after `step`.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::Conflict`] when the step is not possible here; the message says what to do first.
    pub(crate) fn after(self, step: Step) -> Result<Self> {
        match (self, step) {
            (Self::Created | Self::Exited | Self::Restarting, Step::Start) => Ok(Self::Running),
            (Self::Running, Step::Pause) => Ok(Self::Paused),
            (Self::Paused, Step::Unpause) => Ok(Self::Running),
            (Self::Running | Self::Paused, Step::Exit) => Ok(Self::Exited),
            (Self::Running | Self::Paused, Step::ExitToRestart) => Ok(Self::Restarting),
            (Self::Restarting, Step::CancelRestart) => Ok(Self::Exited),
            (Self::Created | Self::Exited | Self::Dead | Self::Restarting, Step::Remove) => {
                Ok(Self::Removing)
            }
            (Self::Removing, Step::RemoveFailed) => Ok(Self::Dead),
            (_, _) => Err(Error::conflict(self.refusal(step))),
        }
    }

    fn refusal(self, step: Step) -> String {
        match (self, step) {
            (Self::Paused, Step::Start) => "container is paused, unpause it first".into(),
            (Self::Removing | Self::Dead, Step::Start) => {
                "container is marked for removal and cannot be started".into()
            }
            (Self::Paused, Step::Pause) => "container is already paused".into(),
            (_, Step::Pause) => "container is not running".into(),
            (_, Step::Unpause) => "container is not paused".into(),
            (Self::Running | Self::Paused, Step::Remove) => {
                "container is running: stop the container before removing or force remove".into()
            }
            (Self::Removing, Step::Remove) => {
                "removal of the container is already in progress".into()
            }
            (phase, step) => format!("container is {}: {step:?} is not possible", phase.as_str()),
        }
    }

    /// There is a first process.
    pub(crate) fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// The word that docker uses.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

impl From<Phase> for ContainerStateStatusEnum {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Created => Self::CREATED,
            Phase::Running => Self::RUNNING,
            Phase::Paused => Self::PAUSED,
            Phase::Restarting => Self::RESTARTING,
            Phase::Removing => Self::REMOVING,
            Phase::Exited => Self::EXITED,
            Phase::Dead => Self::DEAD,
        }
    }
}

impl From<Phase> for ContainerSummaryStateEnum {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Created => Self::CREATED,
            Phase::Running => Self::RUNNING,
            Phase::Paused => Self::PAUSED,
            Phase::Restarting => Self::RESTARTING,
            Phase::Removing => Self::REMOVING,
            Phase::Exited => Self::EXITED,
            Phase::Dead => Self::DEAD,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEPS: [Step; 8] = [
        Step::Start,
        Step::Pause,
        Step::Unpause,
        Step::Exit,
        Step::ExitToRestart,
        Step::CancelRestart,
        Step::Remove,
        Step::RemoveFailed,
    ];

    proptest! {
        #[test]
        fn a_process_exists_exactly_between_start_and_exit(choices in prop::collection::vec(0..STEPS.len(), 0..64)) {
            let mut phase = Phase::Created;
            let mut alive = false;
            for choice in choices {
                let step = STEPS[choice];
                if let Ok(next) = phase.after(step) {
                    match step {
                        Step::Start => { prop_assert!(!alive); alive = true; }
                        Step::Exit | Step::ExitToRestart => { prop_assert!(alive); alive = false; }
                        Step::Pause | Step::Unpause => prop_assert!(alive),
                        Step::CancelRestart | Step::Remove | Step::RemoveFailed => prop_assert!(!alive),
                    }
                    phase = next;
                }
                prop_assert_eq!(phase.is_alive(), alive);
            }
        }

        #[test]
        fn nothing_but_removal_leaves_a_container_that_is_going(choice in 0..STEPS.len()) {
            let step = STEPS[choice];
            for phase in [Phase::Removing, Phase::Dead] {
                if let Ok(next) = phase.after(step) {
                    prop_assert!(matches!(next, Phase::Removing | Phase::Dead));
                }
            }
        }
    }

    #[test]
    fn refusals_say_what_to_do_first() {
        let error = Phase::Running.after(Step::Remove).expect_err("running");
        assert!(error.report().contains("stop the container"), "{}", error.report());
        let error = Phase::Paused.after(Step::Start).expect_err("paused");
        assert!(error.report().contains("unpause"), "{}", error.report());
    }
}
