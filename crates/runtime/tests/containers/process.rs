//! What a process is given besides its identity: limits, scheduling, memory, processors.

use brig_runtime::ErrorKind;
use serde_json::{Value, json};

use crate::support::{Fixture, exec, shell};

/// Every limit of the specification, with the line of `/proc/self/limits` that shows it.
const LIMITS: [(&str, &str, u64); 16] = [
    ("RLIMIT_AS", "Max address space", 1 << 40),
    ("RLIMIT_CORE", "Max core file size", 4096),
    ("RLIMIT_CPU", "Max cpu time", 1000),
    ("RLIMIT_DATA", "Max data size", 1 << 40),
    ("RLIMIT_FSIZE", "Max file size", 1 << 30),
    ("RLIMIT_LOCKS", "Max file locks", 77),
    ("RLIMIT_MEMLOCK", "Max locked memory", 4096),
    ("RLIMIT_MSGQUEUE", "Max msgqueue size", 4096),
    ("RLIMIT_NICE", "Max nice priority", 0),
    ("RLIMIT_NOFILE", "Max open files", 100),
    ("RLIMIT_NPROC", "Max processes", 500),
    ("RLIMIT_RSS", "Max resident set", 1 << 30),
    ("RLIMIT_RTPRIO", "Max realtime priority", 0),
    ("RLIMIT_RTTIME", "Max realtime timeout", 5_000_000),
    ("RLIMIT_SIGPENDING", "Max pending signals", 50),
    ("RLIMIT_STACK", "Max stack size", 1 << 20),
];

fn limits() -> Value {
    LIMITS
        .iter()
        .map(|(name, _, value)| json!({"type": name, "soft": value, "hard": value}))
        .collect()
}

fn check_limits(text: &str) {
    for (name, line, value) in LIMITS {
        let found = text.lines().find_map(|text| text.strip_prefix(line)).unwrap_or_default();
        let shown: Vec<_> = found.split_whitespace().take(2).collect();
        assert_eq!(shown, [value.to_string(), value.to_string()], "{name}: {found}");
    }
}

#[test]
fn every_rlimit_is_set_for_init_and_for_an_exec() {
    let Some(mut fixture) = Fixture::new("every_rlimit_is_set_for_init_and_for_an_exec") else {
        return;
    };
    fixture.set("/process/rlimits", limits());
    check_limits(&fixture.output("cat /proc/self/limits"));
    fixture.config["process"].as_object_mut().unwrap().remove("rlimits");
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let created = fixture.start();
    let mut process = shell("cat /proc/self/limits");
    process["rlimits"] = limits();
    check_limits(&exec(&created.container, &process).unwrap().stdout);
}

/// Fields 19, 40 and 41 of proc_pid_stat(5): nice, real-time priority and policy.
fn scheduling(stat: &str) -> (i32, i32, i32) {
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let field = |number: usize| rest.split_whitespace().nth(number - 3).unwrap().parse().unwrap();
    (field(19), field(40), field(41))
}

