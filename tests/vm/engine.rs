//! The slice, through the installed engine: run, publish, execute, logs, a daemon that is killed, stop, remove.

use std::process::Command;

use support::engine::eventually;

use crate::guest::{Engine, brig, pid, run, systemctl};

#[test]
fn systemd_accepts_the_units() {
    let Some(_engine) = Engine::turn("systemd_accepts_the_units") else { return };
    let units =
        ["brig.service", "brig.socket"].map(|name| format!("/usr/local/lib/systemd/system/{name}"));
    // The pages are there, but no program to read them.
    let verified = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).args(units));
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert!(!verified.stderr.contains("brig."), "{}", verified.stderr);
}

#[test]
fn a_container_runs_is_executed_in_tells_its_log_and_goes() {
    let Some(_engine) = Engine::turn("a_container_runs") else { return };
    let script = "echo said; hostname; exec sleep 1000";
    let words =
        ["run", "-d", "--name", "web", "--hostname", "inside", "busybox", "sh", "-c", script];
    let _ = brig(&words).success();
    // The shell becomes the program a moment after the container has started.
    eventually("the container's program", || {
        let command = brig(&["exec", "web", "cat", "/proc/1/comm"]).success();
        (command == "sleep").then_some(())
    });
    assert_eq!(brig(&["logs", "web"]).success(), "said\ninside");
    assert!(brig(&["ps"]).success().contains("web"));
    // The container's programs are no more precious than the machine's others, though the daemon is.
    assert_eq!(brig(&["exec", "web", "cat", "/proc/1/oom_score_adj"]).success(), "0");
    assert_eq!(brig(&["exec", "web", "cat", "/proc/self/oom_score_adj"]).success(), "0");
    let _ = brig(&["stop", "-t", "1", "web"]).success();
    assert_eq!(brig(&["inspect", "-f", "{{.State.ExitCode}}", "web"]).success(), "137");
    let _ = brig(&["rm", "web"]).success();
    assert!(!brig(&["ps", "-a"]).success().contains("web"));
}

#[test]
fn a_published_port_answers() {
    let Some(_engine) = Engine::turn("a_published_port_answers") else { return };
    let script = "echo page >/tmp/index.html; exec httpd -f -p 80 -h /tmp";
    let words = ["run", "-d", "-p", "8080:80", "--name", "served", "busybox", "sh", "-c", script];
    let _ = brig(&words).success();
    let page = eventually("the page", || {
        let fetched =
            run(Command::new("busybox").args(["wget", "-q", "-O", "-", "http://127.0.0.1:8080/"]));
        (fetched.code == Some(0)).then_some(fetched.stdout)
    });
    assert_eq!(page, "page\n");
}

#[test]
fn containers_outlive_a_daemon_that_is_killed_and_one_that_is_stopped() {
    let Some(_engine) = Engine::turn("containers_outlive_the_daemon") else { return };
    let script = "i=0; while :; do echo line $i; i=$((i+1)); usleep 20000; done";
    let _ = brig(&["run", "-d", "--name", "writer", "busybox", "sh", "-c", script]).success();
    let before = pid("writer");
    let daemon = || systemctl(&["show", "--value", "-p", "MainPID", "brig.service"]).success();
    let first = daemon();
    let _ = systemctl(&["kill", "--kill-whom=main", "--signal=KILL", "brig.service"]).success();
    // systemd starts it again, or the next call does through the socket.
    eventually("another daemon", || {
        let version = brig(&["version"]);
        (version.code == Some(0) && daemon() != first).then_some(())
    });
    assert_eq!(pid("writer"), before, "the same process was adopted");
    assert_eq!(brig(&["exec", "writer", "echo", "adopted"]).success(), "adopted");

    let _ = systemctl(&["stop", "brig.service"]).success();
    assert!(std::path::Path::new(&format!("/proc/{before}")).exists());
    assert_eq!(pid("writer"), before, "the socket started the daemon again");

    let _ = brig(&["kill", "writer"]).success();
    let log = brig(&["logs", "writer"]).success();
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines.len() > 10, "{log}");
    // The last line may have been cut by the kill.
    for (number, line) in lines.iter().enumerate().take(lines.len() - 1) {
        assert_eq!(*line, format!("line {number}"));
    }
}

#[test]
fn a_clock_that_jumps_ten_years_disturbs_nothing() {
    let Some(_engine) = Engine::turn("a_clock_that_jumps") else { return };
    let check = ["--health-cmd", "echo checked >>/tmp/checks", "--health-interval", "1s"];
    let words = [&["run", "-d", "--name", "steady"][..], &check, &["busybox", "sleep", "1000"]];
    let _ = brig(&words.concat()).success();
    let before = pid("steady");
    let images = brig(&["images", "--quiet", "--no-trunc"]).success();
    // Back where it was in the end.
    for (number, jump) in ["+10 years", "-10 years", "-10 years", "+10 years"].iter().enumerate() {
        let _ = run(Command::new("date").args(["--set", jump])).success();
        let checks = || -> usize {
            brig(&["exec", "steady", "wc", "-l", "/tmp/checks"])
                .success()
                .split(' ')
                .next()
                .and_then(|count| count.parse().ok())
                .unwrap_or_default()
        };
        let sofar = checks();
        eventually("two more checks", || (checks() >= sofar + 2).then_some(()));
        let name = format!("failing-{number}");
        let words = ["run", "-d", "--name", &name, "--restart", "on-failure:2", "busybox", "false"];
        let _ = brig(&words).success();
        eventually("two restarts", || {
            let state = brig(&["inspect", "-f", "{{.RestartCount}} {{.State.Status}}", &name]);
            (state.success() == "2 exited").then_some(())
        });
        assert_eq!(pid("steady"), before);
        assert_eq!(brig(&["images", "--quiet", "--no-trunc"]).success(), images);
    }
    let health = brig(&["inspect", "-f", "{{.State.Health.Status}}", "steady"]).success();
    assert_eq!(health, "healthy");
}
