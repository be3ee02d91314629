//! A crash anywhere: SIGKILL at the system calls of create, start, exec and delete, one after the other.
//!
//! The program, or a process that it made, is killed as it enters its N-th system call. Whatever is left then,
//! `delete --force` must succeed, nothing may remain (processes, cgroups, mounts, state files), and a container with the
//! same id must run. Every [`STEP`]th N is tried; `BRIG_SWEEP_STEP=1` tries all.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what is skipped and how much was tried is said"
)]

mod bundle;
mod killer;

use bundle::{Bundle, Leftovers};
use killer::{Point, Victim};

/// How many system calls lie between two kill points, unless the environment says otherwise. A prime, so that a
/// pattern of the program does not hide in it.
const STEP: usize = 17;

/// Kills `operation` at every step; `before` makes what the operation works on.
fn sweep(
    test: &str,
    change: impl Fn(&mut serde_json::Value),
    before: &[&[&str]],
    operation: &[&str],
    step_here: usize,
) {
    let Some(bundle) = Bundle::new(test) else { return };
    bundle.edit(change);
    let step = std::env::var("BRIG_SWEEP_STEP").ok().and_then(|step| step.parse().ok());
    let step: usize = step.unwrap_or(step_here).max(1);
    let mut points = 0;
    for victim in [Victim::Program, Victim::Child] {
        let mut call = 1;
        loop {
            for arguments in before {
                bundle.must(arguments);
            }
            let reached = bundle.killed_at(operation, Point { victim, call });
            let place = format!("{test}: {victim:?} killed at system call {call}");
            // One that claims to be startable is.
            if bundle.status().as_deref() == Some("created") {
                bundle.must(START);
                assert_eq!(bundle.status().as_deref(), Some("running"), "{place}");
            }
            bundle.must(&["delete", "--force", bundle.id()]);
            assert_eq!(bundle.leftovers(), Leftovers::default(), "{place}");
            bundle.must_run(&place);
            assert_eq!(bundle.leftovers(), Leftovers::default(), "{place}, after the next run");
            if !reached {
                break;
            }
            points += 1;
            call += step;
        }
    }
    println!("swept {points} kill points of {test}, every {step} system calls, lost 0, leaked 0");
    assert!(points > 2, "the operation was never killed");
}

const CREATE: &[&str] = &["create", "-b", "BUNDLE", "ID"];
const START: &[&str] = &["start", "ID"];

#[test]
fn create_killed_anywhere_leaves_nothing() {
    sweep("create_killed_anywhere_leaves_nothing", |_| {}, &[], CREATE, STEP);
}

/// Through an intermediate process, with id maps and with a hook on either side.
#[test]
fn create_in_a_user_namespace_killed_anywhere_leaves_nothing() {
    let change = |config: &mut serde_json::Value| {
        let map = serde_json::json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(serde_json::json!({"type": "user"}));
        config["hooks"] = serde_json::json!({
            "createRuntime": [{"path": "/bin/true"}],
            "poststop": [{"path": "/bin/true"}],
        });
    };
    sweep("create_in_a_user_namespace_killed_anywhere_leaves_nothing", change, &[], CREATE, STEP);
}

#[test]
fn start_killed_anywhere_leaves_nothing() {
    sweep("start_killed_anywhere_leaves_nothing", |_| {}, &[CREATE], START, 3);
}

#[test]
fn exec_killed_anywhere_leaves_nothing() {
    let exec = ["exec", "ID", "cat", "/proc/self/status"];
    sweep("exec_killed_anywhere_leaves_nothing", |_| {}, &[CREATE, START], &exec, STEP);
}

#[test]
fn delete_killed_anywhere_leaves_nothing() {
    let delete = ["delete", "--force", "ID"];
    sweep("delete_killed_anywhere_leaves_nothing", |_| {}, &[CREATE, START], &delete, STEP);
}
