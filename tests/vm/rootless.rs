//! The runtime of a user who is not root: without cgroups, in one that a service manager delegates, and in scopes of the
//! user's own systemd.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

use support::engine::eventually;

use crate::bundle::{Bundle, USER, user_words};
use crate::guest::{cgroup_value, is_here, is_unified, run, systemctl};

/// Makes the user, and starts its systemd as a log-in does.
fn log_in() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let words = ["--uid", "1000", "--user-group", "--home-dir", "/tmp", "tester"];
        let _ = run(Command::new("useradd").args(words)).success();
        // Or logind, once something wakes it, ends what belongs to a user without a session.
        fs::create_dir_all("/var/lib/systemd/linger").unwrap();
        fs::write("/var/lib/systemd/linger/tester", "").unwrap();
        let _ = systemctl(&["start", &format!("user@{USER}.service")]).success();
        eventually("the bus of the user", || {
            fs::exists(format!("/run/user/{USER}/bus")).unwrap().then_some(())
        });
    });
}

#[test]
fn a_user_runs_a_container_without_a_cgroup() {
    if !is_here("a_user_runs_a_container_without_a_cgroup") {
        return;
    }
    log_in();
    let bundle = Bundle::rootless("plain", &[], false, &["sleep", "1000"]);
    let _ = bundle.runtime(&["run", "--detach"]).success();
    let pid = bundle.pid();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap(), own);
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    assert!(map.split_whitespace().eq(["0", "1000", "1"]), "{map}");
    let listed = bundle.runtime(&["ps", "--format", "json"]).success();
    assert!(listed.contains(&pid.to_string()), "{listed}");
    assert_ne!(bundle.runtime(&["pause"]).code, Some(0));
    bundle.end();
    let limited = Bundle::rootless("limited", &[], true, &["sleep", "1000"]);
    let refused = limited.runtime(&["run", "--detach"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stdout.contains("controller is not available"), "{refused:?}");
}

/// A service of a user with `Delegate=`: its cgroup is the user's, who moves aside to give controllers to containers.
#[test]
fn a_service_of_a_user_limits_its_containers() {
    let test = "a_service_of_a_user_limits_its_containers";
    if !is_here(test) {
        return;
    }
    if !is_unified() {
        eprintln!("SKIPPED {test}: cgroup v1 has no delegation of controllers to a user");
        return;
    }
    log_in();
    let arguments = ["sh", "-c", "cd /sys/fs/cgroup; cat memory.max pids.max"];
    let bundle = Bundle::rootless("served", &[], true, &arguments);
    let directory = bundle.path().display();
    let script = format!(
        "set -e; own=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup); mkdir $own/supervisor; \
         echo $$ >$own/supervisor/cgroup.procs; \
         brig-runtime --root {directory}/state run --bundle {directory} served; ls $own"
    );
    // In a file: systemd would read some of the signs itself.
    let file = bundle.path().join("script");
    fs::write(&file, script).unwrap();
    let user = USER.to_string();
    let mut service = Command::new("systemd-run");
    service.args(["--wait", "--pipe", "--collect", "--quiet", "--uid", &user, "--gid", &user]);
    service.args(["--property", "Delegate=yes", "--setenv", "PATH=/usr/local/bin:/usr/bin:/bin"]);
    let output = run(service.arg("sh").arg(file)).success();
    let left = output.strip_prefix("33554432\n16\n").unwrap_or_else(|| panic!("{output}"));
    assert!(left.contains("supervisor"), "{output}");
    assert!(!left.contains("served"), "the cgroup goes with the container: {left}");
}

#[test]
fn a_scope_of_a_users_systemd_holds_a_container() {
    if !is_here("a_scope_of_a_users_systemd_holds_a_container") {
        return;
    }
    log_in();
    // Only the second version of cgroups may be delegated with its controllers to somebody without privileges.
    let bundle =
        Bundle::rootless("scoped", &["--systemd-cgroup"], is_unified(), &["sleep", "1000"]);
    let _ = bundle.runtime(&["run", "--detach"]).success();
    let pid = bundle.pid();
    let membership = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let place = format!("/user-{USER}.slice/user@{USER}.service/user.slice/brig-scoped.scope");
    assert!(membership.contains(&place), "{membership}");
    if is_unified() {
        assert_eq!(cgroup_value(pid, "memory", "memory.max"), "33554432");
        assert_eq!(cgroup_value(pid, "pids", "pids.max"), "16");
        let _ = bundle.runtime(&["pause"]).success();
        assert_eq!(bundle.state()["status"], "paused");
        let _ = bundle.runtime(&["resume"]).success();
    }
    let listed = bundle.runtime(&["ps", "--format", "json"]).success();
    assert!(listed.contains(&pid.to_string()), "{listed}");
    bundle.end();
    let mut show = Command::new(user_words()[0]);
    show.args(&user_words()[1..]).args(["systemctl", "--user", "show", "--property=LoadState"]);
    let shown = run(show.arg("brig-scoped.scope")).success();
    assert_eq!(shown, "LoadState=not-found", "the scope goes with the container");
}
