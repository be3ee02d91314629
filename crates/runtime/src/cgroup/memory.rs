//! The memory controller: limits in an order the kernel accepts, and the out-of-memory event.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::LinuxMemory;
use rustix::event::EventfdFlags;
use rustix::fs::{OFlags, inotify};
use rustix::io::Errno;

use super::directory::{Directory, keyed_number};
use super::failure::{self, Result};
use super::{Cgroup, Located};

const FIELD: &str = "linux.resources.memory";

/// Sets memory limits.
pub(super) fn set(cgroup: &Cgroup, memory: &LinuxMemory, warnings: &mut Vec<String>) -> Result<()> {
    if *memory == LinuxMemory::default() {
        return Ok(());
    }
    let kernel = memory.kernel();
    if kernel.is_some_and(|limit| limit != 0) {
        // Ignored by the kernel since 5.4 and by runc since 1.1.
        warnings.push(format!("{FIELD}.kernel has no effect on current kernels; drop it"));
    }
    if memory.use_hierarchy() == Some(false) {
        let why = "the kernel accounts memory by hierarchy always; drop the setting";
        return Err(failure::unsupported(format!("{FIELD}.useHierarchy"), why));
    }
    match cgroup.require(FIELD, "memory", "memory")? {
        Located::V1(directory) => set_v1(directory, memory, warnings),
        Located::V2(directory) => set_v2(directory, memory, warnings),
    }
}

/// Whether the kernel has killed a process of this cgroup, or of one below it, for want of memory.
fn oom_kills(directory: Located<'_>) -> Result<Option<u64>> {
    let text = match directory {
        Located::V1(directory) => directory.read_optional("memory.oom_control")?,
        Located::V2(directory) => directory.read_optional("memory.events")?,
    };
    Ok(text.and_then(|text| keyed_number(&text, "oom_kill")))
}

impl Cgroup {
    /// Whether the kernel's OOM killer has killed a process of the container (v1 since kernel 4.13).
    ///
    /// # Errors
    /// The counter cannot be read. A host without the memory controller answers `false`.
    pub fn oom_killed(&self) -> Result<bool> {
        let Some(located) = self.controller("memory", "memory") else { return Ok(false) };
        Ok(oom_kills(located)?.is_some_and(|kills| kills > 0))
    }

    /// Subscribes to out-of-memory events: an eventfd on v1's `memory.oom_control`, inotify on v2's `memory.events`.
    ///
    /// The descriptor also becomes readable for other changes (v2 counts reclaim in the same file; v1 fires when the
    /// cgroup is removed), so ask [`Cgroup::oom_killed`] after each wake-up.
    ///
    /// # Errors
    /// The memory controller is absent (`Unsupported`), or the subscription fails.
    pub fn oom_watch(&self) -> Result<OomWatch> {
        let fd = match self.require(FIELD, "memory", "memory")? {
            Located::V1(directory) => watch_v1(directory)?,
            Located::V2(directory) => watch_v2(directory)?,
        };
        Ok(OomWatch { fd })
    }
}

/// A subscription to out-of-memory events, to be polled for reading.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
}

impl OomWatch {
    /// Consumes the pending events, so that the next poll waits for new ones.
    ///
    /// # Errors
    /// The descriptor cannot be read. Having nothing to consume is success.
    pub fn acknowledge(&self) -> io::Result<()> {
        let mut buffer = [0_u8; 4096];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut buffer)) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(source) => Err(source.into()),
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OomWatch> for OwnedFd {
    fn from(watch: OomWatch) -> Self {
        watch.fd
    }
}

/// cgroups(7) v1: `cgroup.event_control` takes `<eventfd> <fd of memory.oom_control>`. The subscription lives as long as
/// the eventfd; the other descriptor may be closed.
fn watch_v1(directory: &Directory) -> Result<OwnedFd> {
    let control = directory.open("memory.oom_control", OFlags::RDONLY)?;
    let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|source| failure::file("watch memory of", directory.path(), source))?;
    let request = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    directory.write("cgroup.event_control", &request)?;
    Ok(event)
}

fn watch_v2(directory: &Directory) -> Result<OwnedFd> {
    let failed = |source| failure::file("watch memory of", directory.path(), source);
    let events = directory.open("memory.events", OFlags::RDONLY)?;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .map_err(failed)?;
    // By descriptor, so that the file watched is the one of this cgroup even if the path was replaced.
    let path = format!("/proc/self/fd/{}", events.as_raw_fd());
    inotify::add_watch(&watch, path, inotify::WatchFlags::MODIFY).map_err(failed)?;
    Ok(watch)
}

