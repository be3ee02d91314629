//! A machine that loses its power: a guest in User-mode Linux pulls, unpacks and removes an image over and over and is
//! killed in the middle. Each time it starts again, all that its disk has must be whole, what was acknowledged must be
//! there, and in the end a pull heals the rest.
//!
//! `BRIG_POWER_CUTS` says how often; `cargo xtask soak` does it hundreds of times.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may fail this way, and says why it is skipped"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use support::engine::program;
use support::served_registry;

/// How often the power is cut when nobody says otherwise.
const CUTS: usize = 10;
/// After how many steps the power is cut at the latest.
const STEPS_MAX: usize = 40;
const DISK_BYTES: u64 = 256 << 20;
/// What the guest says for itself, among its kernel's lines.
const MARK: &str = "guest: ";

/// A guest that runs until it is dropped.
struct Guest {
    machine: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Guest {
    /// Boots; the host's root is the guest's, read-only.
    fn boot(directory: &Path, mode: &str) -> Self {
        let init = directory.join("init");
        let script = format!(
            "#!/bin/sh\n\
             export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n\
             mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run\n\
             mkdir -p /run/modules/lib /run/disk /run/shared\n\
             ln -s /usr/lib/uml/modules /run/modules/lib/modules\n\
             modprobe -d /run/modules overlay\n\
             ip link set lo up\n\
             mount -t hostfs -o {shared} none /run/shared && mount -t ext4 /dev/ubda /run/disk || exit 1\n\
             {brig} registry serve --read-only --listen 127.0.0.1:5000 --root /run/shared/registry > /run/listens &\n\
             until [ -s /run/listens ]; do sleep 0.05; done\n\
             {guest} {mode} 127.0.0.1:5000/guest /run/disk 2>&1\n\
             echo \"guest: ended with $?\"\n\
             exec poweroff -f\n",
            shared = directory.join("shared").display(),
            brig = program("brig").display(),
            guest = env!("CARGO_BIN_EXE_power-cut-guest"),
        );
        fs::write(&init, script).unwrap();
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
        let mut machine = Command::new("linux.uml")
            .args(["mem=256M", "rootfstype=hostfs", "rootflags=/", "ro", "quiet"])
            .arg(format!("ubd0={}", directory.join("disk").display()))
            .arg(format!("init={}", init.display()))
            .args(["con=null", "con0=null,fd:1"])
            // Where it keeps its memory, which must not be taken for a disk of ours.
            .env("TMPDIR", directory)
            .env("HOME", directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let lines = BufReader::new(machine.stdout.take().unwrap()).lines();
        Self { machine, lines }
    }

    /// The next thing that the guest says; `None` when its machine has stopped.
    fn next(&mut self) -> Option<String> {
        let mut all = Vec::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if let Some((_, said)) = line.split_once(MARK) {
                let said = said.trim_end().to_owned();
                assert!(!said.starts_with("ended with") || said == "ended with 0", "{all:#?}");
                return Some(said);
            }
            all.push(line);
        }
        None
    }

    /// Cuts the power; returns what the guest had said before.
    fn cut(mut self) -> Vec<String> {
        let _ = kill_process_group(Pid::from_child(&self.machine), Signal::KILL);
        std::iter::from_fn(|| self.next()).collect()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.machine), Signal::KILL);
        let _ = self.machine.wait();
    }
}

/// Makes the image, the registry that has it, and an empty disk; or says what is missing.
fn prepare(directory: &Path) -> Option<()> {
    let programs = ["linux.uml", "skopeo", "mkfs.ext4", "modprobe"];
    let missing = programs.iter().find(|name| {
        !Command::new("sh")
            .args(["-c", &format!("command -v {name}")])
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .success()
    });
    if let Some(name) = missing {
        eprintln!("SKIPPED power_cut: {name} is not installed");
        return None;
    }
    if !rustix::process::geteuid().is_root() || !program("brig").is_file() {
        eprintln!("SKIPPED power_cut: needs root, and brig: use cargo xtask test");
        return None;
    }
    let (archive, registry) = (directory.join("image.tar"), directory.join("shared/registry"));
    run(Command::new(env!("CARGO_BIN_EXE_power-cut-guest")).arg("pack").arg(&archive));
    let brig = Command::new(program("brig"));
    let (mut server, address) = served_registry::serve(brig, &registry, &[]);
    run(Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
        .arg(format!("docker-archive:{}", archive.display()))
        .arg(format!("docker://{address}/guest:latest")));
    server.kill().unwrap();
    server.wait().unwrap();
    let disk = directory.join("disk");
    fs::File::create(&disk).unwrap().set_len(DISK_BYTES).unwrap();
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk));
    Some(())
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// What the guest has acknowledged when its power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Acknowledged {
    /// Nothing that must be there.
    Nothing,
    /// The image with its name and its content.
    Image,
    /// And its layers.
    Layers,
}

impl Acknowledged {
    /// What holds after the guest said something more.
    fn after(self, said: &str) -> Self {
        match said {
            "pulled" => self.max(Self::Image),
            "settled" => Self::Layers,
            "removing" => Self::Nothing,
            _ => self,
        }
    }

    /// Whether what the guest found after its next start has all that was acknowledged.
    fn is_in(self, found: &str) -> bool {
        let (layers, images) = (found.contains(" 5 layers"), found.ends_with(" 1 images"));
        match self {
            Self::Nothing => true,
            Self::Image => images,
            Self::Layers => images && layers,
        }
    }
}

#[test]
fn what_a_power_cut_leaves_is_whole_and_heals() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    if prepare(path).is_none() {
        return;
    }
    let cuts = std::env::var("BRIG_POWER_CUTS").ok().and_then(|text| text.parse().ok());
    let mut acknowledged = Acknowledged::Nothing;
    // Another sequence each time; what matters of it is printed.
    let mut seed = u64::from(std::process::id());
    for cut in 0..cuts.unwrap_or(CUTS) {
        let mut guest = Guest::boot(path, "work");
        let found = guest.next().unwrap_or_else(|| panic!("cut {cut}: the guest did not start"));
        assert!(acknowledged.is_in(&found), "cut {cut}: {acknowledged:?} is not in: {found}");
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let steps = usize::try_from(seed >> 33).unwrap() % STEPS_MAX;
        for _ in 0..=steps {
            let said = guest.next().unwrap_or_else(|| panic!("cut {cut}: the guest has ended"));
            acknowledged = acknowledged.after(&said);
        }
        // It may have said more before it was gone.
        acknowledged = guest.cut().iter().fold(acknowledged, |so_far, said| so_far.after(said));
        eprintln!("cut {cut}: found {found}; then {acknowledged:?} after {steps} steps");
    }
    let mut guest = Guest::boot(path, "heal");
    let _found = guest.next();
    while let Some(said) = guest.next() {
        if said == "healed" {
            return;
        }
    }
    panic!("a pull does not heal the disk");
}
