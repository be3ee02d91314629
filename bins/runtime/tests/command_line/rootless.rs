//! Containers of a caller who is not root.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::bundle::{Bundle, USER};
use crate::text;

#[test]
fn a_user_runs_execs_kills_and_deletes() {
    let Some(bundle) = Bundle::rootless("a_user_runs_execs_kills_and_deletes") else { return };
    bundle.link(&["id", "stat"]);
    bundle.script("id -u; id -g; stat -c %u /bin /dev /dev/null; : > /dev/null; exit 5");
    let output = bundle.run();
    assert_eq!(text(&output.stdout), "0\n0\n0\n0\n65534\n", "{output:?}");
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    bundle.edit(|config| config["process"]["args"] = json!(["sleep", "1000"]));
    let id = bundle.id.as_str();
    quiet(&bundle, &["create", "-b", &bundle.path(), id]);
    let directory = bundle.directory.join("run/brig-runtime").join(id);
    assert!(directory.is_dir(), "{} is in the user's runtime directory", directory.display());
    assert_eq!(state(&bundle)["status"], "created");
    quiet(&bundle, &["start", id]);
    let pid = state(&bundle)["pid"].to_string();
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", &USER.to_string(), "1"]);
    let output = bundle.call(&["exec", id, "sh", "-c", "id -u; exit 3"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("0\n", Some(3)));
    let listed: Value =
        serde_json::from_slice(&bundle.call(&["ps", "-f", "json", id]).stdout).unwrap();
    assert_eq!(listed.to_string(), format!("[{pid}]"));
    assert!(!bundle.call(&["delete", id]).status.success(), "it runs");
    quiet(&bundle, &["kill", id, "KILL"]);
    quiet(&bundle, &["delete", "--force", id]);
    assert!(text(&bundle.call(&["state", id]).stderr).contains("does not exist"));
}

/// Ranges are the user's to map by newuidmap alone, and root of the container may then be nobody who could reach what
/// the user can: sources and the root file system are opened as the user.
#[test]
fn ranges_are_mapped_and_a_private_bundle_is_reached() {
    let test = "ranges_are_mapped_and_a_private_bundle_is_reached";
    if !Path::new("/usr/bin/newuidmap").exists() {
        eprintln!("SKIPPED {test}: needs newuidmap (Debian's uidmap)");
        return;
    }
    let Some(mut bundle) = Bundle::rootless(test) else { return };
    bundle.link(&["id", "stat"]);
    let directory = bundle.path();
    for (name, line) in [
        ("passwd", format!("brig:x:{USER}:{USER}::/:/bin/sh\n")),
        ("subuid", "brig:600000:1000\n".to_owned()),
        ("subgid", "brig:600000:1000\n".to_owned()),
    ] {
        std::fs::write(bundle.directory.join(name), line).unwrap();
        bundle.prepare(&format!("touch /etc/{name}; mount --bind {directory}/{name} /etc/{name}"));
    }
    std::fs::create_dir(bundle.directory.join("private")).unwrap();
    std::fs::write(bundle.directory.join("private/file"), "found\n").unwrap();
    for (path, mode) in [("private/file", 0o644), ("private", 0o755), ("", 0o700)] {
        let path = bundle.directory.join(path);
        std::os::unix::fs::chown(&path, Some(USER), Some(USER)).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let map = json!([{"containerID": 0, "hostID": 600_000, "size": 1000}]);
    bundle.edit(|config| {
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        config["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
        config["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/dev/private", "type": "bind", "source": "private", "options": ["rbind"]
        }));
    });
    bundle.script("id -u; id -g; id -G; stat -c %u /bin; cat /dev/private/file");
    let output = bundle.run();
    assert_eq!(text(&output.stdout), "7\n8\n8 9\n65534\nfound\n", "{output:?}");

    let beyond = json!([{"containerID": 0, "hostID": 600_000, "size": 1001}]);
    bundle.edit(|config| config["linux"]["uidMappings"] = beyond);
    let errors = text(&bundle.run().stderr);
    assert!(errors.contains("newuidmap: ") && errors.contains("/etc/subuid"), "{errors}");
}

#[test]
fn what_a_user_cannot_have_is_refused_by_name() {
    let Some(bundle) = Bundle::rootless("what_a_user_cannot_have_is_refused_by_name") else {
        return;
    };
    let original = std::fs::read(bundle.directory.join("config.json")).unwrap();
    type Change = fn(&mut Value);
    let refusals: [(Change, &str); 9] = [
        (|config| without(&mut config["linux"]["namespaces"], "user"), "needs a user namespace"),
        (|config| config["process"]["user"]["additionalGids"] = json!([1]), "additionalGids"),
        (|config| config["process"]["user"]["uid"] = json!(5), "does not map it"),
        (|config| config["linux"]["resources"] = json!({"pids": {"limit": 5}}), "pids controller"),
        (|config| config["linux"]["cgroupsPath"] = json!("/brig-no-such"), "create cgroup"),
        (|config| config["linux"]["uidMappings"] = json!([]), "linux.uidMappings is empty"),
        (|config| mount(config, json!({"type": "devpts", "options": ["gid=5"]})), "gid=5"),
        (|config| mount(config, json!({"type": "sysfs"})), "own network namespace"),
        (
            |config| {
                mount(
                    config,
                    json!({"type": "bind", "source": "/", "options": ["rbind", "idmap"]}),
                );
            },
            "id-mapped mount",
        ),
    ];
    for (change, words) in refusals {
        std::fs::write(bundle.directory.join("config.json"), &original).unwrap();
        bundle.edit(|config| {
            change(config);
            if config["linux"]["namespaces"].to_string().contains("user") {
                return;
            }
            let linux = config["linux"].as_object_mut().unwrap();
            linux.retain(|name, _| !name.ends_with("Mappings"));
        });
        bundle.edit(|config| config["process"]["args"] = json!(["true"]));
        let output = bundle.run();
        assert_eq!(output.status.code(), Some(1), "{words}: {output:?}");
        assert!(text(&output.stderr).contains(words), "{words}: {output:?}");
        assert_eq!(text(&bundle.call(&["list", "-q"]).stdout), "", "{words}");
    }
}

fn without(namespaces: &mut Value, kind: &str) {
    namespaces.as_array_mut().unwrap().retain(|namespace| namespace["type"] != kind);
}

fn mount(config: &mut Value, mut mount: Value) {
    mount["destination"] = json!("/dev/more");
    config["mounts"].as_array_mut().unwrap().push(mount);
}

/// What an administrator forbids on a mount of the host holds in a user's container.
#[test]
fn flags_of_the_hosts_mounts_stay() {
    let Some(mut bundle) = Bundle::rootless("flags_of_the_hosts_mounts_stay") else { return };
    let source = bundle.directory.join("source");
    std::fs::create_dir(&source).unwrap();
    let path = source.display();
    bundle.prepare(&format!("mount -t tmpfs -o nosuid,nodev,noexec,noatime,mode=755 none {path}"));
    bundle.prepare(&format!("mount -o remount,bind,ro,nosuid,nodev,noexec,noatime {path}"));
    let with = |options: &[&str]| {
        bundle.edit(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] != "/dev/source");
            mounts.push(json!({
                "destination": "/dev/source", "type": "bind", "source": "source",
                "options": options
            }));
        });
        bundle.script("cat /proc/self/mountinfo");
        bundle.run()
    };
    for options in [&["rbind"][..], &["rbind", "rprivate"], &["bind", "nosymfollow"]] {
        let output = with(options);
        let table = text(&output.stdout);
        let line = table.lines().find(|line| line.contains(" /dev/source ")).unwrap_or_default();
        for flag in ["ro", "nosuid", "nodev", "noexec", "noatime"] {
            assert!(line.split([' ', ',']).any(|word| word == flag), "{flag}: {line} {output:?}");
        }
    }
    for option in ["rw", "suid", "dev", "exec", "relatime"] {
        let output = with(&["rbind", option]);
        assert_eq!(output.status.code(), Some(1), "{option}: {output:?}");
        let errors = text(&output.stderr);
        let named = errors.contains("source: EPERM") && errors.contains("a user namespace cannot");
        assert!(named, "{option}: {errors}");
    }
}