#[test]
fn scheduler_policies_and_flags_are_applied() {
    let Some(mut fixture) = Fixture::new("scheduler_policies_and_flags_are_applied") else {
        return;
    };
    for (scheduler, wanted) in [
        (json!({"policy": "SCHED_OTHER", "nice": 7}), (7, 0, 0)),
        (json!({"policy": "SCHED_BATCH", "nice": 5}), (5, 0, 3)),
        (json!({"policy": "SCHED_IDLE"}), (0, 0, 5)),
        (
            json!({"policy": "SCHED_OTHER", "nice": -5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            (-5, 0, 0),
        ),
    ] {
        fixture.set("/process/scheduler", scheduler.clone());
        fixture.set("/process/args", json!(["cat", "/proc/self/stat"]));
        let output = fixture.run().unwrap();
        assert_eq!(scheduling(&output.stdout), wanted, "{scheduler}");
    }
    // The flag takes a raised priority away at the first fork.
    let output = fixture.output("cat /proc/self/stat; true");
    assert_eq!(scheduling(&output), (0, 0, 0));
}

/// A cgroup of a v1 cpu controller has no real-time budget of its own until it is given one.
#[test]
fn real_time_schedulers_are_applied_with_a_budget() {
    let Some(mut fixture) = Fixture::new("real_time_schedulers_are_applied_with_a_budget") else {
        return;
    };
    let legacy = std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists();
    if legacy {
        fixture.set("/linux/resources", json!({"cpu": {"realtimeRuntime": 1000}}));
    }
    fixture.set("/process/scheduler", json!({"policy": "SCHED_RR", "priority": 3}));
    fixture.set("/process/args", json!(["cat", "/proc/self/stat"]));
    match fixture.run() {
        Ok(output) => {
            let (_, priority, policy) = scheduling(&output.stdout);
            assert_eq!((priority, policy), (3, 2));
        }
        Err(error) => {
            eprintln!("SKIPPED real_time_schedulers_are_applied_with_a_budget: {}", error.chain());
        }
    }
}

#[test]
fn a_deadline_is_applied_or_refused_with_its_name() {
    let Some(mut fixture) = Fixture::new("a_deadline_is_applied_or_refused_with_its_name") else {
        return;
    };
    let deadline = json!({
        "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000,
        "period": 20_000_000, "flags": ["SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN"]
    });
    fixture.set("/process/scheduler", deadline);
    fixture.set("/process/args", json!(["cat", "/proc/self/stat"]));
    match fixture.run() {
        Ok(output) => assert_eq!(scheduling(&output.stdout).2, 6),
        // The kernel admits deadlines only where no cpuset divides the processors.
        Err(error) => assert!(error.chain().contains("set the scheduler"), "{}", error.chain()),
    }
}

#[test]
fn io_priority_is_applied_to_init_and_exec() {
    let Some(mut fixture) = Fixture::new("io_priority_is_applied_to_init_and_exec") else { return };
    let priority = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
    fixture.set("/process/ioPriority", priority.clone());
    assert_eq!(fixture.output("ionice"), "best-effort: prio 6\n");
    fixture.set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0}));
    assert_eq!(fixture.output("ionice"), "idle\n");
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let created = fixture.start();
    let mut process = shell("ionice");
    process["ioPriority"] = priority;
    assert_eq!(exec(&created.container, &process).unwrap().stdout, "best-effort: prio 6\n");
}

#[test]
fn the_personality_decides_the_machine() {
    let Some(mut fixture) = Fixture::new("the_personality_decides_the_machine") else { return };
    fixture.set("/linux/personality", json!({"domain": "LINUX32"}));
    assert_eq!(fixture.output("cat /proc/self/personality"), "00000008\n");
    fixture.set("/linux/personality", json!({"domain": "LINUX"}));
    assert_eq!(fixture.output("cat /proc/self/personality"), "00000000\n");
    fixture.set("/linux/personality/flags", json!(["ADDR_NO_RANDOMIZE"]));
    let error = fixture.run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.chain().contains("linux.personality.flags"), "{}", error.chain());
}

#[test]
fn memory_comes_from_the_nodes_of_the_policy() {
    let Some(mut fixture) = Fixture::new("memory_comes_from_the_nodes_of_the_policy") else {
        return;
    };
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        eprintln!("SKIPPED memory_comes_from_the_nodes_of_the_policy: a kernel without NUMA");
        return;
    }
    fixture.set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0"}));
    fixture.set("/process/args", json!(["cat", "/proc/self/numa_maps"]));
    let output = fixture.run().unwrap();
    assert!(output.stdout.contains(" bind:0 "), "{output:?}");
    fixture.set(
        "/linux/memoryPolicy",
        json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
    );
    let output = fixture.run().unwrap();
    assert!(output.stdout.contains(" interleave=static:0 "), "{output:?}");
    fixture.set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "1000"}));
    let error = fixture.run().unwrap_err().chain();
    assert!(error.contains("set the memory policy"), "{error}");
}

#[test]
fn an_exec_runs_on_its_processors() {
    let Some(mut fixture) = Fixture::new("an_exec_runs_on_its_processors") else { return };
    fixture.set("/process/execCPUAffinity", json!({"initial": "0", "final": "0"}));
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let created = fixture.start();
    let allowed = "grep Cpus_allowed_list /proc/self/status";
    let output = exec(&created.container, &shell(allowed)).unwrap();
    assert_eq!(output.stdout, "Cpus_allowed_list:\t0\n", "the container's is the default");
    let mut process = shell(allowed);
    process["execCPUAffinity"] = json!({"initial": "0"});
    assert_eq!(exec(&created.container, &process).unwrap().stdout, "Cpus_allowed_list:\t0\n");
    let processors = std::thread::available_parallelism().unwrap().get();
    if processors > 1 {
        process["execCPUAffinity"] = json!({"initial": "0", "final": "1"});
        assert_eq!(exec(&created.container, &process).unwrap().stdout, "Cpus_allowed_list:\t1\n");
    }
    // Init itself is not meant.
    let status = std::fs::read_to_string(format!("/proc/{}/status", created.pid)).unwrap();
    assert!(processors == 1 || !status.contains("Cpus_allowed_list:\t0\n"), "{status}");
}
