//! Limits on memory, processors and processes hold.

use support::engine::Engine;

#[test]
fn limits_hold() {
    let Some(engine) = Engine::start("limits") else { return };
    engine.load_busybox();
    let run = ["run", "--name", "big", "--memory", "64m", "busybox", "tail", "/dev/zero"];
    assert_eq!(engine.docker(&run).code, Some(137));
    let state =
        engine.docker(&["inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "big"]);
    assert_eq!(state.success(), "true 137");
    let script = "i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done; echo all";
    let bomb = engine.docker(&["run", "--rm", "--pids-limit", "20", "busybox", "sh", "-c", script]);
    assert!(bomb.code != Some(0) && !bomb.stdout.contains("all"), "{bomb:?}");
}