/// A cgroup of the cgroup2 hierarchy that is the user's, and in a mount namespace in which there is no other hierarchy.
struct Delegated {
    cgroup: std::path::PathBuf,
}

impl Delegated {
    /// The user is to be in `inside`, below the cgroup that is delegated, or in that itself.
    fn new(bundle: &mut Bundle, inside: &str) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let Some(mount) = mount.and_then(|line| line.split(' ').nth(4)) else {
            eprintln!("SKIPPED {}: no cgroup2 hierarchy is mounted", bundle.id);
            return None;
        };
        let cgroup = Path::new(mount).join(&bundle.id);
        std::fs::create_dir_all(cgroup.join(inside)).unwrap();
        for directory in [cgroup.clone(), cgroup.join(inside)] {
            for file in ["", "cgroup.procs", "cgroup.subtree_control"] {
                std::os::unix::fs::chown(directory.join(file), Some(USER), Some(USER)).unwrap();
            }
        }
        let own = format!("{}/{inside}", bundle.id);
        bundle.prepare(&format!(
            "echo $$ > {mount}/{own}/cgroup.procs\numount -R /sys/fs/cgroup\nmount -t cgroup2 none /sys/fs/cgroup"
        ));
        Some(Self { cgroup })
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let children = std::fs::read_dir(&self.cgroup).into_iter().flatten().flatten();
        for child in children.filter(|child| child.path().is_dir()) {
            let _ = std::fs::remove_dir(child.path());
        }
        let _ = std::fs::remove_dir(&self.cgroup);
    }
}

