//! What survives a brigd that is killed.

use support::engine::Engine;

#[test]
fn containers_outlive_a_brigd_that_is_killed() {
    let Some(mut engine) = Engine::start("crash") else { return };
    engine.load_busybox();
    let script = "i=0; while :; do echo line $i; i=$((i+1)); usleep 1000; done";
    let _ =
        engine.docker(&["run", "-d", "--name", "writer", "busybox", "sh", "-c", script]).success();
    let _ = engine
        .docker(&["run", "-d", "--name", "short", "busybox", "sh", "-c", "sleep 1; exit 5"])
        .success();
    engine.crash_and_restart();
    assert_eq!(engine.docker(&["exec", "writer", "echo", "adopted"]).success(), "adopted");
    assert_eq!(engine.docker(&["wait", "short"]).success(), "5");
    let _ = engine.docker(&["kill", "writer"]).success();
    let log = engine.docker(&["logs", "writer"]).success();
    // The last line may have been cut by the kill.
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines.len() > 10, "{log}");
    for (number, line) in lines.iter().enumerate().take(lines.len() - 1) {
        assert_eq!(*line, format!("line {number}"));
    }
}
