//! Limits on memory, processors and processes hold.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::PathBuf;

use support::engine::{Engine, eventually};

#[test]
fn who_takes_more_memory_than_allowed_is_killed() {
    let Some(engine) = Engine::start("memory") else { return };
    engine.load_busybox();
    let run = ["run", "--name", "big", "--memory", "64m", "busybox", "tail", "/dev/zero"];
    for (client, outcome) in ["docker", "brig"].into_iter().zip(engine.both(&run)) {
        // The name is taken for the second one, which is what it says.
        let expected = if client == "docker" { 137 } else { 125 };
        assert_eq!(outcome.code, Some(expected), "{client}: {outcome:?}");
    }
    assert_eq!(engine.inspect("big", "{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
    assert_eq!(engine.inspect("big", "{{.HostConfig.Memory}}"), (64 << 20).to_string());
}

/// What the kernel counts for a container's cgroup.
#[derive(Debug, Clone, Copy)]
struct Processor {
    /// Processor time taken, in nanoseconds.
    usage_ns: u64,
    /// Enforcement periods (of 100 ms) in which it ran.
    periods: u64,
    /// Those in which it used up its share and had to wait.
    throttled: u64,
}

fn processor(engine: &Engine, container: &str) -> Processor {
    let pid = engine.inspect(container, "{{.State.Pid}}");
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let directory = |controller: &str| {
        groups.lines().find_map(|line| {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            let wanted = names.split(',').any(|name| name == controller);
            let mount = if names.is_empty() { "" } else { controller };
            wanted.then(|| PathBuf::from(format!("/sys/fs/cgroup/{mount}{path}")))
        })
    };
    let read = |directory: PathBuf, file: &str| fs::read_to_string(directory.join(file)).unwrap();
    let number = |text: &str, name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} in {text}")).parse::<u64>().unwrap()
    };
    let (stat, usage_ns) = match (directory("cpu"), directory("cpuacct")) {
        (Some(cpu), Some(accounting)) => {
            let usage = read(accounting, "cpuacct.usage").trim().parse().unwrap();
            (read(cpu, "cpu.stat"), usage)
        }
        _ => {
            let stat = read(directory("").expect("a unified hierarchy"), "cpu.stat");
            let usage = number(&stat, "usage_usec") * 1000;
            (stat, usage)
        }
    };
    let (periods, throttled) = (number(&stat, "nr_periods"), number(&stat, "nr_throttled"));
    Processor { usage_ns, periods, throttled }
}

#[test]
fn half_a_processor_is_half_a_processor() {
    let Some(engine) = Engine::start("cpus") else { return };
    engine.load_busybox();
    let burn = ["run", "-d", "--name", "burn", "--cpus", "0.5", "busybox", "sh", "-c"];
    let _ = engine.docker(&[&burn[..], &["while :; do :; done"]].concat()).success();
    let before = processor(&engine, "burn");
    let after = eventually("twenty periods at the limit", || {
        let now = processor(&engine, "burn");
        (now.throttled >= before.throttled + 20).then_some(now)
    });
    // Of the kernel's own periods rather than of time, since a busy machine may give it less.
    let took = (after.usage_ns - before.usage_ns) as f64 / 1e8;
    let most = took / (after.periods - before.periods) as f64;
    let least = took / (after.throttled - before.throttled) as f64;
    assert!(most <= 0.65 && least >= 0.35, "{most} to {least} of a processor");
    let stats = ["stats", "--no-stream", "--format", "{{.CPUPerc}}", "burn"];
    for stats in engine.both(&stats) {
        let percent: f64 = stats.success().trim_end_matches('%').parse().unwrap();
        assert!(percent > 0.0 && percent <= 75.0, "stats shows {percent} %");
    }
    // It was the limit that held it: with a wider one it does not wait any more.
    let _ = engine.docker(&["update", "--cpus", "2", "burn"]).success();
    let before = processor(&engine, "burn");
    let after = eventually("half a second of processor time", || {
        let now = processor(&engine, "burn");
        (now.usage_ns >= before.usage_ns + 500_000_000).then_some(now)
    });
    assert!(after.throttled <= before.throttled + 1, "{before:?} {after:?}");
}

#[test]
fn a_fork_bomb_stays_within_its_number_of_processes() {
    let Some(engine) = Engine::start("pids") else { return };
    engine.load_busybox();
    // The classic, and every process of it stays.
    let bomb = "bomb() { bomb | bomb & }; bomb; while :; do sleep 1; done";
    let run = ["run", "-d", "--name", "bomb", "--pids-limit", "40", "busybox", "sh", "-c", bomb];
    let _ = engine.docker(&run).success();
    let refused = eventually("the limit to be hit", || {
        let log = engine.docker(&["logs", "bomb"]);
        log.stderr.contains("fork").then_some(log.stderr)
    });
    assert!(refused.contains("Resource temporarily unavailable"), "{refused}");
    let pids = engine.docker(&["stats", "--no-stream", "--format", "{{.PIDs}}", "bomb"]).success();
    assert!(pids.parse::<u32>().unwrap() <= 40, "{pids}");
    // The engine, and everybody else, goes on.
    assert_eq!(engine.docker(&["run", "--rm", "busybox", "echo", "hi"]).success(), "hi");
    let _ = engine.docker(&["kill", "bomb"]).success();
    assert_eq!(engine.docker(&["wait", "bomb"]).success(), "137");
}
