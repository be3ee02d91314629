//! A container's life through the shim, as brigd sees it.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::support::{Setup, Shim, eventually, is_alive, read_frames, run_shim, skip};
use brig_shim_protocol::attach::AttachRequest;
use brig_shim_protocol::metrics::{v1, v2};
use brig_shim_protocol::options::RuncOptions;
use brig_shim_protocol::task::{self, method};
use brig_shim_protocol::ttrpc::Code;
use brig_shim_protocol::types::{Any, Empty, RuntimeInfo, Status};
use prost::Message as _;
use serde_json::json;

#[test]
fn a_container_runs_and_its_end_is_recorded_and_told() {
    if skip("a_container_runs_and_its_end_is_recorded_and_told") {
        return;
    }
    let shim = Shim::create(Setup::script("echo out; echo error >&2; exit 7").log(0, 1, false));
    assert_eq!(shim.state("").status(), Status::Created);
    let mut client = shim.attach("");
    let pid = shim.start();
    assert_eq!(read_frames(&mut client), [b"out\n".to_vec(), b"error\n".to_vec(), Vec::new()]);
    assert_eq!(shim.wait(""), 7);
    let record = shim.exit_record();
    assert_eq!((record.pid, record.exit_code, record.signal), (pid, 7, None));
    assert!(record.started_at.unwrap() <= record.exited_at && !record.oom_killed);
    let state = shim.state("");
    assert_eq!((state.status(), state.exit_status), (Status::Stopped, 7));
    let entries = crate::support::log_entries(&shim.log_path());
    assert_eq!(crate::support::joined(&entries, "stdout"), "out\n");
    assert_eq!(crate::support::joined(&entries, "stderr"), "error\n");
    shim.end();
}

