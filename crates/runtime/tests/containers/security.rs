//! What a container must not reach: the cheap part of the regression catalogue.

use brig_runtime::pidfd::Exit;
use serde_json::json;

use crate::support::{Fixture, exec, shell};

#[test]
fn capabilities_are_exactly_those_configured() {
    let Some(mut fixture) = Fixture::new("capabilities_are_exactly_those_configured") else {
        return;
    };
    let status = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -s '\\t' ' '";
    let root = fixture.output(status);
    let set = "0000000020000420";
    let none = "0000000000000000";
    let wanted = |effective: &str| {
        format!(
            "CapInh: {none}\nCapPrm: {effective}\nCapEff: {effective}\nCapBnd: {set}\nCapAmb: {none}\n\
             NoNewPrivs: 1\n"
        )
    };
    assert_eq!(root, wanted(set));
    fixture.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(fixture.output(status), wanted(none), "another user has none after its exec");
    fixture.set("/process/user", json!({"uid": 0, "gid": 0}));
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let created = fixture.start();
    let mut process = shell(status);
    process["user"] = json!({"uid": 1000, "gid": 1000});
    process["capabilities"] = fixture.config["process"]["capabilities"].clone();
    process["noNewPrivileges"] = json!(true);
    assert_eq!(exec(&created.container, &process).unwrap().stdout, wanted(none));
}

#[test]
fn ambient_capabilities_survive_for_another_user() {
    let Some(mut fixture) = Fixture::new("ambient_capabilities_survive_for_another_user") else {
        return;
    };
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        fixture.set(&format!("/process/capabilities/{set}"), json!(["CAP_KILL"]));
    }
    fixture.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let output = fixture.output("grep CapEff /proc/self/status");
    assert!(output.ends_with("0000000000000020\n"), "{output}");
}

#[test]
fn users_groups_and_umask_are_exact() {
    let Some(mut fixture) = Fixture::new("users_groups_and_umask_are_exact") else { return };
    fixture.set(
        "/process/user",
        json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 7], "umask": 0o027}),
    );
    let output = fixture.output("id -u; id -g; grep Groups /proc/self/status; umask");
    assert_eq!(output, "1000\n1001\nGroups:\t5 7 \n0027\n");
}

#[test]
fn masked_and_read_only_paths_are_closed_to_root() {
    let Some(mut fixture) = Fixture::new("masked_and_read_only_paths_are_closed_to_root") else {
        return;
    };
    for set in ["bounding", "effective", "permitted"] {
        fixture.set(
            &format!("/process/capabilities/{set}"),
            json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]),
        );
    }
    let output = fixture.output(
        "for file in /proc/kcore /proc/keys; do if [ -e $file ]; then wc -c < $file; else echo 0; fi; done; \
         ls /sys/firmware | wc -l; \
         echo 1 2>/dev/null > /proc/sys/kernel/domainname || echo closed; \
         echo b 2>/dev/null > /proc/sysrq-trigger || echo closed",
    );
    assert_eq!(output.split_whitespace().collect::<Vec<_>>(), ["0", "0", "0", "closed", "closed"]);
}

