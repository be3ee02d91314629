//! A guest for what this machine cannot show: a Debian with systemd, on cgroup v2, v1, or both.
//!
//! QEMU boots a kernel directly, by the processor's own means where those work, else by software. The guest sees two
//! directories of the host: an installed tree of our programs as `/usr/local`, and a directory for results. It runs one
//! command as root and powers off; its disk starts anew every time.

mod disk;
mod machine;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::process::{require_root, step, target_directory};
use crate::{install, packages};
use disk::{Disk, Kernel};
use machine::{Accelerator, Machine};

/// What making and running a guest needs.
const PACKAGES: &[&str] =
    &["busybox-static", "e2fsprogs", "kmod", "mmdebstrap", "qemu-system-x86", "xz-utils"];

/// How long a guest may take until the command starts: by software, on a busy machine, minutes.
const BOOT_LIMIT: Duration = Duration::from_secs(400);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How the guest's systemd mounts the cgroup hierarchies
    #[arg(long, value_enum, default_value = "v2")]
    cgroup: Cgroup,
    /// Memory of the guest in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u32,
    /// How long the command may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    timeout: u64,
    /// Keep the console's log and the results
    #[arg(long)]
    keep: bool,
    /// The program to run as root in the guest, and its arguments. /usr/local is the installed tree of this checkout;
    /// the working directory is for results
    #[arg(required = true, last = true, value_name = "COMMAND")]
    words: Vec<String>,
}

/// How systemd mounts the cgroup hierarchies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cgroup {
    /// One hierarchy with all controllers
    V2,
    /// One hierarchy for every controller, on Debian 12's own kernel: newer ones leave some out
    V1,
    /// As v1, with a cgroup v2 hierarchy beside them
    Hybrid,
}

impl Cgroup {
    const fn kernel(self) -> Kernel {
        match self {
            Self::V2 => Kernel::Backports,
            Self::V1 | Self::Hybrid => Kernel::Stable,
        }
    }

    /// systemd's switches on the kernel's command line (kernel-command-line(7)).
    const fn kernel_words(self) -> &'static str {
        match self {
            Self::V2 => "systemd.unified_cgroup_hierarchy=1",
            Self::V1 => {
                "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1 \
                 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
            }
            Self::Hybrid => {
                "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=0 \
                 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
            }
        }
    }
}

/// The task: one command in a guest, with its output and exit code.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let host = match Host::prepare()? {
        Ok(host) => host,
        Err(why) => bail!("no guest can run here: {why}"),
    };
    let programs = directory().join("programs");
    install::for_guest(&programs)?;
    let guest = Guest {
        cgroup: options.cgroup,
        memory_mib: options.memory,
        command_limit: Duration::from_secs(options.timeout),
        keep: options.keep,
    };
    let code =
        host.execute(&guest, &programs, &options.words, std::io::stdout(), std::io::stderr())?;
    // An exit status has eight bits.
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Where everything of guests is kept.
pub(crate) fn directory() -> PathBuf {
    target_directory().join("vm")
}

/// What a guest is to be.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) cgroup: Cgroup,
    pub(crate) memory_mib: u32,
    pub(crate) command_limit: Duration,
    /// Whether the console's log and the results stay.
    pub(crate) keep: bool,
}

/// This machine, ready to run guests.
#[derive(Debug)]
pub(crate) struct Host {
    accelerator: Accelerator,
    disk: Disk,
}

impl Host {
    /// Installs what is needed, makes the disk, and finds out how guests run here; the inner error says why they cannot.
    pub(crate) fn prepare() -> Result<Result<Self, String>> {
        if !cfg!(target_arch = "x86_64") {
            return Ok(Err("guests are made for x86-64 only".to_owned()));
        }
        let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
        if !system.lines().any(|line| line == "VERSION_CODENAME=bookworm") {
            return Ok(Err(
                "this is not Debian 12, whose programs the guest could execute".to_owned()
            ));
        }
        require_root("making a guest's disk")?;
        let directory = directory();
        let disk = match packages::ensure(PACKAGES).and_then(|()| Disk::ensure(&directory)) {
            Ok(disk) => disk,
            Err(error) => {
                return Ok(Err(format!("its Debian packages cannot be had: {error:#}")));
            }
        };
        let found = Accelerator::probe(&disk, &directory)?;
        Ok(found.map_or_else(
            || {
                Err(format!(
                    "no kernel reaches its first program under QEMU (see {})",
                    directory.join("probe-software.log").display()
                ))
            },
            |accelerator| Ok(Self { accelerator, disk }),
        ))
    }

    /// Runs `words` as root in a guest that sees `programs` as `/usr/local`; returns its exit code.
    pub(crate) fn execute(
        &self,
        guest: &Guest,
        programs: &Path,
        words: &[String],
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
    ) -> Result<i32> {
        step(&format!("Guest with cgroup {:?} ({:?})", guest.cgroup, self.accelerator));
        let mut run = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(directory())
            .context("make the guest's run directory")?;
        fs::create_dir(run.path().join("results")).context("make the results' directory")?;
        let command = format!("exec {}\n", quote(words));
        fs::write(run.path().join("command"), command).context("write the guest's command")?;
        if guest.keep {
            run.disable_cleanup(true);
            println!("console and results stay in {}", run.path().display());
        }
        let machine = Machine {
            accelerator: self.accelerator,
            disk: &self.disk,
            kernel: guest.cgroup.kernel(),
            kernel_words: guest.cgroup.kernel_words(),
            memory_mib: guest.memory_mib,
            programs,
            run: run.path(),
            boot_limit: BOOT_LIMIT,
            command_limit: guest.command_limit,
        };
        machine.execute(stdout, stderr)
    }
}

/// The words as a shell reads them back.
fn quote(words: &[String]) -> String {
    let quoted = words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''")));
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_same_words_back() {
        let words = ["printf", "%s|", "a b", "it's", "$HOME;`x`", ""].map(str::to_owned);
        let output = std::process::Command::new("sh").args(["-c", &quote(&words)]).output();
        assert_eq!(output.unwrap().stdout, b"a b|it's|$HOME;`x`||");
    }
}