/// CVE-2019-5736: what a container can reach of the shim, whose clone its init is until it execs, is read-only.
#[test]
fn the_shim_cannot_be_overwritten_through_its_processes() {
    if skip("the_shim_cannot_be_overwritten_through_its_processes") {
        return;
    }
    let shim = Shim::create(Setup::script("true"));
    let executable = format!("/proc/{}/exe", shim.pid);
    let mount = rustix::fs::statvfs(&executable).unwrap();
    assert!(mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let name = fs::read_to_string(format!("/proc/{}/comm", shim.pid)).unwrap();
    assert_eq!(name.trim(), "containerd-shim");
    assert!(fs::read_link(executable).unwrap().ends_with("containerd-shim-brig-v1"));
    shim.start();
    shim.wait("");
    shim.end();
}

#[test]
fn a_killed_container_tells_the_signal() {
    if skip("a_killed_container_tells_the_signal") {
        return;
    }
    let shim = Shim::create(Setup::script("exec sleep 1000"));
    shim.start();
    let running = shim.delete("").unwrap_err();
    assert_eq!(running.code(), Some(Code::FailedPrecondition));
    // A shutdown does not end a shim that has a container.
    shim.shutdown();
    assert_eq!(shim.state("").status(), Status::Running);
    shim.kill("", 9);
    assert_eq!(shim.wait(""), 137);
    assert_eq!(shim.exit_record().signal, Some(9));
    let request = task::KillRequest { id: shim.id.clone(), signal: 9, ..Default::default() };
    let gone = shim.client().call::<_, Empty>(method::KILL, &request).unwrap_err();
    assert_eq!(gone.code(), Some(Code::NotFound));
    shim.end();
}

#[test]
fn real_time_signals_arrive_and_are_told() {
    if skip("real_time_signals_arrive_and_are_told") {
        return;
    }
    // A process with a default action for the signal, not the first of its PID namespace.
    let shim = Shim::create(Setup::script("exec sleep 1000"));
    shim.start();
    shim.exec("signalled", "exec sleep 1000", false, false);
    shim.start_process("signalled").unwrap();
    shim.kill("signalled", 37);
    assert_eq!(shim.wait("signalled"), 128 + 37);
    shim.kill("", 9);
    shim.wait("");
    shim.end();
}

#[test]
fn a_container_killed_before_its_start_ends() {
    if skip("a_container_killed_before_its_start_ends") {
        return;
    }
    let shim = Shim::create(Setup::script("true"));
    shim.kill("", 9);
    assert_eq!(shim.wait(""), 137);
    assert_eq!(shim.exit_record().started_at, None);
    let error = shim.start_process("").unwrap_err();
    assert_eq!(error.code(), Some(Code::FailedPrecondition));
    shim.end();
}

#[test]
fn a_created_container_can_be_deleted() {
    if skip("a_created_container_can_be_deleted") {
        return;
    }
    let shim = Shim::create(Setup::script("true"));
    shim.end();
}

#[test]
fn a_failed_create_leaves_nothing_and_says_why() {
    if skip("a_failed_create_leaves_nothing_and_says_why") {
        return;
    }
    let setup = || Setup::script("true").edit(|config| config["root"]["path"] = json!("missing"));
    let shim = Shim::start_for(&setup());
    let error = shim.try_create(setup()).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    let request = task::StateRequest { id: shim.id.clone(), exec_id: String::new() };
    let state = shim.client().call::<_, task::StateResponse>(method::STATE, &request);
    assert_eq!(state.unwrap_err().code(), Some(Code::NotFound));
    shim.shutdown();
    eventually("the shim ends", || !is_alive(shim.pid));
}

#[test]
fn a_missing_program_is_an_error_of_start_or_create() {
    if skip("a_missing_program_is_an_error_of_start_or_create") {
        return;
    }
    let setup =
        || Setup::script("true").edit(|config| config["process"]["args"] = json!(["/no/such"]));
    let shim = Shim::start_for(&setup());
    let error = match shim.try_create(setup()) {
        Err(error) => error,
        Ok(_) => {
            let error = shim.start_process("").unwrap_err();
            shim.wait("");
            error
        }
    };
    assert!(error.to_string().contains("/no/such"), "{error}");
}

#[test]
fn pause_stops_a_container_until_resume() {
    if skip("pause_stops_a_container_until_resume") {
        return;
    }
    let shim = Shim::create(Setup::script("exec sleep 1000"));
    shim.start();
    let request = task::PauseRequest { id: shim.id.clone() };
    let _: Empty = shim.client().call(method::PAUSE, &request).unwrap();
    assert_eq!(shim.state("").status(), Status::Paused);
    let request = task::ResumeRequest { id: shim.id.clone() };
    let _: Empty = shim.client().call(method::RESUME, &request).unwrap();
    assert_eq!(shim.state("").status(), Status::Running);
    let request = task::PauseRequest { id: shim.id.clone() };
    let _: Empty = shim.client().call(method::PAUSE, &request).unwrap();
    // A kill reaches a frozen container too.
    shim.kill("", 9);
    assert_eq!(shim.wait(""), 137);
    shim.end();
}

#[test]
fn processes_and_usage_are_listed() {
    if skip("processes_and_usage_are_listed") {
        return;
    }
    let shim = Shim::create(Setup::script("exec sleep 1000"));
    let init = shim.start();
    shim.exec("second", "exec sleep 1000", false, false);
    let second = shim.start_process("second").unwrap();
    let request = task::PidsRequest { id: shim.id.clone() };
    let response: task::PidsResponse = shim.client().call(method::PIDS, &request).unwrap();
    let mut pids: Vec<u32> = response.processes.iter().map(|process| process.pid).collect();
    pids.sort_unstable();
    let mut expected = vec![init, second];
    expected.sort_unstable();
    assert_eq!(pids, expected);
    let request = task::StatsRequest { id: shim.id.clone() };
    let response: task::StatsResponse = shim.client().call(method::STATS, &request).unwrap();
    let stats = response.stats.unwrap();
    assert!(stats.is::<v1::Metrics>() || stats.is::<v2::Metrics>(), "{}", stats.type_url);
    let request = task::ConnectRequest { id: shim.id.clone() };
    let response: task::ConnectResponse = shim.client().call(method::CONNECT, &request).unwrap();
    assert_eq!(i32::try_from(response.shim_pid), Ok(shim.pid));
    assert_eq!(response.task_pid, init);
    shim.kill("", 9);
    shim.wait("");
    shim.end();
}

#[test]
fn unknown_methods_are_refused_by_name() {
    if skip("unknown_methods_are_refused_by_name") {
        return;
    }
    let shim = Shim::create(Setup::script("true"));
    let mut client = shim.client();
    let error = client.call::<_, Empty>("Frobnicate", &Empty {}).unwrap_err();
    assert_eq!(error.code(), Some(Code::Unimplemented), "{error}");
    let mut checkpoint = task::CheckpointTaskRequest { id: shim.id.clone(), ..Default::default() };
    let mut save = |request: &task::CheckpointTaskRequest| {
        client.call::<_, Empty>(method::CHECKPOINT, request).unwrap_err()
    };
    assert_eq!(save(&checkpoint).code(), Some(Code::InvalidArgument), "without a place");
    checkpoint.path = shim.bundle.join("images").display().to_string();
    let error = save(&checkpoint);
    assert_eq!(error.code(), Some(Code::FailedPrecondition), "not started, or no CRIU: {error}");
    let error = client.call_service::<_, Empty>("other.Service", "Do", &Empty {}).unwrap_err();
    assert_eq!(error.code(), Some(Code::Unimplemented));
    // Version 2 of the service is the same under another name.
    let request = task::StateRequest { id: shim.id.clone(), exec_id: String::new() };
    let state: task::StateResponse =
        client.call_service(task::SERVICE_V2, method::STATE, &request).unwrap();
    assert_eq!(state.status(), Status::Created);
    shim.end();
}

#[test]
fn a_shim_that_is_killed_leaves_nothing_after_delete() {
    if skip("a_shim_that_is_killed_leaves_nothing_after_delete") {
        return;
    }
    let shim = Shim::create(Setup::script("sleep 1000 & exec sleep 1000"));
    let init = i32::try_from(shim.start()).unwrap();
    crate::support::signal(shim.pid, 9);
    eventually("the shim is gone", || !is_alive(shim.pid));
    let output = run_shim(&shim.bundle, &shim.id, "delete");
    let response = <task::DeleteResponse as prost::Message>::decode(&*output).unwrap();
    assert_eq!(response.exit_status, 137);
    eventually("the container is gone", || !is_alive(init));
    let record = shim.exit_record();
    assert!(record.error.unwrap().contains("shim died"));
    for name in ["shim.sock", "io.sock"] {
        assert!(!shim.bundle.join(name).exists());
    }
    let cgroups = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for mount in cgroups.lines().filter(|line| line.contains(" - cgroup")) {
        let point = mount.split(' ').nth(4).unwrap();
        assert!(!std::path::Path::new(point).join(&shim.id).exists(), "{point}");
    }
    // Once more, as after a crash in between.
    run_shim(&shim.bundle, &shim.id, "delete");
}

#[test]
fn init_without_a_pid_namespace_takes_its_processes_along() {
    if skip("init_without_a_pid_namespace_takes_its_processes_along") {
        return;
    }
    let setup = Setup::script("sleep 1000 & echo $!; exit 3").edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|each| each["type"] != "pid");
    });
    let shim = Shim::create(setup);
    let mut client = shim.attach("");
    shim.start();
    assert_eq!(shim.wait(""), 3);
    let [stdout, _, _] = read_frames(&mut client);
    let child: i32 = String::from_utf8(stdout).unwrap().trim().parse().unwrap();
    eventually("the child is gone", || !is_alive(child));
    shim.end();
}

