//! The root filesystem and what is mounted in it.

use std::os::fd::AsFd as _;

use brig_runtime::{CreateOptions, RootfsMount};
use serde_json::json;

use crate::support::{Fixture, null};

fn host_mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap()
}

#[test]
fn an_overlay_root_is_not_in_the_hosts_mount_table() {
    let Some(mut fixture) = Fixture::new("an_overlay_root_is_not_in_the_hosts_mount_table") else {
        return;
    };
    let lower = fixture.path("lower");
    std::fs::rename(fixture.path("rootfs"), &lower).unwrap();
    for name in ["rootfs", "upper", "work"] {
        std::fs::create_dir(fixture.path(name)).unwrap();
    }
    let option = |key: &str, name: &str| format!("{key}={}", fixture.path(name).display());
    let mount = RootfsMount {
        fstype: "overlay".into(),
        source: "overlay".into(),
        options: vec![
            option("lowerdir", "lower"),
            option("upperdir", "upper"),
            option("workdir", "work"),
        ],
        target: String::new(),
    };
    fixture.script("echo x > /new; mount | head -1");
    let id = fixture.id.to_string();
    let options = CreateOptions { rootfs_mounts: vec![mount], ..CreateOptions::default() };
    let output = fixture.run_with(options).unwrap();
    assert!(output.stdout.starts_with("overlay on / type overlay"), "{output:?}");
    assert_eq!(std::fs::read(fixture.path("upper/new")).unwrap(), b"x\n");
    let table = host_mounts();
    assert!(!table.contains(&fixture.directory.path().display().to_string()), "{table}");
    assert!(!table.contains(&id), "{table}");
}

#[test]
fn bind_mounts_take_their_options() {
    let Some(mut fixture) = Fixture::new("bind_mounts_take_their_options") else { return };
    std::fs::create_dir(fixture.path("data")).unwrap();
    std::fs::write(fixture.path("data/file"), "hello\n").unwrap();
    fixture.push(
        "/mounts",
        json!({"destination": "/a/b", "type": "bind", "source": "data", "options": ["bind", "ro", "nosuid"]}),
    );
    fixture.push(
        "/mounts",
        json!({"destination": "/etc/one", "source": "data/file", "options": ["rbind", "rw", "rprivate"]}),
    );
    let output = fixture.output(
        "cat /a/b/file; touch /a/b/x 2>&1; echo more >> /etc/one; grep ' /a/b ' /proc/self/mountinfo",
    );
    assert!(output.starts_with("hello\n"), "{output}");
    assert!(output.contains("Read-only"), "{output}");
    assert!(output.contains("nosuid"), "{output}");
    assert_eq!(std::fs::read(fixture.path("data/file")).unwrap(), b"hello\nmore\n");
}

#[test]
fn recursive_read_only_reaches_the_mounts_below() {
    let Some(mut fixture) = Fixture::new("recursive_read_only_reaches_the_mounts_below") else {
        return;
    };
    // /dev has mounts below it on every machine, such as /dev/pts.
    fixture.push(
        "/mounts",
        json!({"destination": "/mnt", "type": "bind", "source": "/dev", "options": ["rbind", "rro"]}),
    );
    let output = fixture.output("grep ' /mnt' /proc/self/mountinfo");
    assert!(output.lines().count() >= 2, "{output}");
    assert!(
        output.lines().all(|line| line.split(' ').nth(5).unwrap().starts_with("ro")),
        "{output}"
    );
}

#[test]
fn bind_mounts_are_slaves_of_the_host_and_never_leak_back() {
    let Some(mut fixture) = Fixture::new("bind_mounts_are_slaves_of_the_host_and_never_leak_back")
    else {
        return;
    };
    fixture.push(
        "/mounts",
        json!({"destination": "/mnt", "type": "bind", "source": "/dev", "options": ["rbind"]}),
    );
    let output = fixture.output("cat /proc/self/mountinfo");
    assert!(!output.contains(" shared:"), "{output}");
}

