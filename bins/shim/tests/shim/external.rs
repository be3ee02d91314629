//! Other runtime programs below the shim: Debian's runc, and our own by its command line.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use brig_shim_protocol::metrics::{v1, v2};
use brig_shim_protocol::task::{self, method};
use brig_shim_protocol::types::{Empty, Status};
use serde_json::json;

use crate::support::{
    SHIM, Setup, Shim, eventually, is_alive, joined, log_entries, read_frames, read_until,
    run_shim, signal, skip,
};

/// The programs there are; one that is missing is told as skipped.
fn programs(test: &str) -> Vec<PathBuf> {
    if skip(test) {
        return Vec::new();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut runc = std::env::split_paths(&path).map(|directory| directory.join("runc"));
    let built = std::env::var_os("BRIG_TEST_PROGRAMS").map_or_else(
        || Path::new(SHIM).parent().unwrap().to_owned(),
        |directory| std::path::absolute(directory).unwrap(),
    );
    let wanted = [
        runc.find(|path| path.is_file()),
        Some(built.join("brig-runtime")).filter(|path| path.is_file()),
    ];
    for (name, program) in ["runc", "brig-runtime"].into_iter().zip(&wanted) {
        if program.is_none() {
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {name} is not there");
        }
    }
    wanted.into_iter().flatten().collect()
}

fn cgroups_of(id: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = mounts.lines().filter(|line| line.contains(" - cgroup"));
    let paths = points.map(|line| Path::new(line.split(' ').nth(4).unwrap()).join(id));
    paths.filter(|path| path.exists()).collect()
}

/// Nothing of one call of the program stays in the bundle.
fn assert_tidy(shim: &Shim) {
    let names = fs::read_dir(&shim.bundle).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> =
        names.filter(|name| name.to_string_lossy().starts_with("runtime-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn other_runtimes_run_a_container_from_create_to_delete() {
    for program in programs("other_runtimes_run_a_container_from_create_to_delete") {
        let setup = Setup::script("echo out; echo error >&2; exec sleep 1000").log(0, 1, false);
        let shim = Shim::create(setup.runtime(&program));
        assert_eq!(shim.state("").status(), Status::Created);
        let init = shim.start();
        eventually("the log has both streams", || log_entries(&shim.log_path()).len() == 2);
        let entries = log_entries(&shim.log_path());
        assert_eq!(joined(&entries, "stdout") + &joined(&entries, "stderr"), "out\nerror\n");
        shim.exec("three", "cat; exit 3", false, true);
        let mut client = shim.attach("three");
        shim.start_process("three").unwrap();
        client.write_all(b"input").unwrap();
        crate::support::close_input(&mut client);
        assert_eq!(read_frames(&mut client)[0], b"input");
        assert_eq!(shim.wait("three"), 3);
        shim.delete("three").unwrap();
        shim.exec("second", "exec sleep 1000", false, false);
        let second = shim.start_process("second").unwrap();
        look_at(&shim, &[init, second]);
        let request = task::PauseRequest { id: shim.id.clone() };
        let _: Empty = shim.client().call(method::PAUSE, &request).unwrap();
        assert_eq!(shim.state("").status(), Status::Paused);
        let request = task::ResumeRequest { id: shim.id.clone() };
        let _: Empty = shim.client().call(method::RESUME, &request).unwrap();
        shim.kill("second", 9);
        assert_eq!(shim.wait("second"), 137);
        shim.kill("", 9);
        assert_eq!(shim.wait(""), 137);
        assert_eq!(shim.exit_record().signal, Some(9));
        shim.end();
        assert_tidy(&shim);
        assert_eq!(cgroups_of(&shim.id), Vec::<PathBuf>::new());
    }
}

fn look_at(shim: &Shim, expected: &[u32]) {
    let request = task::PidsRequest { id: shim.id.clone() };
    let response: task::PidsResponse = shim.client().call(method::PIDS, &request).unwrap();
    let mut pids: Vec<u32> = response.processes.iter().map(|process| process.pid).collect();
    let mut expected = expected.to_owned();
    expected.sort_unstable();
    pids.sort_unstable();
    assert_eq!(pids, expected);
    let request = task::StatsRequest { id: shim.id.clone() };
    let response: task::StatsResponse = shim.client().call(method::STATS, &request).unwrap();
    let stats = response.stats.unwrap();
    if stats.is::<v1::Metrics>() {
        let metrics: v1::Metrics = stats.unpack().unwrap();
        assert_eq!(metrics.pids.unwrap().current, 2);
    } else {
        assert!(stats.is::<v2::Metrics>(), "{}", stats.type_url);
    }
}

#[test]
fn other_runtimes_give_a_terminal() {
    for program in programs("other_runtimes_give_a_terminal") {
        let script = "stty size; read line; echo got $line; exit 5";
        let setup = Setup::script(script).terminal().stdin(false);
        let shim = Shim::create(setup.runtime(&program));
        let request = task::ResizePtyRequest {
            id: shim.id.clone(),
            exec_id: String::new(),
            width: 80,
            height: 25,
        };
        let _: Empty = shim.client().call(method::RESIZE_PTY, &request).unwrap();
        let mut client = shim.attach("");
        shim.start();
        read_until(&mut client, "25 80");
        client.write_all(b"typed\n").unwrap();
        read_until(&mut client, "got typed");
        assert_eq!(shim.wait(""), 5);
        shim.end();

        let shim = Shim::create(Setup::script("exec sleep 1000").runtime(&program));
        shim.start();
        shim.exec("shell", "tty; exit 6", true, true);
        let mut client = shim.attach("shell");
        shim.start_process("shell").unwrap();
        read_until(&mut client, "/dev/pts/0");
        assert_eq!(shim.wait("shell"), 6);
        shim.kill("", 9);
        shim.wait("");
        shim.end();
        assert_tidy(&shim);
    }
}

#[test]
fn other_runtimes_tell_of_memory_that_ran_out() {
    for program in programs("other_runtimes_tell_of_memory_that_ran_out") {
        let setup = Setup::script("x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done");
        let setup = setup.edit(|config| {
            config["linux"]["resources"] = json!({"memory": {"limit": 16 << 20}});
        });
        let shim = Shim::create(setup.runtime(&program));
        shim.start();
        assert_eq!(shim.wait(""), 137);
        assert!(shim.exit_record().oom_killed);
        shim.end();
    }
}

#[test]
fn what_another_runtime_refuses_is_told_in_its_words() {
    for program in programs("what_another_runtime_refuses_is_told_in_its_words") {
        let setup = || {
            let setup = Setup::script("true").runtime(&program);
            setup.edit(|config| config["root"]["path"] = json!("missing"))
        };
        let shim = Shim::start_for(&setup());
        let error = shim.try_create(setup()).unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
        shim.shutdown();
        eventually("the shim ends", || !is_alive(shim.pid));
        assert_tidy(&shim);

        let shim = Shim::create(Setup::script("exec sleep 1000").runtime(&program));
        shim.start();
        let process = json!({
            "user": {"uid": 0, "gid": 0}, "args": ["/no/such"], "env": ["PATH=/bin"], "cwd": "/",
        });
        shim.exec_process("broken", &process, false, false);
        let error = shim.start_process("broken").unwrap_err();
        assert!(error.to_string().contains("/no/such"), "{error}");
        assert_eq!(shim.wait("broken"), 127);
        shim.delete("broken").unwrap();
        shim.kill("", 9);
        shim.wait("");
        shim.end();
    }
    if skip("what_another_runtime_refuses_is_told_in_its_words") {
        return;
    }
    let setup = || Setup::script("true").runtime(Path::new("/no/such/runtime"));
    let shim = Shim::start_for(&setup());
    let error = shim.try_create(setup()).unwrap_err();
    assert!(error.to_string().contains("/no/such/runtime"), "{error}");
}

#[test]
fn a_killed_shim_s_container_of_another_runtime_is_removed() {
    for program in programs("a_killed_shim_s_container_of_another_runtime_is_removed") {
        let setup = Setup::script("sleep 1000 & exec sleep 1000").runtime(&program);
        let shim = Shim::create(setup.edit(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|each| each["type"] != "pid");
        }));
        let init = i32::try_from(shim.start()).unwrap();
        signal(shim.pid, 9);
        eventually("the shim is gone", || !is_alive(shim.pid));
        run_shim(&shim.bundle, &shim.id, "delete");
        eventually("the container is gone", || !is_alive(init));
        eventually("the cgroups are gone", || cgroups_of(&shim.id).is_empty());
    }
}