#[test]
fn a_grandchild_that_holds_the_streams_does_not_delay_the_end_of_an_exec() {
    if skip("a_grandchild_that_holds_the_streams_does_not_delay_the_end_of_an_exec") {
        return;
    }
    let shim = Shim::create(Setup::script("exec sleep 1000"));
    shim.start();
    shim.exec("parent", "sleep 1000 & echo done; exit 5", false, false);
    let mut client = shim.attach("parent");
    let started = std::time::Instant::now();
    shim.start_process("parent").unwrap();
    assert_eq!(shim.wait("parent"), 5);
    assert!(started.elapsed() < std::time::Duration::from_secs(2));
    let [stdout, _, _] = read_frames(&mut client);
    assert_eq!(stdout, b"done\n");
    shim.delete("parent").unwrap();
    shim.kill("", 9);
    shim.wait("");
    shim.end();
}

#[test]
fn out_of_memory_is_recorded() {
    if skip("out_of_memory_is_recorded") {
        return;
    }
    let setup = Setup::script("tail /dev/zero").edit(|config| {
        config["linux"]["resources"] = json!({"memory": {"limit": 16 << 20}});
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev");
        mounts.retain(|mount| mount["destination"] != "/dev/pts");
        mounts.push(json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["mode=755"]}));
    });
    let shim = Shim::create(setup);
    shim.start();
    let code = shim.wait("");
    assert!(code == 137 || code == 1, "{code}");
    assert!(shim.exit_record().oom_killed);
    shim.end();
}

