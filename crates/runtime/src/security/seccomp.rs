//! Compiles `linux.seccomp` to a classic BPF program, before the process that it will bind exists.
//!
//! ```text
//! LinuxSeccomp ── rules::Ruleset (per architecture: number → verdict) ── assembler ──▶ Program ── install ──▶ thread
//!
//! program:  load arch ─┬─ x86-64: binary search over ranges of numbers; x32 is the range from 2^30 up
//!                      ├─ i386:   the same with its own numbers
//!                      └─ other:  kill
//! ```
//!
//! A range of numbers with one verdict is one leaf of the search, so a profile of 350 names costs about eight comparisons
//! per call. (Kernels since 5.11 also cache numbers that are allowed whatever their arguments.)
//!
//! Where the specification is silent the meaning is that of runc with libseccomp, which profiles were written for:
//! - A name that this architecture lacks, or that nobody knows, is skipped.
//! - An unconditional rule for a call wins over conditional ones, wherever it stands; among conditional rules the first
//!   that matches wins. A rule that repeats the default action is skipped.
//! - Two conditions on the same argument make alternatives, not a conjunction.
//! - Numbers above the highest that the profile names get ENOSYS instead of a denying default action, so that programs
//!   probing for a newer call fall back.
//! - Calls of an architecture that the profile does not list, x32 included, kill the process.
//!
//! One thing differs on purpose: arguments that the kernel takes as 32-bit numbers are compared on their low word. The
//! kernel ignores the high word of `socket(2)`'s family, so a comparison of 64 bits can be passed with 2^32 + 40.

mod assembler;
mod rules;
mod table;

use std::path::Path;
use std::path::PathBuf;

use brig_linux::seccomp::{self, Instruction};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag};

use std::os::fd::OwnedFd;

use crate::error::{Error, ErrorKind, Result};

use self::rules::{Architecture, Ruleset};

/// A compiled filter, ready to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
    flags: u32,
    listener: Option<Listener>,
    unknown_names: Vec<String>,
}

/// Where the descriptor of a filter with `SCMP_ACT_NOTIFY` goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    path: PathBuf,
    metadata: Option<String>,
}

/// Compiles a filter for this machine.
///
/// # Errors
/// `InvalidInput` when the profile contradicts itself: an errno for an action that has none or above 4095, an argument
/// beyond the sixth, notification without a `listenerPath`. `Unsupported` on an architecture without a table of numbers.
/// `Exhausted` when the program is longer than the kernel takes.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program> {
    let native = Architecture::native().ok_or_else(|| {
        let machine = std::env::consts::ARCH;
        Error::new(ErrorKind::Unsupported, format!("compile linux.seccomp for {machine}"))
    })?;
    compile_for(profile, native)
}

fn compile_for(profile: &LinuxSeccomp, native: Architecture) -> Result<Program> {
    let rules = Ruleset::parse(profile, native)?;
    let instructions = assembler::assemble(&rules)?;
    if instructions.len() > seccomp::INSTRUCTION_LIMIT {
        let length = instructions.len();
        let attempt =
            format!("compile linux.seccomp: {length} instructions, the kernel takes 4096");
        return Err(Error::new(ErrorKind::Exhausted, attempt)
            .with_advice("list fewer calls with argument conditions, or fewer architectures"));
    }
    let listener = listener(profile, &rules)?;
    let flags = flags(profile, listener.is_some())?;
    Ok(Program { instructions, flags, listener, unknown_names: rules.into_unknown_names() })
}

impl Program {
    /// Binds the calling thread. The listener is returned when the profile has `SCMP_ACT_NOTIFY`.
    ///
    /// Child-safe: neither allocates nor locks. Does not set `no_new_privs`; without it this must happen while the thread
    /// still has `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// As [`brig_linux::seccomp::install`].
    pub fn install(&self) -> rustix::io::Result<Option<OwnedFd>> {
        seccomp::install(&self.instructions, self.flags)
    }

    /// As [`Program::install`], of this thread alone even when the profile says `SECCOMP_FILTER_FLAG_TSYNC`.
    pub(crate) fn install_alone(&self) -> rustix::io::Result<Option<OwnedFd>> {
        let others = seccomp::FLAG_TSYNC | seccomp::FLAG_TSYNC_ESRCH;
        seccomp::install(&self.instructions, self.flags & !others)
    }

    /// The instructions, for callers that install or dump them by other means.
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// Where to send the listener that [`Program::install`] returns.
    #[must_use]
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// Names in the profile that no architecture knows: typing errors, or calls newer than this build.
    #[must_use]
    pub fn unknown_names(&self) -> &[String] {
        &self.unknown_names
    }
}

impl Listener {
    /// The socket that takes the descriptor (`listenerPath`).
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opaque text for the receiver (`listenerMetadata`).
    #[must_use]
    pub fn metadata(&self) -> Option<&str> {
        self.metadata.as_deref()
    }
}

fn listener(profile: &LinuxSeccomp, rules: &Ruleset) -> Result<Option<Listener>> {
    let path = profile.listener_path().clone().filter(|path| !path.as_os_str().is_empty());
    match (path, rules.notifies()) {
        (Some(path), true) => {
            Ok(Some(Listener { path, metadata: profile.listener_metadata().clone() }))
        }
        (None, true) => {
            let attempt = "compile linux.seccomp: SCMP_ACT_NOTIFY without listenerPath";
            Err(Error::new(ErrorKind::InvalidInput, attempt)
                .with_advice("name the socket of a seccomp agent in linux.seccomp.listenerPath"))
        }
        (_, false) => Ok(None),
    }
}

fn flags(profile: &LinuxSeccomp, notifies: bool) -> Result<u32> {
    let mut flags = 0;
    match profile.flags() {
        // runc's default since 1.1.3: a filter should not make everything slower against a bug of the past.
        None => flags |= seccomp::FLAG_SPEC_ALLOW,
        Some(list) => {
            for flag in list {
                flags |= bit(*flag);
            }
        }
    }
    if notifies {
        flags |= seccomp::FLAG_NEW_LISTENER;
        if flags & seccomp::FLAG_TSYNC != 0 {
            flags |= seccomp::FLAG_TSYNC_ESRCH;
        }
    } else if flags & seccomp::FLAG_WAIT_KILLABLE_RECV != 0 {
        let attempt = "compile linux.seccomp: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV without \
                       SCMP_ACT_NOTIFY";
        return Err(Error::new(ErrorKind::InvalidInput, attempt));
    }
    Ok(flags)
}

fn bit(flag: LinuxSeccompFilterFlag) -> u32 {
    match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => seccomp::FLAG_LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => seccomp::FLAG_TSYNC,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => seccomp::FLAG_SPEC_ALLOW,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
            seccomp::FLAG_WAIT_KILLABLE_RECV
        }
    }
}

/// Whether this kernel takes a flag.
pub(crate) fn supports(flag: LinuxSeccompFilterFlag) -> bool {
    seccomp::knows_flag(bit(flag))
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;