/// R3, R4: a directory of the image that is a link leads inside the image.
#[test]
fn mount_targets_that_are_links_stay_inside() {
    let Some(fixture) = Fixture::new("mount_targets_that_are_links_stay_inside") else {
        return;
    };
    let outside = tempfile::tempdir().unwrap();
    for name in ["proc", "sys"] {
        let path = fixture.path("rootfs").join(name);
        std::fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink(outside.path(), &path).unwrap();
    }
    let _ = fixture.run();
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    let dev = fixture.path("rootfs/dev");
    std::fs::remove_dir(&dev).unwrap();
    std::os::unix::fs::symlink(outside.path(), &dev).unwrap();
    let _ = fixture.run();
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// R2: without a tmpfs over /dev, the image decides what /dev/console is.
#[test]
fn a_console_that_is_a_link_is_refused() {
    let Some(mut fixture) = Fixture::new("a_console_that_is_a_link_is_refused") else { return };
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("file");
    std::fs::write(&target, "untouched").unwrap();
    fixture.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    std::os::unix::fs::symlink(&target, fixture.path("rootfs/dev/console")).unwrap();
    fixture.set("/process/terminal", json!(true));
    let error = fixture.create(crate::support::with_terminal()).unwrap_err().chain();
    assert!(error.contains("/dev/console") && error.contains("symbolic link"), "{error}");
    assert_eq!(std::fs::read(target).unwrap(), b"untouched");
}

/// R6: no descriptor of the caller is a way out.
#[test]
fn a_working_directory_through_a_descriptor_is_refused() {
    let Some(mut fixture) = Fixture::new("a_working_directory_through_a_descriptor_is_refused")
    else {
        return;
    };
    // Leaked on purpose: without close-on-exec, as a careless engine does.
    let leak =
        rustix::fs::open("/", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let created = fixture.start();
    for number in 3..40 {
        let mut process = shell("pwd");
        process["cwd"] = json!(format!("/proc/self/fd/{number}"));
        assert!(exec(&created.container, &process).is_err(), "descriptor {number}");
    }
    created.container.delete(true).unwrap();
    for number in [3, 7, 8, 9, 20] {
        fixture.set("/process/cwd", json!(format!("/proc/self/fd/{number}")));
        assert!(fixture.run().is_err(), "descriptor {number}");
    }
    drop(leak);
}

/// R7: the program's own link is the container's program, never the runtime's.
#[test]
fn the_runtime_cannot_be_read_through_init_before_its_exec() {
    let Some(mut fixture) = Fixture::new("the_runtime_cannot_be_read_through_init_before_its_exec")
    else {
        return;
    };
    fixture.set("/process/args", json!(["sleep", "1000"]));
    let options = brig_runtime::CreateOptions {
        stdio: crate::support::null(),
        ..brig_runtime::CreateOptions::default()
    };
    let created = fixture.create(options).unwrap();
    // Not dumpable: its files in /proc belong to the host's root, whoever it runs as.
    let output = exec(&created.container, &shell("readlink /proc/1/exe || echo denied")).unwrap();
    assert_eq!(output.stdout, "denied\n", "{output:?}");
}

#[test]
fn seccomp_denies_what_the_profile_denies() {
    let Some(mut fixture) = Fixture::new("seccomp_denies_what_the_profile_denies") else { return };
    for no_new_privileges in [true, false] {
        fixture.set("/process/noNewPrivileges", json!(no_new_privileges));
        fixture.set(
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{
                    "names": ["mkdir", "mkdirat", "openat2", "setresuid", "prctl"],
                    "action": "SCMP_ACT_ERRNO"
                }]
            }),
        );
        let output = fixture.output("grep Seccomp: /proc/self/status; mkdir /x 2>&1 || true");
        assert!(output.contains("Seccomp:\t2"), "{output}");
        assert!(output.contains("Operation not permitted"), "{output}");
        let output = fixture.output("grep CapPrm /proc/self/status");
        assert!(output.ends_with("0000000020000420\n"), "CAP_SYS_ADMIN is gone: {output}");
    }
}

/// Tested on a recorded tree otherwise: hardly any machine has it.
#[test]
fn classes_of_service_are_refused_by_name_without_resctrl() {
    let test = "classes_of_service_are_refused_by_name_without_resctrl";
    let Some(mut fixture) = Fixture::new(test) else { return };
    if std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" - resctrl ") {
        eprintln!("SKIPPED {test}: resctrl is mounted here");
        return;
    }
    fixture.set("/linux/intelRdt", json!({"schemata": ["L3:0=f"]}));
    let error = fixture.run().unwrap_err();
    assert_eq!(error.kind(), brig_runtime::ErrorKind::Unsupported);
    assert!(error.chain().contains("linux.intelRdt"), "{}", error.chain());
}

#[test]
fn the_default_error_of_a_profile_is_what_callers_get() {
    let test = "the_default_error_of_a_profile_is_what_callers_get";
    let Some(mut fixture) = Fixture::new(test) else { return };
    // Everything but what is left over: a call that no profile of today names goes by the default.
    let every = "read write open openat close execve exit exit_group brk mmap mprotect munmap \
        arch_prctl set_tid_address set_robust_list rseq prlimit64 readlinkat readlink \
        getrandom fstat newfstatat stat lstat getuid geteuid getgid getegid getpid \
        getppid rt_sigaction rt_sigprocmask rt_sigreturn fcntl ioctl getcwd wait4 fork \
        vfork clone clone3 prctl sched_getaffinity dup2 dup3 dup writev lseek capset \
        uname access faccessat getpgrp futex poll umask";
    let every: Vec<&str> = every.split(' ').collect();
    fixture.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 18,
            "architectures": ["SCMP_ARCH_NATIVE"],
            "syscalls": [{"names": every, "action": "SCMP_ACT_ALLOW"}]
        }),
    );
    fixture.script("mkdir /tmp/x");
    let output = fixture.run().unwrap();
    assert!(output.stderr.contains("Invalid cross-device link"), "{output:?}");
}

#[test]
fn a_container_cannot_raise_itself() {
    let Some(mut fixture) = Fixture::new("a_container_cannot_raise_itself") else { return };
    fixture.script("mount -t tmpfs none /tmp");
    assert_ne!(fixture.run().unwrap().exit, Exit::Code(0));
}
