//! Cgroups with real processes, in the three arrangements of hierarchies that this host can show.
//!
//! Hybrid is the host's own. Pure v1 and pure v2 are made in a thread with a private mount namespace, by unmounting the
//! other version; a pure v2 made so has only the controllers that no v1 hierarchy holds, which is enough for everything
//! about processes and for devices. Needs root.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and skips aloud"
)]

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use brig_runtime::cgroup::{Cgroup, FreezerState, Hierarchies, Mode};
use brig_runtime::error::ErrorKind;
use oci_spec::runtime::LinuxResources;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;

const PATIENCE: Duration = Duration::from_secs(20);
const ROOT: &str = "/sys/fs/cgroup";

/// Runs `body` where the host shows only hierarchies of `mode`, or says that it cannot.
fn in_mode(mode: Mode, name: &'static str, body: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED {name}: needs root");
        return;
    }
    let host = Hierarchies::detect().unwrap();
    let possible = match mode {
        Mode::Hybrid | Mode::V1 => host.mode() == Mode::Hybrid || host.mode() == mode,
        Mode::V2 => true,
    };
    if !possible {
        eprintln!("SKIPPED {name}: this host is {:?}, not {mode:?}", host.mode());
        return;
    }
    let body = move || {
        if host.mode() != mode {
            make_mode(mode);
        }
        assert_eq!(Hierarchies::detect().unwrap().mode(), mode);
        body();
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

#[expect(unsafe_code, reason = "rustix marks unshare unsafe for flags that share file descriptors")]
fn make_mode(mode: Mode) {
    // SAFETY: this thread gets its own mount namespace and working directory; descriptors stay shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    rustix::mount::mount_change("/", private).unwrap();
    match mode {
        Mode::V1 => {
            rustix::mount::unmount(format!("{ROOT}/unified"), UnmountFlags::DETACH).unwrap();
        }
        Mode::V2 => {
            rustix::mount::unmount(ROOT, UnmountFlags::DETACH).unwrap();
            rustix::mount::mount("none", ROOT, "cgroup2", MountFlags::empty(), None).unwrap();
        }
        Mode::Hybrid => {}
    }
}

fn resources(json: serde_json::Value) -> LinuxResources {
    serde_json::from_value(json).unwrap()
}

/// A cgroup that is killed and removed when the test ends.
struct Fixture {
    cgroup: Cgroup,
    directories: Vec<PathBuf>,
}

impl Fixture {
    fn new(name: &str, limits: serde_json::Value) -> Self {
        Self::try_new(name, limits).unwrap()
    }

    fn try_new(name: &str, limits: serde_json::Value) -> brig_runtime::error::Result<Self> {
        let path = PathBuf::from(format!("/brig-test-{name}-{}", std::process::id()));
        let placement = Hierarchies::detect()?.placement(Some(&path), "unused")?;
        let directories = placement.directories().map(|(_, path)| path).collect();
        Ok(Self { cgroup: Cgroup::create(&placement, &resources(limits))?, directories })
    }

    fn file(&self, name: &str) -> String {
        let path = self.directories.iter().map(|path| path.join(name)).find(|path| path.exists());
        std::fs::read_to_string(path.unwrap()).unwrap().trim().to_owned()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.cgroup.kill_all().unwrap();
        assert!(self.cgroup.wait_empty(PATIENCE).unwrap());
        self.cgroup.remove().unwrap();
        for directory in &self.directories {
            assert!(!directory.exists(), "{} is left", directory.display());
        }
    }
}

/// A shell script that starts once it is in the cgroup.
struct Script {
    child: Child,
    gate: Option<ChildStdin>,
}

impl Script {
    fn in_cgroup(cgroup: &Cgroup, script: &str) -> Self {
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("read _ || exit 99; {script}")])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        cgroup.prepare_join().unwrap().all(pid).unwrap();
        let mut gate = child.stdin.take().unwrap();
        gate.write_all(b"\n").unwrap();
        Self { child, gate: Some(gate) }
    }

    fn end(mut self) -> ExitStatus {
        drop(self.gate.take());
        self.child.wait().unwrap()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Looks again until the condition holds: the kernel's counters tell no one when they change.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        thread::yield_now();
    }
}