#[test]
fn a_read_only_root_refuses_writes() {
    let Some(mut fixture) = Fixture::new("a_read_only_root_refuses_writes") else { return };
    fixture.set("/root/readonly", json!(true));
    let output = fixture.output("touch /x 2>&1; touch /dev/x && echo dev");
    assert!(output.contains("Read-only") && output.contains("dev"), "{output}");
}

#[test]
fn root_propagation_is_set() {
    let Some(mut fixture) = Fixture::new("root_propagation_is_set") else { return };
    fixture.set("/linux/rootfsPropagation", json!("rshared"));
    let output = fixture.output("grep ' / / ' /proc/self/mountinfo || cat /proc/self/mountinfo");
    assert!(output.lines().next().unwrap().contains("shared:"), "{output}");
}

#[test]
fn default_devices_and_links_are_there() {
    let Some(mut fixture) = Fixture::new("default_devices_and_links_are_there") else { return };
    fixture.set(
        "/linux/devices",
        json!([{"path": "/dev/deep/fuse", "type": "c", "major": 10, "minor": 229,
                "fileMode": 0o640, "uid": 5, "gid": 6}]),
    );
    let output = fixture.output(
        "stat -c '%n %t %T %a' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty; \
         stat -c '%t %T %a %u %g' /dev/deep/fuse; readlink /dev/fd; readlink /dev/ptmx",
    );
    assert!(output.starts_with("/dev/null 1 3 666\n"), "{output}");
    assert!(output.contains("\na e5 640 5 6\n"), "{output}");
    assert!(output.ends_with("/proc/self/fd\npts/ptmx\n"), "{output}");
}

