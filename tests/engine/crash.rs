//! What survives a brigd that is killed.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use support::engine::{Background, Engine, eventually};

/// Writes numbered lines, about a thousand a second, until it is told to stop.
const WRITE: &str = "i=0; until [ -e /shared/stop ]; do for n in 0 1 2 3 4 5 6 7 8 9; do echo line $((i+n)); done; \
                     i=$((i+10)); usleep 10000; done";
/// Ends when it is told to, with code 7, but stays the second time.
const LEAVE: &str = "[ -e /shared/left-$0 ] && exec sleep 1000; until [ -e /shared/go ]; do usleep 20000; done; \
                     touch /shared/left-$0; exit 7";
/// Fetches again and again, and says what came of it.
const FETCH: &str = "while :; do curl -sf --max-time 10 http://127.0.0.1:8080/passwd | grep -q '^root:' \
                     && echo good || echo bad; sleep 0.05; done";

/// The names of the ten, with what comes between `run -d` and the image, and what follows the image.
const TEN: [(&str, &[&str], &[&str]); 10] = [
    ("writer", &[], &["sh", "-c", WRITE]),
    ("web", &["-p", "8080:80"], &["httpd", "-f", "-p", "80", "-h", "/etc"]),
    ("leaver", &[], &["sh", "-c", LEAVE, "leaver"]),
    ("again", &["--restart", "on-failure"], &["sh", "-c", LEAVE, "again"]),
    ("terminal", &["-it"], &["sh"]),
    ("paused", &["--network", "none"], &["sleep", "1000"]),
    ("joined", &["--network", "container:web"], &["sleep", "1000"]),
    ("first", &["--network", "ours", "--init"], &["sleep", "1000"]),
    ("second", &["--network", "ours", "--restart", "always"], &["sleep", "1000"]),
    ("small", &["--memory", "64m", "--pids-limit", "20"], &["sleep", "1000"]),
];

/// Starts the ten; their `/shared` is the directory that is returned.
fn start_ten(engine: &Engine) -> std::path::PathBuf {
    let shared = engine.path("shared");
    fs::create_dir(&shared).unwrap();
    let bind = format!("{}:/shared", shared.display());
    let _ = engine.docker(&["network", "create", "ours"]).success();
    for (name, options, command) in TEN {
        let run = ["run", "-d", "--name", name, "-v", &bind];
        let _ = engine.docker(&[&run, options, &["busybox"], command].concat()).success();
    }
    assert_eq!(engine.docker(&["pause", "paused"]).success(), "paused");
    shared
}

/// What must be the same afterwards.
fn identity(engine: &Engine, name: &str) -> String {
    engine.inspect(name, "{{.Id}} {{.State.Pid}} {{.State.StartedAt}} {{.State.Status}}")
}

/// Checks that the lines are numbered without a gap; how many there are.
fn count_lines(output: &str) -> usize {
    let lines: Vec<&str> = output.lines().filter(|line| line.starts_with("line ")).collect();
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("line {number}"), "a line is lost or doubled");
    }
    lines.len()
}

fn count_good(fetches: &Background) -> usize {
    fetches.output().matches("good").count()
}

#[test]
fn ten_containers_outlive_a_brigd_that_is_killed() {
    let Some(mut engine) = Engine::start("crash") else { return };
    engine.load_busybox();
    let shared = start_ten(&engine);
    let fetches = Background::start(engine.host_command(&["sh", "-c", FETCH]));
    eventually("an answer", || (count_good(&fetches) > 0).then_some(()));
    let mut followers = [
        Background::start(engine.docker_command(&["logs", "-f", "writer"])),
        Background::start(engine.brig_command(&["logs", "-f", "writer"])),
    ];
    followers.iter().for_each(|follower| follower.expect("line 1000\n"));
    let before: Vec<String> = TEN.iter().map(|(name, ..)| identity(&engine, name)).collect();
    engine.crash();

    // Nobody waits for brigd: whoever follows is told, the rest goes on.
    for follower in &mut followers {
        let (code, output) = follower.finish();
        assert_ne!(code, Some(0), "a lost daemon is taken for the end of the log");
        assert!(count_lines(&output) > 1000);
    }
    let good = count_good(&fetches);
    eventually("answers without brigd", || (count_good(&fetches) > good + 10).then_some(()));
    fs::write(shared.join("go"), "").unwrap();
    for index in [2, 3] {
        let pid = before[index].split(' ').nth(1).unwrap();
        let process = Path::new("/proc").join(pid);
        eventually("the end of a container", || (!process.exists()).then_some(()));
    }
    engine.restart();

    assert_adopted(&engine, &before);
    assert_exits(&engine);
    let code = finish_log(&engine, &shared);
    assert_eq!(code, Some(0));
    assert_eq!(engine.docker(&["wait", "writer"]).success(), "0");
    fetches.signal(Signal::TERM);
    assert!(!fetches.output().contains("bad"), "the server was away:\n{}", fetches.output());
    let names: Vec<&str> = TEN.iter().map(|(name, ..)| *name).collect();
    let _ = engine.docker(&[&["rm", "-f"], names.as_slice()].concat()).success();
    assert_eq!(engine.docker(&["network", "rm", "ours"]).success(), "ours");
}

