//! Limits and membership.

use brig_runtime::pidfd::Exit;
use serde_json::json;

use crate::support::Fixture;

#[test]
fn the_pids_limit_holds() {
    let Some(mut fixture) = Fixture::new("the_pids_limit_holds") else { return };
    fixture.set("/linux/resources", json!({"pids": {"limit": 5}}));
    fixture.script("for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo unlimited");
    let output = fixture.run().unwrap();
    assert!(!output.stdout.contains("unlimited"), "{output:?}");
    assert!(output.stderr.contains("fork"), "{output:?}");
}

#[test]
fn device_rules_decide_what_can_be_opened() {
    let Some(mut fixture) = Fixture::new("device_rules_decide_what_can_be_opened") else { return };
    fixture.set(
        "/linux/devices",
        json!([{"path": "/dev/mine", "type": "c", "major": 10, "minor": 229}]),
    );
    let open = ": < /dev/mine && echo read; : <> /dev/mine && echo written";
    fixture.set("/linux/resources", json!({"devices": [{"allow": false, "access": "rwm"}]}));
    fixture.script(open);
    let output = fixture.run().unwrap();
    assert_eq!(output.stdout, "", "{output:?}");
    assert!(output.stderr.contains("Operation not permitted"), "{output:?}");
    for (access, wanted) in [("r", "read\n"), ("rw", "read\nwritten\n")] {
        let rule = json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": access});
        fixture
            .set("/linux/resources", json!({"devices": [{"allow": false, "access": "rwm"}, rule]}));
        let output = fixture.run().unwrap();
        if output.stderr.contains("No such device") {
            eprintln!("SKIPPED device_rules_decide_what_can_be_opened: a kernel without FUSE");
            return;
        }
        assert_eq!(output.stdout, wanted, "{output:?}");
    }
}

#[test]
fn a_small_memory_limit_still_starts_a_container() {
    let Some(mut fixture) = Fixture::new("a_small_memory_limit_still_starts_a_container") else {
        return;
    };
    fixture.set("/linux/resources", json!({"memory": {"limit": 1_048_576}}));
    assert_eq!(fixture.run().unwrap().exit, Exit::Code(0));
}

#[test]
fn too_little_memory_to_start_is_said_so() {
    let Some(mut fixture) = Fixture::new("too_little_memory_to_start_is_said_so") else { return };
    fixture.set("/linux/resources", json!({"memory": {"limit": 8192}}));
    let error = fixture.run().unwrap_err().chain();
    assert!(error.contains("memory limit"), "{error}");
    assert!(fixture.runtime.container(&fixture.id).is_err());
}
