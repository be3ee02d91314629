//! `cp` both ways, `diff` and `export`.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use support::engine::Engine;

use super::refused;

#[test]
fn files_are_copied_both_ways() {
    let Some(engine) = Engine::start("cli-cp") else { return };
    engine.load_busybox();
    let _ = engine.docker(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).success();
    let tree = engine.path("tree");
    fs::create_dir_all(tree.join("inner")).unwrap();
    fs::write(tree.join("inner/file"), "content").unwrap();
    std::os::unix::fs::symlink("inner/file", tree.join("link")).unwrap();
    let from = tree.to_string_lossy().into_owned();
    let inside = |script: &str| engine.docker(&["exec", "box", "sh", "-c", script]).success();

    // A directory to a new name, to a directory that is there, and its content alone.
    for (source, target) in [("", "box:/new"), ("", "box:/tmp"), ("/.", "box:/etc")] {
        let _ = engine.docker(&["cp", &format!("{from}{source}"), target]).success();
    }
    for path in ["/new", "/tmp/tree", "/etc"] {
        assert_eq!(
            inside(&format!("cat {path}/inner/file; readlink {path}/link")),
            "contentinner/file"
        );
    }
    let _ = engine.docker(&["cp", &format!("{from}/inner/file"), "box:/tmp/renamed"]).success();
    assert_eq!(inside("cat /tmp/renamed; stat -c %u:%g /tmp/renamed"), "content0:0");
    let _ = engine.docker(&["cp", "-L", &format!("{from}/link"), "box:/tmp/followed"]).success();
    assert_eq!(inside("cat /tmp/followed; [ -L /tmp/followed ] || echo plain"), "contentplain");

    let _ = inside("chmod 640 /tmp/renamed; ln -s /etc/passwd /tmp/passwd");
    let back = engine.path("back").to_string_lossy().into_owned();
    let _ = engine.docker(&["cp", "box:/tmp", &back]).success();
    assert_eq!(fs::read_to_string(engine.path("back/tree/inner/file")).unwrap(), "content");
    let link = fs::read_link(engine.path("back/passwd")).unwrap();
    assert_eq!(link.to_str(), Some("/etc/passwd"));
    let _ = engine.docker(&["cp", "-L", "box:/tmp/passwd", &format!("{back}/followed")]).success();
    assert!(fs::read_to_string(engine.path("back/followed")).unwrap().starts_with("root:"));

    // Archives by pipe, both ways.
    let stream = Command::new("sh")
        .args(["-c", "docker cp box:/tmp/renamed - | tar tv"])
        .envs(
            engine.docker_command(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))),
        )
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&stream.stdout).into_owned();
    assert!(listed.starts_with("-rw-r-----") && listed.trim().ends_with("renamed"), "{listed}");
    let _ = inside("mkdir /opt");
    let archive = Command::new("tar").args(["c", "-C", &from, "."]).output().unwrap().stdout;
    let mut put = engine.docker_command(&["cp", "-", "box:/opt"]);
    let mut put = put.stdin(Stdio::piped()).spawn().unwrap();
    put.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(put.wait().unwrap().success());
    assert_eq!(inside("cat /opt/inner/file"), "content");

    refused(
        &engine.docker(&["cp", "box:/absent", &back]),
        1,
        &["Could not find the file /absent in container box"],
    );
    refused(
        &engine.docker(&["cp", &from, "box:/no/such/place"]),
        1,
        &["Could not find the file /no/such in container box"],
    );
    refused(&engine.docker(&["cp", &from, "box:/etc/passwd"]), 1, &["cannot copy directory"]);
    refused(&engine.docker(&["cp", "absent:/etc", &back]), 1, &["o such container: absent"]);
    // A stopped container is copied from and to like a running one.
    let _ = engine.docker(&["stop", "-t", "0", "box"]).success();
    let _ = engine.docker(&["cp", "box:/tmp/renamed", &format!("{back}/stopped")]).success();
    assert_eq!(fs::read_to_string(engine.path("back/stopped")).unwrap(), "content");
}

#[test]
fn changes_are_listed_and_the_tree_is_exported() {
    let Some(engine) = Engine::start("cli-diff") else { return };
    engine.load_busybox();
    let script = "echo x > /etc/new; rm /etc/group; echo y >> /etc/passwd";
    let _ = engine.docker(&["run", "--name", "box", "busybox", "sh", "-c", script]).success();
    let diff = engine.docker(&["diff", "box"]).success();
    let mut lines: Vec<&str> = diff.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A /etc/new", "C /etc", "C /etc/passwd", "D /etc/group"]);
    let file = engine.path("export.tar").to_string_lossy().into_owned();
    assert_eq!(engine.docker(&["export", "-o", &file, "box"]).success(), "");
    let listed = Command::new("tar").args(["tf", &file]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.lines().any(|line| line.ends_with("etc/new")), "{listed}");
    assert!(!listed.contains("etc/group"), "{listed}");
}