#[test]
fn a_process_that_takes_too_much_memory_is_killed_and_reported() {
    in_mode(Mode::Hybrid, "memory", || {
        let limit = 32 << 20;
        let fixture = Fixture::new(
            "memory",
            serde_json::json!({"memory": {"limit": limit, "swap": limit, "reservation": limit / 2}}),
        );
        assert_eq!(fixture.file("memory.limit_in_bytes"), limit.to_string());
        let watch = fixture.cgroup.oom_watch().unwrap();
        assert!(!fixture.cgroup.oom_killed().unwrap());
        let status = Script::in_cgroup(&fixture.cgroup, "exec tail /dev/zero").end();
        assert_eq!(status.signal(), Some(9), "{status:?}");
        let timeout = PATIENCE.try_into().unwrap();
        assert_eq!(poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&timeout)), Ok(1));
        watch.acknowledge().unwrap();
        assert!(fixture.cgroup.oom_killed().unwrap());
        let memory = fixture.cgroup.stats().unwrap().memory.unwrap();
        assert_eq!(memory.limit_bytes, Some(limit));
        assert!(memory.oom_kills >= 1);
        assert!(memory.max_usage_bytes.unwrap() <= limit && memory.stat.contains_key("cache"));
    });
}

#[test]
fn memory_and_swap_limits_go_up_and_down_in_one_step() {
    in_mode(Mode::Hybrid, "memory update", || {
        let both =
            |limit: i64, swap: i64| serde_json::json!({"memory": {"limit": limit, "swap": swap}});
        let fixture = Fixture::new("update", both(64 << 20, 64 << 20));
        for (limit, swap) in [(128 << 20, 256 << 20), (32 << 20, 48 << 20), (1 << 30, -1)] {
            fixture.cgroup.set(&resources(both(limit, swap))).unwrap();
            assert_eq!(fixture.file("memory.limit_in_bytes"), limit.to_string());
            if swap > 0 {
                assert_eq!(fixture.file("memory.memsw.limit_in_bytes"), swap.to_string());
            }
        }
        let lifted = serde_json::json!({"memory": {"limit": -1}});
        fixture.cgroup.set(&resources(lifted)).unwrap();
        assert_eq!(fixture.cgroup.stats().unwrap().memory.unwrap().limit_bytes, None);
        let error = fixture.cgroup.set(&resources(both(64 << 20, 32 << 20))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let warned = serde_json::json!({"memory": {"kernel": 1 << 20}});
        assert_eq!(fixture.cgroup.set(&resources(warned)).unwrap().len(), 1);
    });
}

#[test]
fn a_limit_below_use_is_refused_when_asked_to_check() {
    in_mode(Mode::Hybrid, "checkBeforeUpdate", || {
        let fixture = Fixture::new("check", serde_json::json!({}));
        let keeper = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo ready > /dev/null; read _";
        let script = Script::in_cgroup(&fixture.cgroup, keeper);
        let used = || fixture.cgroup.stats().unwrap().memory.unwrap().usage_bytes > 20_000_000;
        eventually("the shell holds 20 MB", used);
        let limit = serde_json::json!({"memory": {"limit": 8 << 20, "checkBeforeUpdate": true}});
        let error = fixture.cgroup.set(&resources(limit)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        drop(script);
    });
}

#[test]
fn a_quota_holds_back_a_busy_process() {
    in_mode(Mode::Hybrid, "cpu", || {
        let fixture = Fixture::new(
            "cpu",
            serde_json::json!({"cpu": {"quota": 5_000, "period": 100_000, "shares": 2048, "burst": 2_000}}),
        );
        assert_eq!(fixture.file("cpu.cfs_quota_us"), "5000");
        assert_eq!(fixture.file("cpu.cfs_burst_us"), "2000");
        let script = Script::in_cgroup(&fixture.cgroup, "while :; do :; done");
        let cpu = || fixture.cgroup.stats().unwrap().cpu.unwrap();
        eventually("some periods pass", || cpu().periods >= 2);
        let (begin, before) = (Instant::now(), cpu());
        eventually("ten periods pass", || cpu().periods >= before.periods + 10);
        let (elapsed, after) = (begin.elapsed(), cpu());
        let used = Duration::from_nanos(after.usage_nanoseconds - before.usage_nanoseconds);
        // A twentieth of one CPU and what was saved up; a machine under load may give less.
        assert!(used <= elapsed.mul_f64(0.1), "{used:?} of {elapsed:?}");
        assert!(after.throttled_periods > before.throttled_periods);
        assert!(!after.per_cpu_nanoseconds.is_empty());
        let half = serde_json::json!({"cpu": {"quota": 4_000, "burst": 0, "idle": 1}});
        fixture.cgroup.set(&resources(half)).unwrap();
        assert_eq!(fixture.file("cpu.cfs_quota_us"), "4000");
        assert_eq!(fixture.file("cpu.idle"), "1");
        drop(script);
    });
}

#[test]
fn cpusets_start_with_the_parents_and_can_be_narrowed() {
    in_mode(Mode::Hybrid, "cpuset", || {
        let fixture = Fixture::new("cpuset", serde_json::json!({"cpu": {"cpus": "0"}}));
        assert_eq!(fixture.file("cpuset.cpus"), "0");
        let mems = std::fs::read_to_string(format!("{ROOT}/cpuset/cpuset.mems")).unwrap();
        assert_eq!(fixture.file("cpuset.mems"), mems.trim());
        let error = Fixture::try_new("cpuset2", serde_json::json!({"cpu": {"cpus": "nine"}}));
        let error = error.map(|_| ()).unwrap_err();
        assert!(
            error.to_string().contains("write `nine` to")
                && error.to_string().contains("cpuset.cpus")
        );
        for hierarchy in ["cpuset", "cpu", "unified"] {
            let path = format!("{ROOT}/{hierarchy}/brig-test-cpuset2-{}", std::process::id());
            assert!(!Path::new(&path).exists(), "{path} is left");
        }
    });
}

#[test]
fn a_fork_bomb_stays_within_its_number_of_tasks() {
    in_mode(Mode::Hybrid, "pids", || {
        let fixture = Fixture::new("pids", serde_json::json!({"pids": {"limit": 8}}));
        let bomb = "bomb() { bomb | bomb & }; bomb; while :; do sleep 1000 || exit 3; done";
        let script = Script::in_cgroup(&fixture.cgroup, bomb);
        let events = || fixture.file("pids.events") != "max 0";
        eventually("the limit is hit", events);
        let pids = fixture.cgroup.stats().unwrap().pids.unwrap();
        assert!(pids.current <= 8 && pids.limit == Some(8), "{pids:?}");
        fixture.cgroup.kill_all().unwrap();
        assert!(fixture.cgroup.wait_empty(PATIENCE).unwrap());
        drop(script);
    });
}

#[test]
fn block_devices_can_be_throttled() {
    in_mode(Mode::Hybrid, "blkio", || {
        let device = rustix::fs::stat("/").unwrap().st_dev;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let throttle = |rate: u64| {
            let rate = serde_json::json!([{"major": major, "minor": minor, "rate": rate}]);
            serde_json::json!({"blockIO": {"weight": 500, "throttleWriteBpsDevice": rate}})
        };
        let fixture = match Fixture::try_new("blkio", throttle(1 << 20)) {
            Ok(fixture) => fixture,
            Err(error) => {
                // The root filesystem may not be on a block device of its own.
                assert!(error.to_string().contains("blkio.throttle.write_bps_device"), "{error}");
                eprintln!("SKIPPED block_devices_can_be_throttled: / is on no throttled device");
                return;
            }
        };
        assert_eq!(fixture.file("blkio.bfq.weight"), "500");
        let line = format!("{major}:{minor} 1048576");
        assert_eq!(fixture.file("blkio.throttle.write_bps_device"), line);
        fixture.cgroup.set(&resources(throttle(0))).unwrap();
        assert_eq!(fixture.file("blkio.throttle.write_bps_device"), "");
    });
}

#[test]
fn huge_pages_are_limited_where_their_controller_is() {
    in_mode(Mode::Hybrid, "hugetlb", || {
        let limit = serde_json::json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]});
        let fixture = match Fixture::try_new("hugetlb", limit) {
            Ok(fixture) => fixture,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                eprintln!(
                    "SKIPPED huge_pages_are_limited_where_their_controller_is: no controller"
                );
                return;
            }
        };
        assert_eq!(fixture.file("hugetlb.2MB.max"), (4 << 20).to_string());
        assert_eq!(fixture.cgroup.stats().unwrap().hugetlb["2MB"].usage_bytes, 0);
    });
}