#[test]
fn commands_that_ask_for_information_answer() {
    let run =
        |flag: &str| std::process::Command::new(crate::support::SHIM).arg(flag).output().unwrap();
    let version = String::from_utf8(run("-v").stdout).unwrap();
    assert!(version.contains("Version:"));
    let info = |options: Option<&RuncOptions>| {
        let mut command = std::process::Command::new(crate::support::SHIM);
        let mut child =
            command.arg("-info").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = options.map(|options| Any::pack(options).encode_to_vec()).unwrap_or_default();
        child.stdin.take().unwrap().write_all(&input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        RuntimeInfo::decode(&*output.stdout).unwrap()
    };
    let ours = info(None);
    assert_eq!((&*ours.name, ours.options), ("io.containerd.brig.v1", None));
    let features = ours.features.unwrap();
    assert!(features.type_url.ends_with("/runtime-spec/1/features/Features"));
    let told: serde_json::Value = serde_json::from_slice(&features.value).unwrap();
    assert!(told["ociVersionMax"].is_string() && told["linux"]["namespaces"].is_array(), "{told}");
    // Another runtime speaks for itself, and one that cannot is not made to.
    let options = RuncOptions { binary_name: "true".into(), ..RuncOptions::default() };
    let theirs = info(Some(&options));
    assert_eq!(theirs.options.unwrap().unpack::<RuncOptions>().unwrap(), options);
    assert_eq!(theirs.features, None);
    let failed = run("-colour");
    assert!(!failed.status.success());
    assert!(String::from_utf8(failed.stderr).unwrap().contains("-colour"));
}

#[test]
fn attaching_to_what_is_not_there_is_refused_in_words() {
    if skip("attaching_to_what_is_not_there_is_refused_in_words") {
        return;
    }
    let shim = Shim::create(Setup::script("true"));
    let socket = shim.bundle.join("io.sock");
    let request = AttachRequest { exec_id: "missing".into(), ..Default::default() };
    let error = brig_shim_protocol::attach::attach(&socket, &request).unwrap_err();
    assert!(error.to_string().contains("no exec missing"), "{error}");
    let mut garbage = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut reply = String::new();
    std::io::Read::read_to_string(&mut garbage, &mut reply).unwrap();
    assert!(reply.contains("error"), "{reply}");
    shim.end();
}
