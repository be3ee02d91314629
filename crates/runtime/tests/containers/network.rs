//! Network devices of the host in a container.

use std::process::Command;

use brig_runtime::pidfd::Exit;
use serde_json::json;

use crate::support::Fixture;

/// A pair of devices; what is left of it goes when it is dropped.
struct Pair {
    name: String,
    peer: String,
}

impl Pair {
    fn new(test: &str, suffix: &str) -> Option<Self> {
        let name = format!("bt{}{suffix}", std::process::id());
        let pair = Self { peer: format!("{name}p"), name };
        let made = ip(&["link", "add", &pair.name, "type", "veth", "peer", "name", &pair.peer]);
        if !made {
            eprintln!("SKIPPED {test}: needs ip(8) (Debian's iproute2) and veth");
            return None;
        }
        Some(pair)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Its peer keeps it from going with the container's namespace only for a moment.
        ip(&["link", "delete", &self.peer]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    let output = Command::new("ip").args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn a_device_moves_with_its_addresses_and_its_new_name() {
    let test = "a_device_moves_with_its_addresses_and_its_new_name";
    let Some(mut fixture) = Fixture::new(test) else { return };
    let Some(pair) = Pair::new(test, "a") else { return };
    assert!(ip(&["address", "add", "192.0.2.7/24", "dev", &pair.name]));
    assert!(ip(&["address", "add", "2001:db8::7/64", "dev", &pair.name, "nodad"]));
    assert!(ip(&["link", "set", &pair.name, "up"]));
    let devices = [(pair.name.clone(), json!({"name": "inside0"}))];
    fixture.set("/linux/netDevices", devices.into_iter().collect());
    let output = fixture.output("ip -o link show inside0; ip -o address show dev inside0");
    assert!(output.contains("UP"), "{output}");
    assert!(output.contains("192.0.2.7/24") && output.contains("2001:db8::7/64"), "{output}");
}

#[test]
fn a_device_moves_into_a_namespace_joined_by_path() {
    let test = "a_device_moves_into_a_namespace_joined_by_path";
    let (Some(mut first), Some(mut second)) = (Fixture::new(test), Fixture::new(test)) else {
        return;
    };
    let Some(pair) = Pair::new(test, "b") else { return };
    first.set("/process/args", json!(["sleep", "1000"]));
    let created = first.start();
    let path = format!("/proc/{}/ns/net", created.pid);
    second.namespace("network", Some(json!({"type": "network", "path": path})));
    let devices = [(pair.name.clone(), json!({}))];
    second.set("/linux/netDevices", devices.into_iter().collect());
    let output = second.output(&format!("ip -o link show {}", pair.name));
    assert!(output.contains(&pair.name), "{output}");
}

#[test]
fn a_missing_device_is_named_and_nothing_is_left() {
    let Some(mut fixture) = Fixture::new("a_missing_device_is_named_and_nothing_is_left") else {
        return;
    };
    fixture.set("/linux/netDevices", json!({"no-such-dev": {}}));
    let error = fixture.run().unwrap_err().chain();
    assert!(error.contains("find network device no-such-dev"), "{error}");
    assert!(fixture.runtime.container(&fixture.id).is_err());
    fixture.config["linux"].as_object_mut().unwrap().remove("netDevices");
    fixture.script("true");
    assert_eq!(fixture.run().unwrap().exit, Exit::Code(0));
}
