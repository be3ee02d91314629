//! Starting what the restart policies want when the engine comes up, in an order that depending containers can rely on.
//!
//! A container that joins a namespace of another, or borrows its volumes, starts after it. So there are rounds: in the
//! first all that need nobody, in each further one those whose needs were met by the rounds before. The containers of a
//! round start side by side. Containers that know each other by name only, on a network, are in no order: names may be
//! asked for at any time, and are answered as soon as their holder runs.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt as _;

use super::Shared;
use super::restart::Policy;
use super::state::Phase;
use crate::metadata::ContainerRecord;
use crate::models::HostConfig;

/// Containers that start side by side.
const AT_ONCE_MAX: usize = 8;

/// Starts what the restart policies want started when the engine comes up.
pub(super) async fn start_by_policy(shared: &Arc<Shared>) {
    for round in plan(shared) {
        let starts = futures_util::stream::iter(round).map(|id| start(Arc::clone(shared), id));
        starts.buffer_unordered(AT_ONCE_MAX).collect::<()>().await;
    }
}

/// The identifiers of what is to be started, in rounds.
fn plan(shared: &Shared) -> Vec<Vec<String>> {
    let needs_of = |record: &ContainerRecord| -> Vec<String> {
        let found = needed(&record.host_config).filter_map(|name| shared.table.find(name).ok());
        found.map(|handle| handle.view().record.id.clone()).collect()
    };
    let views = shared.table.views();
    let wanted = views.iter().map(|view| &view.record).filter(|record| is_due(record));
    let needs = wanted.map(|record| (record.id.clone(), needs_of(record))).collect();
    let owned = |round: Vec<&str>| round.into_iter().map(str::to_owned).collect();
    rounds(&needs).into_iter().map(owned).collect()
}

async fn start(shared: Arc<Shared>, id: String) {
    // It may have been removed since.
    let Ok(handle) = shared.table.find(&id) else { return };
    let started = handle.ask(|reply| super::Request::StartWithEngine { reply }).await;
    if let Err(error) = started {
        tracing::warn!(container = %id, "start with the engine: {}", error.report());
    }
}

/// Whether a container is started when the engine comes up: it was waiting for its restart, or it ran before and its
/// policy says so.
pub(super) fn is_due(record: &ContainerRecord) -> bool {
    let policy = Policy::of(record);
    let state = &record.state;
    match state.phase {
        Phase::Restarting => true,
        Phase::Exited => {
            !state.started_at.is_empty() && policy.starts_with_engine(state.stopped_by_hand)
        }
        _ => false,
    }
}

/// The containers that one needs, as its request names them.
fn needed(host: &HostConfig) -> impl Iterator<Item = &str> {
    let modes = [&host.network_mode, &host.pid_mode, &host.ipc_mode];
    let joined = modes.into_iter().filter_map(|mode| mode.as_deref()?.strip_prefix("container:"));
    let borrowed = host.volumes_from.iter().flatten();
    joined.chain(borrowed.map(|from| from.split(':').next().unwrap_or(from)))
}

/// The containers in rounds, each after all that it needs. Needs that are not among the containers do not count; those
/// in a circle, which nothing can satisfy, come last.
fn rounds(needs: &HashMap<String, Vec<String>>) -> Vec<Vec<&str>> {
    let mut rest: Vec<&str> = needs.keys().map(String::as_str).collect();
    rest.sort_unstable();
    let mut rounds = Vec::new();
    while !rest.is_empty() {
        let waits = |id: &&str| {
            needs[*id].iter().any(|need| need != id && rest.binary_search(&need.as_str()).is_ok())
        };
        let (later, now): (Vec<&str>, Vec<&str>) = rest.iter().partition(|id| waits(id));
        if now.is_empty() {
            rounds.push(later);
            break;
        }
        rounds.push(now);
        rest = later;
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(list: &[(&str, &[&str])]) -> HashMap<String, Vec<String>> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        list.iter().map(|(id, needs)| ((*id).to_owned(), owned(needs))).collect()
    }

    #[test]
    fn a_container_starts_after_all_that_it_needs() {
        let chain = needs(&[("a", &["b"]), ("b", &["c", "d"]), ("c", &[]), ("d", &["c"])]);
        assert_eq!(rounds(&chain), [vec!["c"], vec!["d"], vec!["b"], vec!["a"]]);
        let side_by_side = needs(&[("a", &[]), ("b", &[]), ("c", &["a"])]);
        assert_eq!(rounds(&side_by_side), [vec!["a", "b"], vec!["c"]]);
        assert!(rounds(&HashMap::new()).is_empty());
    }

    #[test]
    fn circles_and_needs_that_are_not_there_keep_nobody_from_starting() {
        let circle = needs(&[("a", &["b"]), ("b", &["a"]), ("c", &["gone"]), ("d", &["d"])]);
        assert_eq!(rounds(&circle), [vec!["c", "d"], vec!["a", "b"]]);
    }

    #[test]
    fn needs_are_read_from_the_request() {
        let some = |text: &str| Some(text.to_owned());
        let host = HostConfig {
            network_mode: some("container:net"),
            pid_mode: some("container:pid"),
            ipc_mode: some("private"),
            volumes_from: Some(vec!["data:ro".to_owned(), "more".to_owned()]),
            ..HostConfig::default()
        };
        assert_eq!(needed(&host).collect::<Vec<_>>(), ["net", "pid", "data", "more"]);
    }
}