/// The containers that did not end are the same ones, and obey.
fn assert_adopted(engine: &Engine, before: &[String]) {
    let listed = engine.docker(&["ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}"]).success();
    for ((name, ..), before) in TEN.iter().zip(before) {
        if matches!(*name, "leaver" | "again") {
            continue;
        }
        assert_eq!(identity(engine, name), *before, "{name}");
        let id = before.split(' ').next().unwrap();
        assert!(listed.contains(&format!("{id} {name}")), "{name} is not in:\n{listed}");
    }
    assert_eq!(engine.docker(&["exec", "writer", "echo", "adopted"]).success(), "adopted");
    let ping = ["exec", "first", "ping", "-c", "1", "-W", "5", "second"];
    let _ = engine.docker(&ping).success();
    let fetch = ["exec", "joined", "wget", "-qO-", "http://127.0.0.1/passwd"];
    assert!(engine.docker(&fetch).success().contains("root:"));
    let status = ["ps", "--filter", "name=paused", "--format", "{{.Status}}"];
    assert!(engine.docker(&status).success().ends_with("(Paused)"));
    assert_eq!(engine.docker(&["unpause", "paused"]).success(), "paused");
    assert!(engine.docker(&["port", "web"]).success().contains("80/tcp -> 0.0.0.0:8080"));
}

/// The ones that ended meanwhile did so with their code, and the policy of one has it run again.
fn assert_exits(engine: &Engine) {
    assert_eq!(engine.docker(&["wait", "leaver"]).success(), "7");
    let state = "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.RestartCount}}";
    assert_eq!(engine.inspect("leaver", state), "exited 7 false 0");
    let finished = engine.inspect("leaver", "{{.State.FinishedAt}}");
    let started = engine.inspect("leaver", "{{.State.StartedAt}}");
    assert!(finished > started, "{started} to {finished}");
    let state = "{{.State.Status}} {{.RestartCount}}";
    eventually("the restart", || (engine.inspect("again", state) == "running 1").then_some(()));
}

/// Follows the log with both clients while the writer comes to its end: all of it, once.
fn finish_log(engine: &Engine, shared: &Path) -> Option<i32> {
    let so_far = count_lines(&engine.docker(&["logs", "writer"]).success());
    let mut followers = [
        Background::start(engine.docker_command(&["logs", "-f", "writer"])),
        Background::start(engine.brig_command(&["logs", "-f", "writer"])),
    ];
    let mut rest = Background::start(engine.docker_command(&["logs", "-f", "-n", "0", "writer"]));
    followers.iter().for_each(|follower| follower.expect(&format!("line {}\n", so_far + 500)));
    rest.expect("line ");
    fs::write(shared.join("stop"), "").unwrap();
    let [docker, brig] = followers.each_mut().map(Background::finish);
    let total = count_lines(&docker.1);
    assert!(total > so_far + 500);
    assert_eq!((count_lines(&brig.1), brig.0), (total, Some(0)));
    assert_eq!(count_lines(&engine.docker(&["logs", "writer"]).success()), total);
    let (code, rest) = rest.finish();
    assert_eq!(rest.lines().last(), docker.1.lines().last());
    assert_eq!(code, docker.0);
    code
}

/// Kills the shims of an engine that is down, and with them their containers, as a power cut would.
fn kill_shims(engine: &Engine) {
    let bundles = engine.path("state").to_string_lossy().into_owned();
    let shims = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes.filter_map(|process| {
            let line = fs::read_to_string(process.path().join("cmdline")).ok()?;
            let ours = line.contains("containerd-shim-brig") && line.contains(&bundles);
            ours.then(|| process.file_name().to_string_lossy().into_owned())
        })
    };
    for pid in shims() {
        let _ = engine.on_host(&["kill", "-9", &pid]);
    }
    eventually("the end of the shims", || (shims().count() == 0).then_some(()));
}

#[test]
fn containers_start_with_the_engine_after_those_they_need() {
    let Some(mut engine) = Engine::start("boot") else { return };
    engine.load_busybox();
    let create = |name: &str, options: &[&str]| {
        let run = ["run", "-d", "--name", name, "--restart", "always"];
        let _ = engine.docker(&[&run, options, &["busybox", "sleep", "1000"]].concat()).success();
    };
    create("base", &["-v", "/data"]);
    create("side", &["--network", "container:base"]);
    create("borrower", &["--volumes-from", "base:ro", "--pid", "container:side"]);
    let mut names = vec!["base".to_owned(), "side".to_owned(), "borrower".to_owned()];
    for number in 0..6 {
        let name = format!("link-{number}");
        create(&name, &["--network", "none", "--pid", &format!("container:{}", names[number + 2])]);
        names.push(name);
    }
    let _ = engine.docker(&["run", "-d", "--name", "still", "busybox", "sleep", "1000"]).success();
    engine.crash();
    kill_shims(&engine);
    engine.restart();
    let state = "{{.State.Status}} {{.RestartCount}}";
    for name in &names {
        // Once each: had one been tried too early, its count would say so.
        eventually(name, || engine.inspect(name, state).starts_with("running").then_some(()));
        assert_eq!(engine.inspect(name, state), "running 1", "{name}: {}", engine.log());
    }
    assert_eq!(engine.inspect("still", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    let links = |name: &str, kind: &str| {
        engine.docker(&["exec", name, "readlink", &format!("/proc/self/ns/{kind}")]).success()
    };
    assert_eq!(links("side", "net"), links("base", "net"));
    assert_eq!(links("link-5", "pid"), links("side", "pid"));
    // Those who share a process namespace must go before its holder.
    for name in names.iter().rev() {
        let _ = engine.docker(&["rm", "-f", name]).success();
    }
}