#[test]
fn a_mount_that_fails_reads_like_a_system_call() {
    let Some(mut fixture) = Fixture::new("a_mount_that_fails_reads_like_a_system_call") else {
        return;
    };
    fixture.push(
        "/mounts",
        json!({"destination": "/x", "type": "tmpfs", "source": "t", "options": ["size=banana"]}),
    );
    let error = fixture.run().unwrap_err().chain();
    assert!(error.contains("mount \"tmpfs\" at \"/x\": EINVAL"), "{error}");
    fixture.config["mounts"].as_array_mut().unwrap().pop();
    fixture.push(
        "/mounts",
        json!({"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]}),
    );
    let error = fixture.run().unwrap_err().chain();
    assert!(error.contains("bind /no/such"), "{error}");
}

#[test]
fn id_mapped_mounts_show_mapped_owners() {
    let Some(mut fixture) = Fixture::new("id_mapped_mounts_show_mapped_owners") else { return };
    let data = fixture.path("data");
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::chown(&data, Some(1000), Some(1000)).unwrap();
    let map = json!([{"containerID": 1000, "hostID": 0, "size": 1}]);
    fixture.push(
        "/mounts",
        json!({"destination": "/data", "type": "bind", "source": data, "options": ["bind", "idmap"],
               "uidMappings": map, "gidMappings": map}),
    );
    assert_eq!(fixture.output("stat -c '%u %g' /data"), "0 0\n");
}

#[test]
fn sysctls_of_own_namespaces_are_set() {
    let Some(mut fixture) = Fixture::new("sysctls_of_own_namespaces_are_set") else { return };
    fixture.set(
        "/linux/sysctl",
        json!({"net.ipv4.ip_forward": "1", "kernel.shmmax": "4096", "net.ipv4.ping_group_range": "0 7"}),
    );
    let output = fixture.output("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax");
    assert_eq!(output, "1\n4096\n");
}

#[test]
fn no_pivot_works_and_exec_finds_the_root() {
    let Some(mut fixture) = Fixture::new("no_pivot_works_and_exec_finds_the_root") else { return };
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let options = CreateOptions { stdio: null(), no_pivot: true, ..CreateOptions::default() };
    let created = fixture.create(options).unwrap();
    created.container.start().unwrap();
    let output = crate::support::exec(&created.container, &crate::support::shell("ls /")).unwrap();
    assert_eq!(
        output.stdout.split_whitespace().collect::<Vec<_>>(),
        ["bin", "dev", "etc", "proc", "sys", "tmp"]
    );
}

#[test]
fn a_tmpfs_starts_with_what_the_image_has_there() {
    let Some(mut fixture) = Fixture::new("a_tmpfs_starts_with_what_the_image_has_there") else {
        return;
    };
    let data = fixture.path("rootfs/data");
    std::fs::create_dir_all(data.join("deep/er")).unwrap();
    std::fs::write(data.join("deep/file"), "content\n").unwrap();
    std::os::unix::fs::symlink("deep/file", data.join("link")).unwrap();
    std::os::unix::fs::chown(data.join("deep/file"), Some(7), Some(8)).unwrap();
    std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
    let mount = |options: serde_json::Value| json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": options});
    fixture.push("/mounts", mount(json!(["tmpcopyup", "nosuid"])));
    let output = fixture.output(
        "cat /data/link; stat -c '%u %g' /data/deep/file; ls -d /data/deep/er; echo x > /data/new; \
         stat -c %a /data; grep -c ' /data .* tmpfs ' /proc/self/mountinfo",
    );
    assert_eq!(output, "content\n7 8\n/data/deep/er\n750\n1\n");
    assert!(!data.join("new").exists(), "the image is untouched");
    *fixture.config["mounts"].as_array_mut().unwrap().last_mut().unwrap() =
        mount(json!(["tmpcopyup", "ro"]));
    let output = fixture.output("cat /data/link; touch /data/new 2>&1 || true");
    assert!(output.starts_with("content\n") && output.contains("Read-only"), "{output}");
    fixture.push(
        "/mounts",
        json!({"destination": "/x", "type": "proc", "source": "proc", "options": ["tmpcopyup"]}),
    );
    assert!(fixture.run().unwrap_err().chain().contains("tmpcopyup"));
}

#[test]
fn links_are_copied_or_mounted_themselves_when_asked() {
    let Some(mut fixture) = Fixture::new("links_are_copied_or_mounted_themselves_when_asked")
    else {
        return;
    };
    std::fs::write(fixture.path("file"), "host\n").unwrap();
    std::os::unix::fs::symlink("/etc/there", fixture.path("source")).unwrap();
    std::fs::write(fixture.path("rootfs/etc/there"), "image\n").unwrap();
    std::os::unix::fs::symlink("there", fixture.path("rootfs/etc/target")).unwrap();
    let before = fixture.config["mounts"].clone();
    let mut with = |source: &str, destination: &str, options: serde_json::Value, script: &str| {
        fixture.set("/mounts", before.clone());
        let source = fixture.path(source);
        fixture.push(
            "/mounts",
            json!({"destination": destination, "source": source, "options": options}),
        );
        fixture.script(script);
        fixture.run().map(|output| output.stdout).map_err(|error| error.chain())
    };
    let output = with("source", "/etc/copy", json!(["bind", "copy-symlink"]), "readlink /etc/copy");
    assert_eq!(output.unwrap(), "/etc/there\n");
    let output = with("source", "/etc/copy", json!(["bind", "copy-symlink"]), "cat /etc/copy");
    assert_eq!(output.unwrap(), "image\n", "the same link may be there already");
    let error = with("source", "/etc/there", json!(["bind", "copy-symlink"]), "true").unwrap_err();
    assert!(error.contains("EEXIST"), "{error}");
    let both = json!(["bind", "src-nofollow", "dest-nofollow"]);
    let output = with("source", "/etc/target", both, "readlink /etc/target");
    assert_eq!(output.unwrap(), "/etc/there\n");
    let output = with(
        "file",
        "/etc/target",
        json!(["bind", "dest-nofollow"]),
        "cat /etc/target /etc/there; grep -c ' /etc/target ' /proc/self/mountinfo",
    );
    assert_eq!(output.unwrap(), "host\nimage\n1\n", "over the link, not where it leads");
    let output = with("file", "/etc/target", json!(["bind"]), "cat /etc/there");
    assert_eq!(output.unwrap(), "host\n", "followed without the option");
}

#[test]
fn a_root_may_be_made_of_several_mounts() {
    let Some(mut fixture) = Fixture::new("a_root_may_be_made_of_several_mounts") else { return };
    for name in ["hidden", "extra"] {
        std::fs::create_dir(fixture.path(name)).unwrap();
        std::fs::write(fixture.path(name).join("name"), name).unwrap();
    }
    let bind = |name: &str, target: &str| RootfsMount {
        fstype: "bind".into(),
        source: fixture.path(name).display().to_string(),
        options: vec!["rbind".into(), "rw".into()],
        target: target.into(),
    };
    let mounts = vec![bind("hidden", ""), bind("rootfs", "/"), bind("extra", "opt/extra")];
    fixture.script("cat /opt/extra/name; ls /name 2>&1; ls /bin/sh");
    let options = CreateOptions { rootfs_mounts: mounts, ..CreateOptions::default() };
    let output = fixture.run_with(options).unwrap();
    assert!(output.stdout.starts_with("extra"), "{output:?}");
    assert!(output.stdout.contains("No such file") && output.stdout.ends_with("/bin/sh\n"));
    assert!(!host_mounts().contains(&fixture.directory.path().display().to_string()));
}

/// The caller's mounts may be shared with each other; the container's are slaves of them.
#[test]
fn a_mount_below_a_handed_one_does_not_reach_the_host() {
    use nix::mount::{MsFlags, mount};
    let test = "a_mount_below_a_handed_one_does_not_reach_the_host";
    let Some(mut fixture) = Fixture::new(test) else { return };
    for name in ["extra", "extra/below"] {
        std::fs::create_dir(fixture.path(name)).unwrap();
    }
    let bind = |name: &str, target: &str| RootfsMount {
        fstype: "bind".into(),
        source: fixture.path(name).display().to_string(),
        options: vec!["rbind".into()],
        target: target.into(),
    };
    let rootfs_mounts = vec![bind("rootfs", "/"), bind("extra", "extra")];
    fixture.push("/mounts", json!({"destination": "/extra/below", "type": "tmpfs"}));
    let options = CreateOptions { rootfs_mounts, ..CreateOptions::default() };
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            for kind in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
                mount(none, "/", none, MsFlags::MS_REC | kind, none).unwrap();
            }
            let created = fixture.create(CreateOptions { stdio: null(), ..options }).unwrap();
            let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            created.container.delete(true).unwrap();
            brig_runtime::pidfd::wait_child(created.pidfd.as_fd()).unwrap();
            assert!(!mounts.contains("/extra/below"), "{mounts}");
        });
        run.join().unwrap();
    });
}