/// Opening a device that no default rule allows, before and after an update that allows it.
fn check_devices(name: &str) {
    let deny = serde_json::json!({"devices": [{"allow": false, "access": "rwm"}]});
    let fixture = Fixture::new(name, deny);
    let device = rustix::fs::stat("/dev/fuse").unwrap().st_rdev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let run = |script: &str| Script::in_cgroup(&fixture.cgroup, script).end().success();
    assert!(run(": < /dev/null && : > /dev/zero"), "default devices are allowed");
    assert!(!run(": < /dev/fuse"), "other devices are denied");
    let allow = |access: &str| {
        resources(serde_json::json!({"devices": [{"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": major, "minor": minor, "access": access}]}))
    };
    fixture.cgroup.set(&allow("r")).unwrap();
    assert!(run(": < /dev/fuse") && !run(": <> /dev/fuse"), "only reading is allowed");
    fixture.cgroup.set(&allow("rw")).unwrap();
    assert!(run(": <> /dev/fuse"), "reading and writing are allowed");
    fixture.cgroup.set(&resources(serde_json::json!({"pids": null}))).unwrap();
    assert!(run(": < /dev/fuse"), "an update without devices keeps them");
    fixture.cgroup.set(&resources(serde_json::json!({"devices": []}))).unwrap();
    assert!(!run(": < /dev/fuse"), "the rules are taken back");
}

#[test]
fn devices_follow_v1_lists() {
    in_mode(Mode::Hybrid, "devices v1", || check_devices("devices1"));
}

