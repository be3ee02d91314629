//! Who a process is, by files that belong to the container and may be anything (R9 of SECURITY.md).
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;

use support::engine::{Engine, Outcome, eventually};

/// The most that a hostile file may cost brigd, in KiB.
const MEMORY_KIB_MAX: u64 = 16 << 10;

/// Files that name alice, and somebody whose name is a number.
const ORDINARY: &str = r"
    printf 'root:x:0:0::/:/bin/sh\nalice:x:1000:1001::/:/bin/sh\n' > /etc/passwd
    printf '1000:x:44:45::/:/bin/sh\nbig:x:4294967296:0::/:/bin/sh\n' >> /etc/passwd
    printf 'root:x:0:\naudio:x:29:alice\n' > /etc/group";

/// A container that changes its own files, as `script` says, and then waits.
fn change_files(engine: &Engine, name: &str, script: &str) {
    let script = format!("{script}\necho changed; sleep 100000");
    let run = ["run", "-d", "--network", "none", "--name", name, "busybox", "sh", "-c", &script];
    let _id = engine.docker(&run).success();
    eventually("the container's files", || {
        engine.docker(&["logs", name]).stdout.contains("changed").then_some(())
    });
}

fn become_user(engine: &Engine, container: &str, user: &str) -> Outcome {
    engine.docker(&["exec", "-u", user, container, "sh", "-c", "id -u; id -g; id -G"])
}

/// Whether nothing was executed: what is said then tells why, and no number of a user.
fn is_nobody(outcome: &Outcome) -> bool {
    let is_id = |line: &str| line.bytes().all(|byte| byte.is_ascii_digit() || byte == b' ');
    outcome.code == Some(126) && !outcome.stdout.lines().any(is_id)
}

#[test]
fn a_user_is_exactly_who_the_containers_files_say() {
    let Some(engine) = Engine::start("users") else { return };
    engine.load_busybox();
    change_files(&engine, "users", ORDINARY);
    for (user, wanted) in [
        ("alice", "1000\n1001\n1001 29"),
        ("1000", "44\n45\n45"),
        ("alice:audio", "1000\n29\n29"),
        ("4242", "4242\n0\n0"),
        ("4242:4243", "4242\n4243\n4243"),
    ] {
        assert_eq!(become_user(&engine, "users", user).success(), wanted, "{user}");
    }
    for user in ["4294967296", "4294967295", "2147483648", "-1", "alice\n", "nobody", "big", "0:-1"]
    {
        let refused = become_user(&engine, "users", user);
        assert!(is_nobody(&refused), "{user:?}: {refused:?}");
    }
    let json = r#"{"Cmd": ["id"], "User": "4294967296"}"#;
    let created = engine.api("POST", "/containers/users/exec", json).unwrap();
    let exec = created.json()["Id"].as_str().map(str::to_owned);
    // As with docker, it is refused at the latest when it is to start.
    let status = match exec {
        None => created.status,
        Some(id) => {
            let start = format!("/exec/{id}/start");
            engine.api("POST", &start, r#"{"Detach": true}"#).unwrap().status
        }
    };
    assert_eq!(status, 400);
}

#[test]
fn files_of_users_that_are_none_name_nobody_and_cost_little() {
    let Some(engine) = Engine::start("hostile-users") else { return };
    engine.load_busybox();
    // mallory is root on the host, and where a link leads into the host's files.
    let host = engine.path("passwd");
    fs::write(&host, "mallory:x:0:0::/:/bin/sh\n").unwrap();
    let link = format!("ln -sf {} /etc/passwd", host.display());
    let pid = engine.daemon_pid();
    for (name, script) in [
        ("link", link.as_str()),
        ("pipe", "rm -f /etc/passwd; mkfifo /etc/passwd"),
        ("directory", "rm -f /etc/passwd; mkdir /etc/passwd"),
        ("large", "echo mallory:x:0:0::/: > /etc/passwd; truncate -s 1G /etc/passwd"),
        ("large-group", "echo mallory:x:7:7::/: > /etc/passwd; truncate -s 1G /etc/group"),
    ] {
        change_files(&engine, name, script);
        // The kernel's mark of the most that was ever used starts anew.
        fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        let before = most_used_kib(pid);
        let refused = become_user(&engine, name, "mallory");
        assert!(is_nobody(&refused), "{name}: {refused:?}");
        let used = most_used_kib(pid).saturating_sub(before);
        assert!(used < MEMORY_KIB_MAX, "{name}: {used} KiB");
        let _name = engine.docker(&["rm", "-f", name]).success();
    }
}

fn most_used_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
