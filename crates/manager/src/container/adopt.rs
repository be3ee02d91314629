//! Taking up the containers of a former engine, however that one ended.
//!
//! ```text
//! record says        and there is                   so it is
//! incomplete         (anything)                     removed: nobody was told of it
//! removing           (anything)                     removed: the removal goes on
//! running, paused    a shim that answers            followed
//!                    an exit record                 ended as that says; cleaned up
//!                    a bundle only                  ended with its shim; cleaned up
//!                    nothing                        ended unseen, as by a power cut; cleaned up
//! anything else      a shim, a bundle, an endpoint  a start that nobody was told of: undone
//!                    nothing                        left as it is
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use brig_shim_protocol::types::Status;
use futures_util::StreamExt as _;

use super::lifecycle::{self, Live};
use super::requests::RemoveOptions;
use super::restart::Policy;
use super::state::Phase;
use super::{Shared, driver, logs, now, publish, shims};
use crate::error::Result;
use crate::metadata::{ContainerRecord, Write};
use crate::network::Joined;
use crate::shim_client::{Exit, Shim};

/// The exit code of a container whose end nobody saw, as after a power cut.
const EXIT_CODE_UNSEEN: i32 = 255;
/// Containers that are looked at side by side.
const AT_ONCE_MAX: usize = 32;

/// What is to be done about a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Adoption {
    Remove,
    Follow,
    NoteExit,
    CleanUp,
    Leave,
}

/// What exists of a container.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    /// A shim answers.
    shim: bool,
    /// There is a bundle.
    bundle: bool,
    /// The record names an endpoint that was to be set up.
    endpoint: bool,
}

/// Takes up the containers of the records, in this order: learn which still run, bring the network in line, start
/// their tasks.
pub(super) async fn adopt(shared: &Arc<Shared>, records: Vec<ContainerRecord>) -> Result<()> {
    for record in &records {
        if let Err(error) = shared.table.reserve(&record.name, &record.id) {
            tracing::error!(container = %record.id, "take up its name: {}", error.report());
        }
    }
    end_unfinished_starts(shared, &records).await?;
    let adopted: Vec<(ContainerRecord, Option<Live>)> = futures_util::stream::iter(records)
        .map(|record| take_up(shared, record))
        .buffer_unordered(AT_ONCE_MAX)
        .filter_map(std::future::ready)
        .collect()
        .await;
    let running = adopted
        .iter()
        .filter(|(_, live)| live.is_some())
        .map(|(record, _)| record.id.clone())
        .collect();
    shared.networks.reconcile(running).await?;
    for (record, live) in adopted {
        let automatic = record.host_config.auto_remove == Some(true);
        let rests = !record.state.phase.is_alive() && record.state.phase != Phase::Restarting;
        let handle = driver::spawn(shared, record, live);
        if automatic && rests {
            let options = RemoveOptions { force: true, volumes: true };
            let removed = handle.ask(|reply| super::Request::Remove { options, reply }).await;
            if let Err(error) = removed {
                tracing::warn!("remove a container that ended meanwhile: {}", error.report());
            }
        }
    }
    Ok(())
}

/// Kills the shims of containers that do not run by their records: the engine that started them did not live to say so,
/// and may have left a `start` command that is still at work.
async fn end_unfinished_starts(shared: &Arc<Shared>, records: &[ContainerRecord]) -> Result<()> {
    let alive: HashMap<&str, bool> =
        records.iter().map(|record| (record.id.as_str(), record.state.phase.is_alive())).collect();
    for process in shims::list(&shared.config).await? {
        if !alive.get(process.container.as_str()).copied().unwrap_or(false) {
            tracing::info!(container = %process.container, pid = process.pid, "end an unfinished start");
            process.kill().await?;
        }
    }
    Ok(())
}

