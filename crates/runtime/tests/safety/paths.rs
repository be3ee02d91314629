//! Attacks by what an image, a volume or a neighbour puts in the place of a path.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use brig_runtime::protection::{Protection, without};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use crate::support::{Fixture, with_terminal};
use crate::{alone, proven, race_time};

/// R1 (CVE-2025-31133): what is at /dev/null when masks are made is shown in place of every masked path.
#[test]
fn a_null_device_that_is_none_masks_nothing() {
    let Some(mut fixture) = Fixture::new("a_null_device_that_is_none_masks_nothing") else {
        return;
    };
    let _alone = alone();
    let decoy = fixture.path("decoy");
    std::fs::write(&decoy, "decoy").unwrap();
    fixture.set("/linux/maskedPaths", json!(["/proc/interrupts"]));
    // In a mount namespace of this thread's own, where /dev/null is the decoy.
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            let flags = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
            nix::mount::mount(none, "/", none, flags, none).unwrap();
            let bind = nix::mount::MsFlags::MS_BIND;
            nix::mount::mount(Some(&decoy), "/dev/null", none, bind, none).unwrap();
            fixture.script("cat /proc/interrupts");
            proven(&[Protection::NullDevice], || {
                fixture.run().is_ok_and(|output| output.stdout == "decoy")
            });
        });
        attacker.join().unwrap();
    });
}

/// R2 (CVE-2025-52565): /dev/console of the image names a file of the host.
#[test]
fn a_console_that_is_a_link_makes_no_file_of_the_host() {
    let test = "a_console_that_is_a_link_makes_no_file_of_the_host";
    let Some(mut fixture) = Fixture::new(test) else { return };
    let _alone = alone();
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("file");
    fixture.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    symlink(&file, fixture.path("rootfs/dev/console")).unwrap();
    fixture.set("/process/terminal", json!(true));
    proven(&[Protection::ConsoleLink], || {
        drop(fixture.create(with_terminal()).map(|created| created.container.delete(true)));
        let made = file.exists();
        let _ = std::fs::remove_file(&file);
        made
    });
}

/// R3 (CVE-2026-41579): /dev of the image is a link to a directory of the host.
#[test]
fn devices_are_not_made_through_a_link() {
    let Some(mut fixture) = Fixture::new("devices_are_not_made_through_a_link") else { return };
    let _alone = alone();
    let outside = tempfile::tempdir().unwrap();
    fixture.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    let dev = fixture.path("rootfs/dev");
    std::fs::remove_dir(&dev).unwrap();
    symlink(outside.path(), &dev).unwrap();
    proven(&[Protection::RootConfinement], || {
        let _ = fixture.run();
        let names = std::fs::read_dir(outside.path()).unwrap().flatten();
        let made: Vec<_> = names.map(|entry| entry.path()).collect();
        for path in &made {
            let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path));
        }
        !made.is_empty()
    });
}

/// R4 (CVE-2019-16884, CVE-2025-52881): a kernel parameter is written to what is mounted over its file.
#[test]
fn kernel_parameters_are_not_written_elsewhere() {
    let Some(mut fixture) = Fixture::new("kernel_parameters_are_not_written_elsewhere") else {
        return;
    };
    let _alone = alone();
    let victim = fixture.path("victim");
    std::fs::write(&victim, "untouched").unwrap();
    let path = "/proc/sys/net/ipv4/ip_forward";
    let mount = json!({"destination": path, "source": victim, "options": ["bind"]});
    fixture.push("/mounts", mount);
    fixture.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    proven(&[Protection::ProcOvermount], || {
        let _ = fixture.run();
        std::fs::read(&victim).unwrap() != b"untouched"
    });
}

/// R5 (CVE-2021-30465 and its kin): a neighbour that shares a volume swaps a directory of it for a link while the
/// container is made.
#[test]
fn a_swapped_mount_target_leads_nowhere() {
    let Some(mut fixture) = Fixture::new("a_swapped_mount_target_leads_nowhere") else { return };
    let _alone = alone();
    let outside = tempfile::tempdir().unwrap();
    let volume = fixture.path("rootfs/volume");
    std::fs::create_dir_all(volume.join("directory")).unwrap();
    symlink(outside.path(), volume.join("link")).unwrap();
    let target = json!({"destination": "/volume/directory/a/b", "type": "tmpfs"});
    fixture.push("/mounts", target);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (one, two) = (volume.join("directory"), volume.join("link"));
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let mut attempt = || {
            let _ = fixture.run();
            let escaped = outside.path().join("a").exists();
            let _ = std::fs::remove_dir_all(outside.path().join("a"));
            for name in ["directory", "link"] {
                let _ = std::fs::remove_dir_all(volume.join(name).join("a"));
            }
            escaped
        };
        let deadline = Instant::now() + race_time();
        let mut times = 0;
        let escaped = without(&[Protection::RootConfinement], || {
            std::iter::repeat_with(&mut attempt)
                .take_while(|_| Instant::now() < deadline)
                .any(|it| it)
        });
        let deadline = Instant::now() + race_time();
        let mut confined = true;
        while Instant::now() < deadline {
            times += 1;
            confined &= !attempt();
        }
        stop.store(true, Ordering::Relaxed);
        eprintln!("a_swapped_mount_target_leads_nowhere: {times} containers");
        assert!(escaped, "nothing stands against it, and yet it fails");
        assert!(confined, "it got outside");
    });
}

/// R11 (CVE-2022-0811): a kernel parameter of the whole machine. It is set to the value that it has.
#[test]
fn parameters_of_the_machine_are_not_set() {
    let Some(mut fixture) = Fixture::new("parameters_of_the_machine_are_not_set") else { return };
    let _alone = alone();
    let value = std::fs::read_to_string("/proc/sys/kernel/randomize_va_space").unwrap();
    fixture.set("/linux/sysctl", json!({"kernel.randomize_va_space": value.trim()}));
    proven(&[Protection::SysctlOwner], || fixture.run().is_ok());
}

/// R13: files of the kernel that a container must not read.
#[test]
fn masked_paths_show_nothing() {
    let Some(mut fixture) = Fixture::new("masked_paths_show_nothing") else { return };
    let _alone = alone();
    fixture.set("/linux/maskedPaths", json!(["/proc/interrupts", "/proc/irq"]));
    fixture.script("cat /proc/interrupts; ls /proc/irq");
    proven(&[Protection::MaskedPaths], || !fixture.run().unwrap().stdout.is_empty());
}

/// R13: and those that it must not write. The parameter belongs to the container's own namespace.
#[test]
fn read_only_paths_are_not_written() {
    let Some(mut fixture) = Fixture::new("read_only_paths_are_not_written") else { return };
    let _alone = alone();
    for set in ["bounding", "effective", "permitted"] {
        let names = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
        fixture.set(&format!("/process/capabilities/{set}"), names);
    }
    fixture.script("echo attack > /proc/sys/kernel/domainname; cat /proc/sys/kernel/domainname");
    proven(&[Protection::ReadOnlyPaths], || fixture.run().unwrap().stdout == "attack\n");
}