/// Bytes for v1, where -1 means no limit.
fn set_v1(directory: &Directory, memory: &LinuxMemory, warnings: &mut Vec<String>) -> Result<()> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    let swap = swap_total(directory.has("memory.memsw.limit_in_bytes"), memory, warnings)?;
    check_usage(directory, "memory.usage_in_bytes", memory)?;
    let set_limit = || match limit {
        Some(limit) => directory.write("memory.limit_in_bytes", &limit.to_string()),
        None => Ok(()),
    };
    if let Some(swap) = swap {
        // The kernel refuses a moment in which memory + swap is below memory: raise the sum first, lower it last.
        let current = directory.read_number("memory.memsw.limit_in_bytes")?.unwrap_or(u64::MAX);
        let raises = u64::try_from(swap).map_or(true, |swap| swap > current);
        if raises {
            directory.write("memory.memsw.limit_in_bytes", &swap.to_string())?;
            set_limit()?;
        } else {
            set_limit()?;
            directory.write("memory.memsw.limit_in_bytes", &swap.to_string())?;
        }
    } else {
        set_limit()?;
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        directory.write("memory.soft_limit_in_bytes", &reservation.to_string())?;
    }
    if let Some(limit) = memory.kernel_tcp().filter(|limit| *limit != 0) {
        directory.write("memory.kmem.tcp.limit_in_bytes", &limit.to_string())?;
    }
    if let Some(swappiness) = memory.swappiness() {
        if swappiness > 100 {
            let field = format!("{FIELD}.swappiness");
            return Err(failure::invalid(field, swappiness, "not between 0 and 100"));
        }
        directory.write("memory.swappiness", &swappiness.to_string())?;
    }
    if let Some(disable) = memory.disable_oom_killer() {
        directory.write("memory.oom_control", if disable { "1" } else { "0" })?;
    }
    Ok(())
}

fn set_v2(directory: &Directory, memory: &LinuxMemory, warnings: &mut Vec<String>) -> Result<()> {
    if memory.disable_oom_killer() == Some(true) {
        let why = "cgroup v2 has no way to disable the OOM killer; drop the setting";
        return Err(failure::unsupported(format!("{FIELD}.disableOOMKiller"), why));
    }
    if memory.swappiness().is_some() {
        warnings.push(format!("{FIELD}.swappiness is ignored: cgroup v2 has no such setting"));
    }
    if memory.kernel_tcp().is_some_and(|limit| limit != 0) {
        warnings.push(format!("{FIELD}.kernelTCP is ignored: cgroup v2 counts it as memory"));
    }
    check_usage(directory, "memory.current", memory)?;
    let total = swap_total(directory.has("memory.swap.max"), memory, warnings)?;
    if let Some(total) = total {
        // The specification counts memory and swap together; v2 limits swap alone.
        let swap = match (total, memory.limit().unwrap_or(0)) {
            (-1, _) => -1,
            (_, 0 | -1) => {
                let why = "a swap limit needs a memory limit on cgroup v2; set memory.limit too";
                return Err(failure::invalid(format!("{FIELD}.swap"), total, why));
            }
            (total, limit) => total - limit,
        };
        // Before memory.max, whose write may have to reclaim into swap.
        directory.write("memory.swap.max", &max_or_number(swap))?;
    }
    if let Some(limit) = memory.limit().filter(|limit| *limit != 0) {
        directory.write("memory.max", &max_or_number(limit))?;
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        directory.write("memory.low", &max_or_number(reservation))?;
    }
    Ok(())
}

/// The limit of memory plus swap to set, if any: -1 for none.
///
/// Without a swap limit, lifting the memory limit lifts the sum too, where swap is accounted. A kernel without swap
/// accounting refuses a real limit, but one that lets no swap be used asks for nothing that would be missing.
fn swap_total(
    accounted: bool,
    memory: &LinuxMemory,
    warnings: &mut Vec<String>,
) -> Result<Option<i64>> {
    let limit = memory.limit().unwrap_or(0);
    let field = || format!("{FIELD}.swap");
    match memory.swap().unwrap_or(0) {
        0 if limit == -1 && accounted => Ok(Some(-1)),
        0 => Ok(None),
        swap if swap > 0 && limit > 0 && swap < limit => {
            let why = "counts memory and swap together, so it must not be below memory.limit";
            Err(failure::invalid(field(), swap, why))
        }
        swap if !accounted => {
            if swap > 0 && swap != limit {
                let why = "this kernel does not account swap per cgroup (CONFIG_SWAP)";
                return Err(failure::unsupported(field(), why));
            }
            warnings.push(format!("{FIELD}.swap is ignored: this kernel does not account swap"));
            Ok(None)
        }
        swap if swap < -1 => Err(failure::invalid(field(), swap, "not a size, and not -1")),
        swap => Ok(Some(swap)),
    }
}

/// `checkBeforeUpdate`: a limit below what is in use would kill processes, so refuse it instead.
fn check_usage(directory: &Directory, file: &str, memory: &LinuxMemory) -> Result<()> {
    let Some(limit) = memory.limit().and_then(|limit| u64::try_from(limit).ok()) else {
        return Ok(());
    };
    if memory.check_before_update() != Some(true) || limit == 0 {
        return Ok(());
    }
    match directory.read_number(file)? {
        Some(usage) if usage > limit => {
            let why = "more memory than that is in use, and checkBeforeUpdate is set";
            Err(failure::invalid(format!("{FIELD}.limit"), limit, why))
        }
        _ => Ok(()),
    }
}

/// A v2 limit: any negative number is `max`.
pub(super) fn max_or_number(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}
