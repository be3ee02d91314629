//! A running guest: QEMU, and the ports over which guest and host speak.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest as _, Sha256};

use super::disk::{Disk, Kernel};
use crate::image::hex;
use crate::process::{command, find, output, step};

const QEMU: &str = "qemu-system-x86_64";

/// How long a kernel may take to run the first program, by hardware and by software.
const PROBE_LIMIT: Duration = Duration::from_secs(30);
const SLOW_PROBE_LIMIT: Duration = Duration::from_secs(180);

/// How much of the console a failure shows.
const CONSOLE_LINES: usize = 60;

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// The processor itself, through the host's kernel.
    Kvm,
    /// QEMU's translator: works everywhere, some fifteen times slower.
    Software,
}

impl Accelerator {
    const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Software => "software",
        }
    }

    const fn argument(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Software => "tcg",
        }
    }

    /// How many processors a guest gets. QEMU's translator may execute an instruction on one processor that another
    /// has just patched (the kernel's static keys do so all the time), of which a kernel dies now and then while it
    /// boots; with one processor there is nobody to race with.
    const fn processors(self) -> &'static str {
        match self {
            Self::Kvm => "2",
            Self::Software => "1",
        }
    }

    /// The one that works here, by trial; what a former trial found on this same host is kept. `None`: none works.
    pub(super) fn probe(disk: &Disk, directory: &Path) -> Result<Option<Self>> {
        let kept = directory.join("accelerator");
        let host = host_fingerprint()?;
        let former = fs::read_to_string(&kept).unwrap_or_default();
        for accelerator in [Self::Kvm, Self::Software] {
            if former == format!("{} {host}", accelerator.name()) {
                return Ok(Some(accelerator));
            }
        }
        step("Trying what executes a guest here");
        let trials = [(Self::Kvm, PROBE_LIMIT), (Self::Software, SLOW_PROBE_LIMIT)];
        for (accelerator, limit) in trials {
            let possible = accelerator != Self::Kvm || Path::new("/dev/kvm").exists();
            let works = possible && accelerator.reaches_userland(disk, directory, limit)?;
            println!("{}: {}", accelerator.name(), if works { "works" } else { "does not work" });
            if works {
                fs::write(&kept, format!("{} {host}", accelerator.name()))
                    .with_context(|| format!("write {}", kept.display()))?;
                return Ok(Some(accelerator));
            }
        }
        Ok(None)
    }

    /// Boots only as far as the first program.
    fn reaches_userland(self, disk: &Disk, directory: &Path, limit: Duration) -> Result<bool> {
        let console = directory.join(format!("probe-{}.log", self.name()));
        let mut command = qemu(self, disk, Kernel::Backports, 256, &console);
        command.args(["-append", "console=ttyS0 quiet panic=-1 brig.probe"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process(command.spawn().context("start QEMU")?);
        process.wait_until(Instant::now() + limit)?;
        drop(process);
        Ok(fs::read_to_string(&console).is_ok_and(|text| text.contains("brig-userland-reached")))
    }
}

/// What a trial's result depends on.
fn host_fingerprint() -> Result<String> {
    let kernel = fs::read_to_string("/proc/version").context("read the kernel's version")?;
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
    let version = output(command(QEMU).arg("--version"))?;
    let kvm = Path::new("/dev/kvm").exists();
    Ok(hex(&Sha256::digest(format!("{kernel} {model} {version} {kvm}"))))
}

/// What a guest is given.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub(super) accelerator: Accelerator,
    pub(super) disk: &'a Disk,
    pub(super) kernel: Kernel,
    /// Words for the kernel's command line beside those that every guest gets.
    pub(super) kernel_words: &'a str,
    pub(super) memory_mib: u32,
    /// The host's directory that the guest sees, read-only, as `/usr/local`.
    pub(super) programs: &'a Path,
    /// The host's directory that the guest sees as `/run/vm`: the command, and the results.
    pub(super) run: &'a Path,
    pub(super) boot_limit: Duration,
    pub(super) command_limit: Duration,
}

