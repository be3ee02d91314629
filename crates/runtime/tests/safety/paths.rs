//! Attacks by what an image, a volume or a neighbour puts in the place of a path.

use std::os::unix::fs::symlink;
use std::path::Path;

use brig_runtime::protection::Protection;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

use crate::race::{Outcome, raced};
use crate::support::{Fixture, with_terminal};
use crate::{alone, proven};

/// How many filesystems the test of swapped targets mounts in one container.
const SWAPPED: usize = 12;

/// R1 (CVE-2025-31133): what is at /dev/null when masks are made is shown in place of every masked path. The attacker
/// swaps it for a file meanwhile.
#[test]
fn a_null_device_that_is_none_masks_nothing() {
    let test = "a_null_device_that_is_none_masks_nothing";
    let Some(mut fixture) = Fixture::new(test) else { return };
    let _alone = alone();
    fixture.set("/linux/maskedPaths", json!(["/proc/interrupts"]));
    fixture.script("cat /proc/interrupts");
    // In a mount namespace of this thread's own, whose /dev is the attacker's. The attacker inherits it.
    std::thread::scope(|scope| {
        let attacked = scope.spawn(|| {
            own_dev();
            std::fs::write("/dev/decoy", "decoy").unwrap();
            let change = || exchange(Path::new("/dev/null"), Path::new("/dev/decoy"));
            raced(test, &[Protection::NullDevice], change, || match fixture.run() {
                Err(_) => Outcome::Refused,
                Ok(output) if output.stdout.is_empty() => Outcome::Confined,
                Ok(_) => Outcome::Escaped,
            });
        });
        attacked.join().unwrap();
    });
}

fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

/// A mount namespace for this thread, with a /dev that holds a null device only.
fn own_dev() {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), "/dev", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    let (kind, mode) =
        (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_raw_mode(0o666));
    rustix::fs::mknodat(CWD, "/dev/null", kind, mode, rustix::fs::makedev(1, 3)).unwrap();
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
    let path = "/proc/sys/net/ipv4/ip_forward";
    let mount = json!({"destination": path, "source": victim, "options": ["bind"]});
    std::fs::write(&victim, "").unwrap();
    fixture.push("/mounts", mount);
    fixture.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    proven(&[Protection::ProcOvermount], || {
        std::fs::write(&victim, "untouched").unwrap();
        let _ = fixture.run();
        std::fs::read(&victim).unwrap() != b"untouched"
    });
}

/// R4 (CVE-2019-19921, CVE-2023-27561): /proc, /sys or /dev of the image is a link, which a volume could move.
#[test]
fn directories_of_the_kernel_are_no_links() {
    let Some(mut fixture) = Fixture::new("directories_of_the_kernel_are_no_links") else { return };
    let _alone = alone();
    for name in ["proc", "sys", "dev"] {
        let path = fixture.path("rootfs").join(name);
        std::fs::remove_dir(&path).unwrap();
        std::fs::create_dir(fixture.path("rootfs/elsewhere")).unwrap();
        symlink("elsewhere", &path).unwrap();
        proven(&[Protection::RealDirectory], || fixture.run().is_ok());
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_dir_all(fixture.path("rootfs/elsewhere")).unwrap();
        std::fs::create_dir(&path).unwrap();
    }
    let mounts = fixture.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    std::fs::remove_dir(fixture.path("rootfs/dev")).unwrap();
    symlink("tmp", fixture.path("rootfs/dev")).unwrap();
    proven(&[Protection::RealDirectory], || fixture.run().is_ok());
}