#[test]
fn a_remount_changes_the_filesystem_and_the_mount() {
    let test = "a_remount_changes_the_filesystem_and_the_mount";
    let Some(mut fixture) = Fixture::new(test) else { return };
    fixture.push(
        "/mounts",
        json!({
            "destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
            "options": ["size=1m", "nr_inodes=100"]
        }),
    );
    fixture.push(
        "/mounts",
        json!({"destination": "/tmp", "options": ["remount", "size=2m", "ro", "noexec"]}),
    );
    fixture.push("/mounts", json!({"destination": "/tmp", "options": ["private", "rnosuid"]}));
    let output = fixture.output("grep ' /tmp ' /proc/self/mountinfo");
    let (mount, filesystem) = output.split_once(" - ").unwrap();
    for option in ["ro", "noexec", "nosuid"] {
        assert!(mount.split([' ', ',']).any(|word| word == option), "{option}: {output}");
    }
    assert!(!mount.contains("master:") && !mount.contains("shared:"), "{output}");
    for option in ["size=2048k", "nr_inodes=100"] {
        assert!(filesystem.contains(option), "{option}: {output}");
    }
}

#[test]
fn a_remount_says_what_the_filesystem_refuses() {
    let Some(mut fixture) = Fixture::new("a_remount_says_what_the_filesystem_refuses") else {
        return;
    };
    fixture.push("/mounts", json!(null));
    for (options, words) in [
        (json!(["remount", "frobnicate=1"]), "frobnicate"),
        (json!(["bind", "remount", "ro", "size=1m"]), "remount a bind mount with \"size\""),
    ] {
        let last = fixture.config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
        *last = json!({"destination": "/dev", "options": options});
        let error = fixture.run().unwrap_err();
        assert!(error.chain().contains(words), "{}", error.chain());
    }
}
