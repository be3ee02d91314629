//! Many containers that sleep: started, listed, taken up by another brigd and removed, eight at a time (L2).
//!
//! `cargo xtask soak` does it with a thousand; how long that takes is `cargo xtask bench density --many`'s to say.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use support::engine::Setup;

use crate::lab::Lab;
use crate::soak;
use crate::supervision::shim_of;

/// At work side by side.
const WORKERS: usize = 8;

#[test]
fn many_containers_start_are_listed_outlive_brigd_and_go() {
    let Some(mut lab) = Lab::start("many", Setup::default()) else { return };
    let count = if soak() { 1000 } else { 60 };
    let idle = Holdings::of(&lab);
    side_by_side(count, |number| {
        lab.create(&name(number), "exec sleep 100000", &json!({}));
        lab.must("POST", &format!("/containers/{}/start", name(number)), "");
    });
    let pids = running(&lab);
    assert_eq!(pids.len(), count + 1, "with the bystander");
    let full = Holdings::of(&lab);
    let each = full.descriptors.saturating_sub(idle.descriptors) as f64 / count as f64;
    println!("{count} containers: brigd holds {each:.1} descriptors each; {idle:?}, then {full:?}");
    println!(
        "the shims' memory: {} KiB each (PSS, median; of this build)",
        shim_memory(&lab, count)
    );
    // A connection to the shim and a hold on its process; threads are for calls under way, not for containers.
    assert!(each <= 2.1, "{each:.1} descriptors for each container");
    assert!(full.threads <= 64, "{} threads", full.threads);
    lab.engine.crash();
    lab.engine.restart();
    assert_eq!(running(&lab), pids, "all are taken up, and are the same processes");
    side_by_side(count, |number| {
        lab.must("DELETE", &format!("/containers/{}?force=1", name(number)), "");
    });
    assert_eq!(running(&lab).len(), 1, "the bystander");
    let after = Holdings::of(&lab);
    let kept = after.descriptors.saturating_sub(idle.descriptors);
    assert!(kept <= WORKERS + 8, "{kept} descriptors are kept: {idle:?}, then {after:?}");
    lab.check_bystander("many");
    lab.check_consistency("many");
}

fn name(number: usize) -> String {
    format!("many-{number}")
}

/// Does `work` for all numbers below `count`.
fn side_by_side(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    work(number);
                }
            });
        }
    });
}

/// The containers that run, with their processes.
fn running(lab: &Lab) -> BTreeMap<String, i64> {
    let listed = lab.must("GET", "/containers/json", "").json();
    let names = listed.as_array().unwrap().iter().map(|it| it["Names"][0].as_str().unwrap());
    let names = names.map(|name| name.trim_start_matches('/').to_owned());
    names.map(|name| (name.clone(), lab.pid(&name))).collect()
}

/// The median of the shims' proportional memory in KiB.
fn shim_memory(lab: &Lab, count: usize) -> u64 {
    let memory = |number: usize| -> u64 {
        let rollup = format!("/proc/{}/smaps_rollup", shim_of(lab, &name(number)));
        let text = std::fs::read_to_string(rollup).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let mut each: Vec<u64> = (0..count.min(100)).map(memory).collect();
    each.sort_unstable();
    each[each.len() / 2]
}

/// What brigd holds.
#[derive(Debug)]
struct Holdings {
    descriptors: usize,
    threads: usize,
}

impl Holdings {
    fn of(lab: &Lab) -> Self {
        let entries = |what: &str| {
            let path = format!("/proc/{}/{what}", lab.engine.daemon_pid());
            std::fs::read_dir(path).unwrap().count()
        };
        Self { descriptors: entries("fd"), threads: entries("task") }
    }
}