/// R4 (CVE-2019-19921, CVE-2025-52881): /proc is swapped for a directory of the attacker's once it is mounted. What is
/// meant for the kernel must not land there, and what is to be masked must not be read by its other name.
#[test]
fn a_swapped_proc_takes_no_writes_and_no_masks() {
    let test = "a_swapped_proc_takes_no_writes_and_no_masks";
    let Some(mut fixture) = Fixture::new(test) else { return };
    let _alone = alone();
    let decoy = fixture.path("rootfs/decoy");
    std::fs::create_dir_all(decoy.join("sys/net/ipv4")).unwrap();
    let victim = decoy.join("sys/net/ipv4/ip_forward");
    std::fs::write(decoy.join("interrupts"), "").unwrap();
    let (proc, link) = (fixture.path("rootfs/proc"), fixture.path("rootfs/link"));
    symlink("decoy", &link).unwrap();
    fixture.set("/linux/maskedPaths", json!(["/proc/interrupts"]));
    fixture.set("/linux/readonlyPaths", json!([]));
    fixture.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    // Whichever name the mount has at that moment, it is one of the two.
    fixture.script("for _ in 1 2 3 4 5 6 7 8; do cat /proc/interrupts /link/interrupts; done; ls -d /proc/self /link/self");
    let attempt = || {
        std::fs::write(&victim, "untouched").unwrap();
        let ran = fixture.run();
        if std::fs::read(&victim).unwrap() != b"untouched" {
            return Outcome::Escaped;
        }
        match ran {
            Err(_) => Outcome::Refused,
            Ok(output) if output.stdout.contains("CPU0") => Outcome::Escaped,
            Ok(_) => Outcome::Confined,
        }
    };
    let change = || exchange(&proc, &link);
    raced(test, &[Protection::ProcDescriptor], change, attempt);
}

/// R5 (CVE-2021-30465 and its kin): a neighbour that shares a volume swaps a directory of it for a link to the host
/// while targets below that directory are found, made and mounted on.
#[test]
fn a_swapped_mount_target_leads_nowhere() {
    let test = "a_swapped_mount_target_leads_nowhere";
    let Some(mut fixture) = Fixture::new(test) else { return };
    let _alone = alone();
    let (outside, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (directory, link) = (volume.path().join("directory"), volume.path().join("link"));
    for present in [outside.path().join("present"), directory.join("present")] {
        std::fs::create_dir_all(present).unwrap();
    }
    symlink(outside.path(), &link).unwrap();
    std::fs::create_dir(fixture.path("rootfs/volume")).unwrap();
    std::fs::write(volume.path().join("file"), "").unwrap();
    let source = volume.path();
    let mount = json!({"destination": "/volume", "source": source, "options": ["rbind"]});
    fixture.push("/mounts", mount);
    fixture.script("cat /proc/self/mountinfo");
    let config = fixture.config.clone();
    let mut number = 0;
    let attempt = || {
        number += 1;
        fixture.config = config.clone();
        for mount in swapped_mounts(number, volume.path()) {
            fixture.push("/mounts", mount);
        }
        let ran = fixture.run();
        let host = tree(outside.path());
        if host != ["present"] {
            std::fs::remove_dir_all(outside.path()).unwrap();
            std::fs::create_dir_all(outside.path().join("present")).unwrap();
            return Outcome::Escaped;
        }
        ran.map_or(Outcome::Refused, |output| found_in(&output.stdout))
    };
    let change = || exchange(&directory, &link);
    raced(test, &[Protection::RootConfinement], change, attempt);
}

/// Mounts below the swapped directory whose targets are there, or are made as directories or as files.
fn swapped_mounts(number: u32, volume: &Path) -> Vec<Value> {
    let mount =
        |name: &str, path: String| json!({"destination": path, "type": "tmpfs", "source": name});
    let mut mounts = Vec::new();
    for index in 0..SWAPPED / 2 {
        let name = |kind: &str| format!("swapped-{kind}-{index}-");
        let present = "/volume/directory/present".to_owned();
        mounts.push(mount(&name("present"), present));
        let missing = format!("/volume/directory/missing-{number}-{index}/below");
        mounts.push(mount(&name("missing"), missing));
        let file = format!("/volume/directory/file-{number}-{index}");
        mounts.push(json!({
            "destination": file, "source": volume.join("file"), "options": ["bind"]
        }));
    }
    mounts
}

/// Whether every one of [`swapped_mounts`] is in the container, and whether any was reached through the link.
fn found_in(mountinfo: &str) -> Outcome {
    let swapped = mountinfo.lines().filter(|line| line.contains(" swapped-"));
    let points: Vec<_> = swapped.filter_map(|line| line.split(' ').nth(4)).collect();
    if points.len() != SWAPPED {
        return Outcome::Escaped;
    }
    match points.iter().all(|point| point.starts_with("/volume/")) {
        true => Outcome::Confined,
        false => Outcome::Met,
    }
}

/// What is below a directory, without what it holds.
fn tree(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap().flatten();
    let mut found: Vec<_> =
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    if let Ok(names) = std::fs::read_dir(directory.join("present")) {
        found.extend(names.flatten().map(|entry| format!("present/{:?}", entry.file_name())));
    }
    found
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