#[test]
fn a_delegated_cgroup_is_used() {
    for inside in ["supervisor", ""] {
        let test = format!("a_delegated_cgroup_is_used-{inside}");
        let Some(mut bundle) = Bundle::rootless(&test) else { return };
        let Some(delegated) = Delegated::new(&mut bundle, inside) else { return };
        bundle.edit(|config| config["process"]["args"] = json!(["sleep", "1000"]));
        let id = bundle.id.clone();
        quiet(&bundle, &["run", "--detach", "-b", &bundle.path(), &id]);
        let cgroup = delegated.cgroup.join(&id);
        let pid = state(&bundle)["pid"].to_string();
        let listed = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
        assert_eq!(listed, format!("{pid}\n"), "{inside}");
        assert_eq!(std::fs::metadata(&cgroup).unwrap().uid(), USER);
        quiet(&bundle, &["exec", &id, "true"]);
        quiet(&bundle, &["pause", &id]);
        assert_eq!(state(&bundle)["status"], "paused");
        quiet(&bundle, &["resume", &id]);
        let stats = bundle.call(&["events", "--stats", &id]);
        assert!(stats.status.success(), "{stats:?}");
        quiet(&bundle, &["delete", "--force", &id]);
        assert!(!cgroup.exists(), "it goes with the container");
    }
}

/// Root of a user namespace has what it needs for a container in it, but for cgroups and device nodes.
#[test]
fn root_of_a_user_namespace_needs_no_further_one() {
    let test = "root_of_a_user_namespace_needs_no_further_one";
    let Some(bundle) = Bundle::rootless(test) else { return };
    bundle.edit(|config| {
        without(&mut config["linux"]["namespaces"], "user");
        let linux = config["linux"].as_object_mut().unwrap();
        linux.retain(|name, _| !name.ends_with("Mappings"));
    });
    bundle.link(&["id"]);
    bundle.script("id -u; cat /proc/self/uid_map /proc/self/setgroups; : > /dev/null");
    let mut command = bundle.called(Path::new("unshare"));
    command.args(["--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"]);
    command.arg(bundle.directory.join("brig-runtime")).arg("--root");
    command.arg(bundle.directory.join("run/inner")).args(["run", "-b", &bundle.path(), &bundle.id]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let printed = text(&output.stdout);
    let words: Vec<_> = printed.split_whitespace().collect();
    assert_eq!(words, ["0", "0", &USER.to_string(), "1", "deny"], "{output:?}");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_user_adds_tmpfs_to_a_container_that_runs_and_nothing_of_the_host() {
    let test = "a_user_adds_tmpfs_to_a_container_that_runs_and_nothing_of_the_host";
    let Some(bundle) = Bundle::rootless(test) else { return };
    bundle.edit(|config| config["process"]["args"] = json!(["sleep", "1000"]));
    quiet(&bundle, &["run", "--detach", "-b", &bundle.path(), &bundle.id]);
    let file = bundle.directory.join("mounts.json");
    let name = file.display().to_string();
    let tmpfs = json!([{"destination": "/dev/more", "type": "tmpfs", "source": "tmpfs"}]);
    std::fs::write(&file, tmpfs.to_string()).unwrap();
    quiet(&bundle, &["mounts", "add", &bundle.id, &name]);
    let table = bundle.call(&["exec", &bundle.id, "cat", "/proc/self/mountinfo"]);
    assert!(text(&table.stdout).contains(" /dev/more "), "{table:?}");
    quiet(&bundle, &["mounts", "remove", &bundle.id, &name]);
    let bind =
        json!([{"destination": "/dev/more", "type": "bind", "source": "/", "options": ["rbind"]}]);
    std::fs::write(&file, bind.to_string()).unwrap();
    let refused = bundle.call(&["mounts", "add", &bundle.id, &name]);
    assert!(text(&refused.stderr).contains("can only add tmpfs"), "{refused:?}");
}

fn state(bundle: &Bundle) -> Value {
    serde_json::from_slice(&bundle.call(&["state", &bundle.id]).stdout).unwrap()
}

/// Calls with no output, which a detached container would keep, and wants success.
fn quiet(bundle: &Bundle, arguments: &[&str]) {
    let errors = bundle.directory.join("errors");
    let file = std::fs::File::create(&errors).unwrap();
    let status = bundle.command(arguments).stdout(Stdio::null()).stderr(file).status();
    let errors = std::fs::read_to_string(errors).unwrap();
    assert!(status.unwrap().success(), "{arguments:?}: {errors}");
}