async fn take_up(
    shared: &Arc<Shared>,
    mut record: ContainerRecord,
) -> Option<(ContainerRecord, Option<Live>)> {
    let place = lifecycle::place(shared, &record.id);
    let shim = place.connect().await.ok();
    let found = Found {
        shim: shim.is_some(),
        bundle: place.bundle.exists(),
        endpoint: record.networks.values().any(|attachment| attachment.endpoint.is_some()),
    };
    match decide(record.incomplete, record.state.phase, found) {
        Adoption::Remove => {
            let volumes = record.incomplete || record.state.removes_volumes;
            let options = RemoveOptions { force: true, volumes };
            match lifecycle::remove(shared, &mut record, options).await {
                Ok(()) => {
                    shared.table.release(&record.name);
                    return None;
                }
                Err(error) => {
                    tracing::error!(container = %record.id, "finish its removal: {}", error.report());
                    record.state.phase = Phase::Dead;
                    record.state.error = error.report();
                }
            }
        }
        Adoption::Follow => {
            let live = match shim {
                Some(shim) => Some(follow(shared, &mut record, shim).await),
                None => None,
            };
            return Some((record, live));
        }
        Adoption::NoteExit => {
            let mut exit = match place.exit_record() {
                Some(exit) => exit,
                None if found.bundle => lifecycle::exit_of_dead_shim(&place).await,
                None => unseen(),
            };
            logs::add_last_lines(shared, &record, &mut exit).await;
            note_exit(&mut record, exit);
            clean_up(shared, &mut record, None).await;
            let code = record.state.exit_code.to_string();
            publish(&shared.events, &record, "die", &[("exitCode", code)]);
        }
        Adoption::CleanUp => {
            let live = shim.map(|shim| Live { shim, pid: 0, _joined: Joined::default() });
            clean_up(shared, &mut record, live).await;
        }
        Adoption::Leave => {}
    }
    Some((record, None))
}

/// Docker shows no error for this, so neither does the state; the record of the death does.
fn unseen() -> Exit {
    Exit { code: EXIT_CODE_UNSEEN, at: now(), unseen: true, ..Exit::default() }
}

fn decide(incomplete: bool, phase: Phase, found: Found) -> Adoption {
    if incomplete || phase == Phase::Removing {
        Adoption::Remove
    } else if phase.is_alive() {
        if found.shim { Adoption::Follow } else { Adoption::NoteExit }
    } else if found.shim || found.bundle || found.endpoint {
        Adoption::CleanUp
    } else {
        Adoption::Leave
    }
}

/// Brings the record in line with what the shim says, and takes up the network.
async fn follow(shared: &Arc<Shared>, record: &mut ContainerRecord, shim: Shim) -> Live {
    if let Ok(state) = shim.state("").await {
        record.state.pid = state.pid;
        match Status::try_from(state.status) {
            Ok(Status::Paused | Status::Pausing) => record.state.phase = Phase::Paused,
            Ok(Status::Running) => record.state.phase = Phase::Running,
            // One that has ended is waited for, which tells at once.
            _ => {}
        }
    }
    let joined = shared.networks.adopt(record).await;
    Live { shim, pid: record.state.pid, _joined: joined }
}

/// Takes down what is left of a container, then writes the record, then removes the exit record that it was made from.
async fn clean_up(shared: &Arc<Shared>, record: &mut ContainerRecord, live: Option<Live>) {
    if let Err(error) = lifecycle::tear_down(shared, record, live).await {
        tracing::warn!(container = %record.id, "clean up after a former engine: {}", error.report());
    }
    match shared.metadata.put_container(record, Write::Durable).await {
        Ok(()) => lifecycle::drop_bundle(shared, &record.id).await,
        Err(error) => {
            tracing::error!(container = %record.id, "write the record: {}", error.report());
        }
    }
}

fn note_exit(record: &mut ContainerRecord, exit: Exit) {
    let policy = Policy::of(record);
    let state = &mut record.state;
    state.note_exit(exit);
    state.phase = if policy.restarts(state) { Phase::Restarting } else { Phase::Exited };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PHASES: [Phase; 7] = [
        Phase::Created,
        Phase::Running,
        Phase::Paused,
        Phase::Restarting,
        Phase::Removing,
        Phase::Exited,
        Phase::Dead,
    ];

    proptest! {
        #[test]
        fn whatever_a_crash_left_has_one_way_out(
            choice in 0..PHASES.len(), incomplete: bool, shim: bool, bundle: bool, endpoint: bool,
        ) {
            let phase = PHASES[choice];
            let found = Found { shim, bundle, endpoint };
            let adoption = decide(incomplete, phase, found);
            // Only a container whose start was acknowledged goes on running.
            prop_assert_eq!(adoption == Adoption::Follow, !incomplete && phase.is_alive() && shim);
            // Nothing that exists is left behind by one that does not run.
            if adoption == Adoption::Leave {
                prop_assert!(!shim && !bundle && !endpoint && !phase.is_alive());
            }
            // What nobody was told of, and what was being removed, goes.
            prop_assert_eq!(adoption == Adoption::Remove, incomplete || phase == Phase::Removing);
        }
    }
}
