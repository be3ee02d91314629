//! The installed engine: its units, and a container whose published port answers.

use std::process::Command;

use support::engine::eventually;

use crate::guest::{Engine, brig, run};

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
