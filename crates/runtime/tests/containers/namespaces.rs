//! Namespaces, new and joined.

use serde_json::json;

use crate::support::{Fixture, exec, shell};

#[test]
fn a_container_has_its_own_processes_name_and_network() {
    let Some(mut fixture) = Fixture::new("a_container_has_its_own_processes_name_and_network")
    else {
        return;
    };
    let output = fixture.output("echo $$; hostname; ls /proc | grep -c '^[0-9]'; ip -o link");
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines[..2], ["1", "test"]);
    assert!(lines[2].parse::<u32>().unwrap() <= 4, "{output}");
    assert_eq!(lines.len(), 4, "only lo: {output}");
    assert!(lines[3].contains("lo:") && lines[3].contains("UP"), "{output}");
}

#[test]
fn every_namespace_is_new_and_exec_joins_them_all() {
    let Some(mut fixture) = Fixture::new("every_namespace_is_new_and_exec_joins_them_all") else {
        return;
    };
    fixture.namespace("time", Some(json!({"type": "time"})));
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let created = fixture.start();
    let read = |pid: i32, kind: &str| {
        std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string()
    };
    let own = i32::try_from(std::process::id()).unwrap();
    let kinds = ["pid", "net", "ipc", "uts", "mnt", "cgroup", "time"];
    let script = "for n in pid net ipc uts mnt cgroup time; do readlink /proc/self/ns/$n; done";
    let output = exec(&created.container, &shell(script)).unwrap();
    for (kind, joined) in kinds.iter().zip(output.stdout.lines()) {
        assert_ne!(read(created.pid, kind), read(own, kind), "{kind}");
        assert_eq!(read(created.pid, kind), joined, "{kind}");
    }
}

#[test]
fn time_offsets_shift_the_clocks() {
    let Some(mut fixture) = Fixture::new("time_offsets_shift_the_clocks") else { return };
    fixture.namespace("time", Some(json!({"type": "time"})));
    fixture.set("/linux/timeOffsets", json!({"boottime": {"secs": 1_000_000, "nanosecs": 0}}));
    let output = fixture.output("cat /proc/uptime");
    let uptime: f64 = output.split(' ').next().unwrap().parse().unwrap();
    assert!(uptime > 1_000_000.0, "{output}");
}

#[test]
fn a_user_namespace_maps_root_to_nobody_special() {
    let Some(mut fixture) = Fixture::new("a_user_namespace_maps_root_to_nobody_special") else {
        return;
    };
    fixture.namespace("user", Some(json!({"type": "user"})));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    fixture.set("/linux/uidMappings", map.clone());
    fixture.set("/linux/gidMappings", map);
    std::fs::set_permissions(
        fixture.directory.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let output = fixture.output(
        "id -u; cat /proc/self/uid_map; stat -c %u /bin/busybox; : > /dev/null; ls -l /dev/null; \
         stat -c %u /dev",
    );
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines[0], "0");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_eq!(lines[2], "65534", "the image's files belong to the host's root");
    assert!(lines[3].starts_with("crw"), "{output}");
    assert_eq!(lines[4], "0", "a tmpfs of the container belongs to its root");
}

#[test]
fn exec_enters_a_user_namespace() {
    let Some(mut fixture) = Fixture::new("exec_enters_a_user_namespace") else { return };
    fixture.namespace("user", Some(json!({"type": "user"})));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    fixture.set("/linux/uidMappings", map.clone());
    fixture.set("/linux/gidMappings", map);
    std::fs::set_permissions(
        fixture.directory.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let created = fixture.start();
    let output = exec(&created.container, &shell("id -u; readlink /proc/self/ns/user")).unwrap();
    let namespace = std::fs::read_link(format!("/proc/{}/ns/user", created.pid)).unwrap();
    assert_eq!(output.stdout, format!("0\n{}\n", namespace.display()), "{output:?}");
}

#[test]
fn namespaces_of_another_container_are_joined_by_path() {
    let test = "namespaces_of_another_container_are_joined_by_path";
    let (Some(mut first), Some(mut second)) = (Fixture::new(test), Fixture::new(test)) else {
        return;
    };
    first.set("/process/args", json!(["sleep", "1000"]));
    let created = first.start();
    for (kind, file) in [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        let path = format!("/proc/{}/ns/{file}", created.pid);
        second.namespace(kind, Some(json!({"type": kind, "path": path})));
    }
    second.config.as_object_mut().unwrap().remove("hostname");
    let output = second.output("readlink /proc/self/ns/net; hostname; cat /proc/1/cmdline; echo");
    let network = std::fs::read_link(format!("/proc/{}/ns/net", created.pid)).unwrap();
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines[0], network.display().to_string());
    assert_eq!(lines[1], "test");
    assert_eq!(lines[2], "sleep\x001000\0");
}