impl Machine<'_> {
    /// Boots, lets the command write to `stdout` and `stderr`, and returns its exit code.
    pub(super) fn execute(
        &self,
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
    ) -> Result<i32> {
        let (mut process, ports) = self.boot().or_else(|error| {
            // An emulated processor is not a processor: what it did to one kernel says nothing about our programs.
            println!("{error:#}\nonce more, from the start");
            self.boot()
        })?;
        let output = thread::spawn(move || copy(ports.stdout, stdout));
        let errors = thread::spawn(move || copy(ports.stderr, stderr));
        let ended = self.attend(&ports.control);
        if ended.is_ok() {
            // The command's last words come before its exit code, on ports of their own, which close with the machine.
            process.wait_until(Instant::now() + self.boot_limit)?;
        }
        let said = process.end()?;
        let _ = output.join();
        let _ = errors.join();
        ended.map_err(|error| error.context(self.last_words(&said)))
    }

    /// Starts QEMU and waits until the guest starts its command.
    fn boot(&self) -> Result<(Process, Ports)> {
        let mut command =
            qemu(self.accelerator, self.disk, self.kernel, self.memory_mib, &self.console());
        self.shares(&mut command);
        let mut ports = Ports::new(&mut command)?;
        command.arg("-append").arg(format!(
            "console=ttyS0 quiet panic=-1 psi=1 systemd.show_status=1 {}",
            self.kernel_words
        ));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let process = Process(command.spawn().context("start QEMU")?);
        ports.guest_sides.clear();
        let since = Instant::now();
        let why = match ports.control.recv_timeout(self.boot_limit) {
            Ok(line) if line == "started" => {
                println!("the guest booted in {} s", since.elapsed().as_secs());
                return Ok((process, ports));
            }
            Ok(_) => "its shares cannot be mounted".to_owned(),
            Err(RecvTimeoutError::Timeout) => {
                format!("nothing after {} s", self.boot_limit.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => "QEMU ended".to_owned(),
        };
        let said = process.end()?;
        Err(anyhow!("boot the guest: {why}").context(self.last_words(&said)))
    }

    /// Waits for the command's end.
    fn attend(&self, control: &Receiver<String>) -> Result<i32> {
        let since = Instant::now();
        let Ok(line) = control.recv_timeout(self.command_limit) else {
            bail!(
                "run the command in the guest: not done after {} s, or QEMU ended",
                self.command_limit.as_secs()
            );
        };
        println!("its command took {} s", since.elapsed().as_secs());
        let code = line.strip_prefix("exit ").and_then(|code| code.parse().ok());
        code.with_context(|| format!("the guest told {line:?} for an exit code"))
    }

    fn console(&self) -> PathBuf {
        self.run.join("console.log")
    }

    /// What a failure shows of QEMU and of the guest's console.
    fn last_words(&self, said: &str) -> String {
        format!("{said}the guest's console ended with:\n{}", tail(&self.console()))
    }

    fn shares(&self, command: &mut Command) {
        for (name, path, options) in [
            ("programs", self.programs, ",readonly=on"),
            // What the guest's root writes is root's here too, without a second notation.
            ("run", self.run, ""),
        ] {
            command.arg("-fsdev").arg(format!(
                "local,id={name},path={},security_model=none,multidevs=remap{options}",
                path.display()
            ));
            command.arg("-device").arg(format!("virtio-9p-pci,fsdev={name},mount_tag={name}"));
        }
    }
}

/// The ports of a guest, as the host holds them.
struct Ports {
    control: Receiver<String>,
    stdout: UnixStream,
    stderr: UnixStream,
    /// To be dropped once QEMU has them, so that the host sees their end when QEMU ends.
    guest_sides: Vec<UnixStream>,
}

impl Ports {
    fn new(command: &mut Command) -> Result<Self> {
        command.args(["-device", "virtio-serial-pci"]);
        let mut guest_sides = Vec::new();
        let mut open = |name: &str| -> Result<UnixStream> {
            let (ours, theirs) = UnixStream::pair().context("make a port of the guest")?;
            // QEMU inherits the descriptor; so may another child that starts meanwhile, which does not read it.
            rustix::io::fcntl_setfd(theirs.as_fd(), rustix::io::FdFlags::empty())
                .context("hand a port to QEMU")?;
            command.arg("-chardev").arg(format!("socket,id={name},fd={}", theirs.as_raw_fd()));
            command.arg("-device").arg(format!("virtserialport,chardev={name},name=brig.{name}"));
            guest_sides.push(theirs);
            Ok(ours)
        };
        let (stdout, stderr, lines) = (open("stdout")?, open("stderr")?, open("control")?);
        let (sender, control) = mpsc::sync_channel(16);
        thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { control, stdout, stderr, guest_sides })
    }
}

/// Copies until the end, passing on every piece at once.
fn copy(mut from: UnixStream, mut to: impl Write) {
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                let piece = buffer.get(..length).unwrap_or_default();
                if to.write_all(piece).and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// What every guest has: a disk whose changes are thrown away, no network, a console in a file.
fn qemu(
    accelerator: Accelerator,
    disk: &Disk,
    kernel: Kernel,
    memory_mib: u32,
    console: &Path,
) -> Command {
    // A guest must not outlive the task, however that ends.
    let mut command = match find("setpriv") {
        Some(setpriv) => {
            let mut wrapped = command(setpriv);
            wrapped.args(["--pdeathsig", "KILL", QEMU]);
            wrapped
        }
        None => command(QEMU),
    };
    if let Some(directory) = console.parent() {
        // The changes to the disk: `/tmp` may be memory.
        command.env("TMPDIR", directory);
    }
    command
        .args(["-accel", accelerator.argument(), "-cpu", "max", "-smp", accelerator.processors()])
        .arg("-m")
        .arg(format!("{memory_mib}M"))
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-snapshot"])
        .arg("-drive")
        .arg(format!("file={},format=raw,if=virtio,cache=unsafe", disk.image().display()))
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-kernel")
        .arg(disk.kernel(kernel))
        .arg("-initrd")
        .arg(disk.initial_files(kernel))
        .stdin(Stdio::null());
    command
}

/// QEMU; killed when dropped.
struct Process(Child);

impl Process {
    /// Waits for its end, at most until `deadline`.
    fn wait_until(&mut self, deadline: Instant) -> Result<Option<ExitStatus>> {
        loop {
            let status = self.0.try_wait().context("wait for QEMU")?;
            if status.is_some() || Instant::now() > deadline {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it and returns what it said.
    fn end(mut self) -> Result<String> {
        let _ = self.0.kill();
        self.0.wait().context("wait for QEMU")?;
        let mut said = String::new();
        if let Some(mut errors) = self.0.stderr.take() {
            let _ = errors.read_to_string(&mut said);
        }
        Ok(said)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The last lines of a console's log.
fn tail(console: &Path) -> String {
    let mut bytes = Vec::new();
    let _ = File::open(console).and_then(|mut file| file.read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(CONSOLE_LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}