#[test]
fn devices_follow_an_ebpf_program() {
    in_mode(Mode::V2, "devices v2", || check_devices("devices2"));
}

/// Freezing, thawing, killing and removal, nested cgroups included.
fn check_processes(name: &str) {
    let fixture = Fixture::new(name, serde_json::json!({}));
    let cgroup = &fixture.cgroup;
    let script = Script::in_cgroup(cgroup, "sleep 1000 & sleep 1000 & while :; do :; done");
    eventually("three processes run", || cgroup.procs().unwrap().len() == 3);
    assert_eq!(cgroup.freezer_state().unwrap(), FreezerState::Thawed);
    cgroup.freeze().unwrap();
    assert_eq!(cgroup.freezer_state().unwrap(), FreezerState::Frozen);
    let usage = || cgroup.stats().unwrap().cpu.unwrap().usage_nanoseconds;
    // A task that is stopped mid-tick is accounted when the kernel next looks.
    let mut last = usage();
    eventually("the clock of frozen processes stands", || {
        thread::sleep(Duration::from_millis(20));
        last == std::mem::replace(&mut last, usage())
    });
    cgroup.thaw().unwrap();
    assert_eq!(cgroup.freezer_state().unwrap(), FreezerState::Thawed);
    eventually("they run again", || usage() > last);

    let reopened = Cgroup::open(cgroup.placement()).unwrap();
    assert_eq!(reopened.procs().unwrap(), cgroup.procs().unwrap());
    let occupied = Cgroup::create(cgroup.placement(), &LinuxResources::default()).unwrap_err();
    assert_eq!(occupied.kind(), ErrorKind::Conflict);
    assert_eq!(cgroup.procs().unwrap().len(), 3, "the failed attempt removed nothing");

    for directory in &fixture.directories {
        std::fs::create_dir_all(directory.join("inner/most")).unwrap();
    }
    assert!(!cgroup.wait_empty(Duration::ZERO).unwrap());
    cgroup.freeze().unwrap();
    cgroup.kill_all().unwrap();
    assert!(cgroup.wait_empty(PATIENCE).unwrap(), "frozen processes die too");
    assert_eq!(script.end().signal(), Some(9));
}

#[test]
fn processes_are_frozen_and_killed_on_hybrid() {
    in_mode(Mode::Hybrid, "processes hybrid", || check_processes("hybrid"));
}

#[test]
fn processes_are_frozen_and_killed_on_v1() {
    in_mode(Mode::V1, "processes v1", || check_processes("v1"));
}

#[test]
fn processes_are_frozen_and_killed_on_v2() {
    in_mode(Mode::V2, "processes v2", || check_processes("v2"));
}

#[test]
fn signals_reach_every_process() {
    in_mode(Mode::Hybrid, "signals", || {
        let fixture = Fixture::new("signals", serde_json::json!({}));
        let script = Script::in_cgroup(&fixture.cgroup, "sleep 1000 & exec sleep 1000");
        let two = || fixture.cgroup.procs().unwrap().len() == 2;
        eventually("both processes run", two);
        fixture.cgroup.signal_all(Signal::USR1).unwrap();
        assert!(fixture.cgroup.wait_empty(PATIENCE).unwrap());
        assert_eq!(script.end().signal(), Some(10));
    });
}

#[test]
fn missing_controllers_are_named() {
    in_mode(Mode::V2, "missing controllers", || {
        let limits = [
            (serde_json::json!({"memory": {"limit": 1 << 20}}), "memory"),
            (serde_json::json!({"pids": {"limit": 5}}), "pids"),
            (serde_json::json!({"cpu": {"shares": 5}}), "cpu"),
            (serde_json::json!({"unified": {"memory.high": "5"}}), "memory"),
        ];
        for (limit, controller) in limits {
            let error = Fixture::try_new("missing", limit).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().contains(controller), "{error}");
        }
        let path = format!("{ROOT}/brig-test-missing-{}", std::process::id());
        assert!(!Path::new(&path).exists(), "a refused cgroup is removed");
    });
}

#[test]
fn unified_files_are_written_by_name_and_only_there() {
    in_mode(Mode::V2, "unified", || {
        let fixture =
            Fixture::new("unified", serde_json::json!({"unified": {"cgroup.max.depth": "3"}}));
        assert_eq!(fixture.file("cgroup.max.depth"), "3");
        for key in ["../cgroup.max.depth", "cgroup.max.depth/x", "memory", ""] {
            let map = serde_json::json!({"unified": {key: "1"}});
            let error = fixture.cgroup.set(&resources(map)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{key}: {error}");
        }
    });
    in_mode(Mode::V1, "unified v1", || {
        let map = serde_json::json!({"unified": {"cgroup.max.depth": "3"}});
        let error = Fixture::try_new("unified1", map).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    });
}
