//! Containers that take all they can get (F5, F6, F7).

use serde_json::json;
use support::engine::Setup;

use crate::lab::Lab;
use crate::soak;

#[test]
fn a_container_out_of_memory_is_killed_alone_and_says_why() {
    let Some(lab) = Lab::start("oom", Setup::default()) else { return };
    let limit = json!({ "Memory": 16 << 20, "MemorySwap": 16 << 20, "NetworkMode": "none" });
    lab.create("hungry", "tail /dev/zero", &limit);
    let started = lab.try_call("POST", "/containers/hungry/start", "").unwrap();
    if !started.is_success() {
        eprintln!("SKIPPED oom: no memory controller: {}", started.body);
        return;
    }
    let code = lab.must("POST", "/containers/hungry/wait", "").json()["StatusCode"].clone();
    let state = lab.inspect("hungry").unwrap()["State"].clone();
    assert_eq!(code, 137, "{state}");
    assert_eq!(state["OOMKilled"], true, "{state}");
    lab.check_bystander("oom");
    lab.check_reuse("oom", "hungry");
    lab.check_consistency("oom");
}

#[test]
fn a_fork_bomb_stays_within_its_limit() {
    let Some(lab) = Lab::start("bomb", Setup::default()) else { return };
    let limit = json!({ "PidsLimit": 64, "NetworkMode": "none" });
    // The first process forks no more: a shell that cannot fork ends, and the container with it.
    let bomb = "bomb() { bomb | bomb & }; (while :; do bomb; sleep 0.1; done) & exec sleep 1000";
    lab.create("bomb", bomb, &limit);
    lab.must("POST", "/containers/bomb/start", "");
    // Everything else works while it goes off.
    for _ in 0..5 {
        lab.check_reuse("beside a fork bomb", "victim");
    }
    let top = lab.must("GET", "/containers/bomb/top", "").json();
    assert!(top["Processes"].as_array().unwrap().len() <= 64, "{top}");
    lab.check_bystander("beside a fork bomb");
    lab.must("DELETE", "/containers/bomb?force=1", "");
    lab.check_consistency("after a fork bomb");
}

#[test]
fn orphans_are_reaped_by_the_init_that_was_asked_for() {
    let Some(lab) = Lab::start("orphans", Setup::default()) else { return };
    let orphans = if soak() { 10_000 } else { 1_000 };
    let script = format!(
        "i=0; while [ $i -lt {orphans} ]; do (true &) ; i=$((i+1)); done; touch /done; sleep 100000"
    );
    let host = json!({ "Init": true, "NetworkMode": "none" });
    let body = Lab::creation(&script, &host);
    let made = lab.try_call("POST", "/containers/create?name=parent", &body).unwrap();
    if !made.is_success() {
        eprintln!("SKIPPED orphans: {}", made.body);
        return;
    }
    lab.must("POST", "/containers/parent/start", "");
    lab.until("all orphans", || {
        lab.engine.docker(&["exec", "parent", "test", "-e", "/done"]).code == Some(0)
    });
    let zombies = "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ' Z ' || true";
    lab.until("an end of all zombies", || {
        let counted = lab.engine.docker(&["exec", "parent", "sh", "-c", zombies]);
        counted.stdout.trim() == "0"
    });
    lab.must("DELETE", "/containers/parent?force=1", "");
    println!("{orphans} orphans, no zombie");
}
