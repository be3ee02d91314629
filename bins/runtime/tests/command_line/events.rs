//! The stream of events.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::bundle::Bundle;

#[test]
fn running_out_of_memory_is_an_event_and_the_end_ends_the_stream() {
    let test = "running_out_of_memory_is_an_event_and_the_end_ends_the_stream";
    let Some(bundle) = Bundle::new(test) else { return };
    bundle.link(&["tail"]);
    bundle.script("tail /dev/zero; exit 0");
    bundle.edit(|config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    });
    let quiet = |arguments: &[&str]| {
        let status = bundle.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.unwrap().success(), "{arguments:?}");
    };
    quiet(&["create", "-b", &bundle.path(), &bundle.id]);
    let mut events = bundle
        .command(&["events", "--interval", "50ms", &bundle.id])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    let mut next = || -> Option<Value> {
        lines.next().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
    };
    // Once there are statistics, it listens.
    assert_eq!(next().unwrap()["type"], "stats");
    quiet(&["start", &bundle.id]);
    let mut kinds: Vec<_> = std::iter::from_fn(next).map(|event| event["type"].clone()).collect();
    kinds.retain(|kind| kind == "oom");
    assert_eq!(kinds.len(), 1);
    assert!(events.wait().unwrap().success());
}