#[test]
fn a_new_user_namespace_can_join_a_network_of_the_host() {
    let test = "a_new_user_namespace_can_join_a_network_of_the_host";
    let (Some(mut first), Some(mut second)) = (Fixture::new(test), Fixture::new(test)) else {
        return;
    };
    first.set("/process/args", json!(["sleep", "1000"]));
    let created = first.start();
    let path = format!("/proc/{}/ns/net", created.pid);
    second.namespace("network", Some(json!({"type": "network", "path": path})));
    second.namespace("user", Some(json!({"type": "user"})));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    second.set("/linux/uidMappings", map.clone());
    second.set("/linux/gidMappings", map);
    // A sysfs belongs to the owner of its network namespace.
    second.config["mounts"].as_array_mut().unwrap().pop();
    std::fs::set_permissions(
        second.directory.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let output = second.output("readlink /proc/self/ns/net; id -u");
    let network = std::fs::read_link(path).unwrap();
    assert_eq!(output, format!("{}\n0\n", network.display()));
}

#[test]
fn a_missing_namespace_is_named() {
    let Some(mut fixture) = Fixture::new("a_missing_namespace_is_named") else { return };
    fixture.namespace("network", Some(json!({"type": "network", "path": "/no/such/net"})));
    let error = fixture.run().unwrap_err().chain();
    assert!(error.contains("open namespace /no/such/net"), "{error}");
    assert!(fixture.runtime.container(&fixture.id).is_err(), "nothing is left");
}

#[test]
fn a_mount_namespace_is_joined_by_path() {
    let Some(mut fixture) = Fixture::new("a_mount_namespace_is_joined_by_path") else { return };
    let path = fixture.path("mount-namespace");
    std::fs::write(&path, "").unwrap();
    // A namespace of a mount can only be kept at a path that is no part of a shared mount.
    let keep = format!(
        "mount --bind {0} {0} && mount --make-private {0} && unshare --mount={0}/mnt true",
        fixture.path("keep").display()
    );
    std::fs::create_dir(fixture.path("keep")).unwrap();
    std::fs::write(fixture.path("keep/mnt"), "").unwrap();
    let status = std::process::Command::new("sh").args(["-c", &keep]).status().unwrap();
    assert!(status.success());
    let file = fixture.path("keep/mnt");
    fixture.namespace("mount", Some(json!({"type": "mount", "path": file})));
    let namespace = {
        use std::os::unix::fs::MetadataExt as _;
        format!("mnt:[{}]", std::fs::metadata(&file).unwrap().ino())
    };
    fixture.script("readlink /proc/self/ns/mnt; ls /; exec sleep 1000");
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        fixture.set("/process/args", json!(["sleep", "1000"]));
        let created = fixture.start();
        let output = exec(&created.container, &shell("readlink /proc/self/ns/mnt; ls -d /bin/sh"));
        let output = output.unwrap();
        assert_eq!(output.stdout, format!("{namespace}\n/bin/sh\n"), "{output:?}");
        created.container.delete(true).unwrap();
    }));
    for path in ["keep/mnt", "keep"] {
        rustix::mount::unmount(fixture.path(path), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    result.unwrap();
}
