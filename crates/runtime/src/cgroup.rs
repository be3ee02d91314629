//! Control groups of a container: limits, membership, freezing, killing, statistics.
//!
//! One [`Cgroup`] stands for the container in *every* hierarchy of the host:
//!
//! ```text
//! v1      /sys/fs/cgroup/<controllers>/<path>   one directory per mounted hierarchy, named hierarchies included
//! hybrid  the same, and /sys/fs/cgroup/unified/<path>
//! v2      /sys/fs/cgroup/<path>
//! ```
//!
//! A controller limits wherever the host has put it ([`Cgroup::set`] asks per controller, not per host), and everything
//! that is about *processes* (spawning into the group, freezing, killing, waiting until it is empty) uses cgroup2
//! whenever a cgroup2 mount is there, because only cgroup2 reports its state by events instead of by polling. A directory
//! is only ever made beneath a verified cgroup mount, so a controller that is not mounted leaves no plain directory.
//!
//! The layer is a directory descriptor and single `write(2)` calls. The cgroups-rs crate, which covers the v1 controllers,
//! was weighed for that half: it re-reads `/proc` on each construction, creates missing files, ignores `burst`, `idle` and
//! `checkBeforeUpdate` and brings an async D-Bus stack, so v1 goes through the same few lines as v2.

mod cpu;
mod devices;
mod directory;
mod failure;
mod freezer;
pub(crate) mod hierarchy;
mod io;
mod memory;
mod processes;
mod removal;
mod resources;
mod stats;
pub mod systemd;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::fs::OFlags;
use rustix::process::Pid;

pub use self::freezer::FreezerState;
pub(crate) use self::freezer::is_frozen;
pub use self::hierarchy::{Hierarchies, Mode, Placement};
pub use self::memory::OomWatch;
pub use self::stats::{
    CpuStats, CpusetStats, HugetlbStats, IoDevice, MemoryStats, PidsStats, Pressure,
    PressureAverages, Stats,
};

use self::directory::Directory;
use self::failure::{Result, errno};
use self::hierarchy::Place;
use crate::process::message::{At, Failure, Step};

/// A container's cgroup in all hierarchies, by open directories.
///
/// The value does not own the cgroup: dropping it removes nothing, and another process may open the same one by its
/// [`Placement`].
#[derive(Debug)]
pub struct Cgroup {
    placement: Placement,
    legacy: Vec<Legacy>,
    unified: Option<Unified>,
    warnings: Vec<String>,
}

/// The cgroup in a v1 hierarchy.
#[derive(Debug)]
struct Legacy {
    controllers: Vec<String>,
    directory: Directory,
}

/// The cgroup in the cgroup2 hierarchy.
#[derive(Debug)]
struct Unified {
    directory: Directory,
    /// What the parent lets this cgroup control.
    controllers: Vec<String>,
}

/// Where a controller of the container is to be written.
#[derive(Debug, Clone, Copy)]
enum Located<'a> {
    V1(&'a Directory),
    V2(&'a Directory),
}

impl Cgroup {
    /// Makes the cgroup and sets its limits, before any process is in it. An existing cgroup is taken over when it holds
    /// no process; its limits are then those of `resources` on top of what it had.
    ///
    /// # Errors
    /// A directory cannot be made, processes live in it already (`Conflict`), or a limit is refused: by the kernel, by a
    /// missing controller (`Unsupported`) or for contradicting itself (`InvalidInput`). What was made is removed again.
    pub fn create(placement: &Placement, resources: &LinuxResources) -> Result<Self> {
        Self::make(placement, |cgroup| {
            resources::apply(cgroup, resources, resources::Occasion::Create)
        })
    }

    /// As [`Cgroup::create`], but for the rules of devices, which are set by [`Cgroup::restrict_devices`]: the kernel
    /// verifies them for long, and a process can meanwhile do what does not depend on them.
    ///
    /// # Errors
    /// As [`Cgroup::create`].
    pub(crate) fn create_unrestricted(
        placement: &Placement,
        resources: &LinuxResources,
    ) -> Result<Self> {
        Self::make(placement, |cgroup| resources::limit(cgroup, resources))
    }

    /// Says which devices the container's processes may use.
    ///
    /// # Errors
    /// As [`Cgroup::create`].
    pub(crate) fn restrict_devices(&mut self, resources: &LinuxResources) -> Result<()> {
        let warning = resources::restrict_devices(self, resources, resources::Occasion::Create)?;
        self.warnings.extend(warning);
        Ok(())
    }

    fn make(placement: &Placement, set: impl Fn(&Self) -> Result<Vec<String>>) -> Result<Self> {
        let mut made = Vec::new();
        let created = Self::make_directories(placement, &mut made).and_then(|mut cgroup| {
            cgroup.refuse_occupied(&made)?;
            cgroup.warnings = set(&cgroup)?;
            Ok(cgroup)
        });
        if created.is_err() {
            // The first error is the one to report; a leaf that cannot be removed was used by someone meanwhile.
            for place in made {
                drop(removal::remove(&place));
            }
        }
        created
    }

    /// Makes the parts of a cgroup that are missing and sets its limits, whatever lives in it: for a scope that systemd has
    /// just made around the container's init.
    ///
    /// # Errors
    /// As [`Cgroup::create`], but for processes in it.
    pub fn adopt(placement: &Placement, resources: &LinuxResources) -> Result<Self> {
        let mut cgroup = Self::make_directories(placement, &mut Vec::new())?;
        cgroup.warnings = resources::apply(&cgroup, resources, resources::Occasion::Create)?;
        Ok(cgroup)
    }

    /// Opens an existing cgroup. Hierarchies in which it is already gone are left out.
    ///
    /// # Errors
    /// It exists in no hierarchy (`NotFound`), or cannot be opened.
    pub fn open(placement: &Placement) -> Result<Self> {
        let mut missing = None;
        let mut legacy = Vec::new();
        for place in &placement.legacy {
            match open_place(&place.place) {
                Ok(directory) => {
                    legacy.push(Legacy { controllers: place.controllers.clone(), directory });
                }
                Err(error) if errno(&error) == Some(libc::ENOENT) => missing = Some(error),
                Err(error) => return Err(error),
            }
        }
        let unified = match placement.unified.as_ref().map(open_place) {
            None => None,
            Some(Ok(directory)) => Some(Unified::new(directory)?),
            Some(Err(error)) if errno(&error) == Some(libc::ENOENT) => {
                missing = Some(error);
                None
            }
            Some(Err(error)) => return Err(error),
        };
        match missing {
            Some(error) if legacy.is_empty() && unified.is_none() => Err(error),
            _ => Ok(Self { placement: placement.clone(), legacy, unified, warnings: Vec::new() }),
        }
    }

    /// Opens cgroups that the container has made below its own, for a process that is to run there. Each goes for the
    /// hierarchies of its controllers, or for all.
    ///
    /// # Errors
    /// A path has a `..`, or a cgroup is missing in one of the hierarchies (`NotFound`).
    pub fn open_below(placement: &Placement, below: &[(Vec<String>, PathBuf)]) -> Result<Self> {
        let mut place = placement.clone();
        for (controllers, path) in below {
            place = place.below(controllers, path)?;
        }
        let opened = Self::open(&place)?;
        if opened.legacy.len() == place.legacy.len()
            && opened.unified.is_some() == place.unified.is_some()
        {
            return Ok(opened);
        }
        // A process that is in some of them alone would be outside of the container in the others.
        let (_, missing) = place.directories().find(|(_, path)| !path.is_dir()).unwrap_or_default();
        Err(failure::missing(&missing))
    }

    /// Opens the cgroup for a further process: on cgroup2 a cgroup that passes controllers on to those below it can hold
    /// no process, and the container's init is then in one of those.
    ///
    /// # Errors
    /// As [`Cgroup::open`].
    pub fn open_for_exec(placement: &Placement, init: i32) -> Result<Self> {
        let own = Self::open(placement)?;
        let passes_on = |unified: &Unified| {
            unified
                .directory
                .read("cgroup.subtree_control")
                .is_ok_and(|names| !names.trim().is_empty())
        };
        if !own.legacy.is_empty() || !own.unified.as_ref().is_some_and(passes_on) {
            return Ok(own);
        }
        let table = std::fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap_or_default();
        let path = table.lines().find_map(|line| line.strip_prefix("0::"));
        match path.and_then(|path| placement.at(Path::new(path))) {
            Some(place) => Self::open(&place),
            None => Ok(own),
        }
    }

    /// Opens the cgroup only where its processes are listed, killed and frozen; where it is gone from there, wherever it is
    /// left. Limits and statistics are out of its reach.
    ///
    /// # Errors
    /// As [`Cgroup::open`].
    pub(crate) fn open_for_processes(placement: &Placement) -> Result<Self> {
        match Self::open(&placement.of_processes()) {
            Err(error) if errno(&error) == Some(libc::ENOENT) => Self::open(placement),
            other => other,
        }
    }

    /// Where the cgroup lies: keep this to open it again.
    #[must_use]
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// What [`Cgroup::create`] did not do and the container runs without: obsolete settings that the kernel ignores.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The cgroup2 directory, for `clone3(CLONE_INTO_CGROUP)`; absent on a v1 host.
    #[must_use]
    pub fn dir_fd(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|unified| unified.directory.as_fd())
    }

    /// Opens what is needed to put processes into the cgroup later, so that doing it is one `write(2)` per hierarchy.
    ///
    /// # Errors
    /// A `cgroup.procs` cannot be opened for writing.
    pub fn prepare_join(&self) -> Result<Join> {
        let open = |directory: &Directory| -> Result<JoinFile> {
            let file = directory.open("cgroup.procs", OFlags::WRONLY)?;
            Ok(JoinFile { file, path: directory.path().join("cgroup.procs") })
        };
        Ok(Join {
            legacy: self
                .legacy
                .iter()
                .map(|legacy| open(&legacy.directory))
                .collect::<Result<_>>()?,
            unified: self.unified.as_ref().map(|unified| open(&unified.directory)).transpose()?,
        })
    }

    /// Opens what a process that was born into the cgroup2 half needs to enter the v1 half by itself.
    ///
    /// # Errors
    /// A `tasks` file cannot be opened for writing.
    pub(crate) fn prepare_entry(&self) -> Result<Entry> {
        let open = |legacy: &Legacy| -> Result<JoinFile> {
            let file = legacy.directory.open("tasks", OFlags::WRONLY)?;
            Ok(JoinFile { file, path: legacy.directory.path().join("tasks") })
        };
        self.legacy.iter().map(open).collect::<Result<_>>().map(|files| Entry { files })
    }

    /// Every process in the cgroup and the cgroups below it.
    ///
    /// # Errors
    /// `cgroup.procs` cannot be read.
    pub fn procs(&self) -> Result<Vec<Pid>> {
        match self.membership() {
            Some(directory) => processes::of(directory),
            None => Ok(Vec::new()),
        }
    }

    /// Changes limits of a cgroup in use. Fields that are absent stay as they are. Returns what was ignored.
    ///
    /// # Errors
    /// As [`Cgroup::create`]; limits set before the refused one stay.
    pub fn set(&self, resources: &LinuxResources) -> Result<Vec<String>> {
        resources::apply(self, resources, resources::Occasion::Update)
    }

    /// Reads all statistics the host offers.
    ///
    /// # Errors
    /// A file cannot be read or parsed; files that the kernel does not have leave their part empty.
    pub fn stats(&self) -> Result<Stats> {
        stats::read(self)
    }

    /// Reads the statistics of memory alone; `None` on a host without its controller.
    ///
    /// # Errors
    /// As [`Cgroup::stats`].
    pub fn memory_stats(&self) -> Result<Option<MemoryStats>> {
        stats::read_memory(self)
    }

    /// Removes the cgroup and the cgroups below it from every hierarchy, waiting a bounded time for dying processes to
    /// leave. Removing what is gone is success. Goes on past errors and returns the first.
    ///
    /// # Errors
    /// Processes still live in it (`Conflict`), or the kernel refuses.
    pub fn remove(&self) -> Result<()> {
        Self::remove_at(&self.placement)
    }

    /// As [`Cgroup::remove`], of a cgroup that need not be open.
    ///
    /// # Errors
    /// As [`Cgroup::remove`].
    pub(crate) fn remove_at(placement: &Placement) -> Result<()> {
        let places = placement.unified.iter();
        let places = places.chain(placement.legacy.iter().map(|legacy| &legacy.place));
        let mut first = Ok(());
        for place in places {
            let removed = removal::remove(place);
            first = first.and(removed);
        }
        first
    }

    /// The directory that tells which processes are in the container.
    fn membership(&self) -> Option<&Directory> {
        let unified = self.unified.as_ref().map(|unified| &unified.directory);
        unified
            .or_else(|| self.legacy_controller("freezer"))
            .or_else(|| self.legacy.first().map(|legacy| &legacy.directory))
    }

    fn legacy_controller(&self, name: &str) -> Option<&Directory> {
        self.legacy
            .iter()
            .find(|legacy| legacy.controllers.iter().any(|controller| controller == name))
            .map(|legacy| &legacy.directory)
    }

    /// Finds a controller by its v1 and its v2 name.
    fn controller(&self, v1: &str, v2: &str) -> Option<Located<'_>> {
        if let Some(directory) = self.legacy_controller(v1) {
            return Some(Located::V1(directory));
        }
        self.unified
            .as_ref()
            .filter(|unified| unified.controllers.iter().any(|name| name == v2))
            .map(|unified| Located::V2(&unified.directory))
    }

    /// As [`Cgroup::controller`], when a limit asks for it.
    fn require(&self, field: &'static str, v1: &'static str, v2: &str) -> Result<Located<'_>> {
        self.controller(v1, v2).ok_or_else(|| failure::controller(field, v1))
    }

    fn make_directories(placement: &Placement, made: &mut Vec<Place>) -> Result<Self> {
        let mut legacy = Vec::with_capacity(placement.legacy.len());
        for hierarchy::LegacyPlace { controllers, place } in &placement.legacy {
            let cpuset = controllers.iter().any(|name| name == "cpuset");
            let directory = make_place(place, made, |parent, child| {
                if cpuset { cpu::inherit_cpuset(parent, child) } else { Ok(()) }
            })?;
            legacy.push(Legacy { controllers: controllers.clone(), directory });
        }
        let unified = match &placement.unified {
            None => None,
            Some(place) => {
                let mount = Directory::open_mount(&place.mount)?;
                resources::delegate(&mount, &place.relative)?;
                let directory = make_place(place, made, |_, _| Ok(()))?;
                Some(Unified::new(directory)?)
            }
        };
        Ok(Self { placement: placement.clone(), legacy, unified, warnings: Vec::new() })
    }

    /// Looks for processes, but not in what was just made.
    fn refuse_occupied(&self, made: &[Place]) -> Result<()> {
        let places = self.placement.legacy.iter().map(|legacy| &legacy.place);
        let legacy = places.zip(self.legacy.iter().map(|legacy| &legacy.directory));
        let unified = self.unified.iter().map(|unified| &unified.directory);
        let directories = legacy.chain(self.placement.unified.iter().zip(unified));
        for (place, directory) in directories {
            if !made.contains(place) && !processes::of(directory)?.is_empty() {
                return Err(failure::occupied(directory.path()));
            }
        }
        Ok(())
    }
}

impl Unified {
    fn new(directory: Directory) -> Result<Self> {
        let controllers = directory.read("cgroup.controllers")?;
        let controllers = controllers.split_whitespace().map(ToOwned::to_owned).collect();
        Ok(Self { directory, controllers })
    }
}

/// The open `cgroup.procs` files of a cgroup.
#[derive(Debug)]
pub struct Join {
    legacy: Vec<JoinFile>,
    unified: Option<JoinFile>,
}

#[derive(Debug)]
struct JoinFile {
    file: OwnedFd,
    path: PathBuf,
}

impl Join {
    /// Moves a process, with all its threads, into the cgroup in every hierarchy.
    ///
    /// # Errors
    /// The kernel refuses in one hierarchy; the process may be in others by then.
    pub fn all(&self, pid: Pid) -> Result<()> {
        self.unified.iter().chain(&self.legacy).try_for_each(|file| file.add(pid))
    }
}

/// The open `tasks` files of a cgroup's v1 half.
#[derive(Debug)]
pub(crate) struct Entry {
    files: Vec<JoinFile>,
}

impl Entry {
    /// Moves the calling process, which must have one thread. Child-safe.
    ///
    /// A thread that moves itself is all that the kernel moves without keeping every process of the host from forking and
    /// exiting meanwhile, for which it first waits some milliseconds for a grace period of RCU.
    pub(crate) fn enter(&self) -> std::result::Result<(), Failure> {
        for (index, join) in self.files.iter().enumerate() {
            rustix::io::retry_on_intr(|| rustix::io::write(&join.file, b"0"))
                .at_index(Step::JoinCgroup, index)?;
        }
        Ok(())
    }

    /// Every descriptor that entering works with.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.files.iter().map(|join| join.file.as_raw_fd())
    }

    /// What the step on the item `index` does, for messages.
    pub(crate) fn name(&self, index: usize) -> String {
        let path = self.files.get(index).map(|join| join.path.display().to_string());
        format!("join cgroup by {}", path.unwrap_or_default())
    }
}

impl JoinFile {
    fn add(&self, pid: Pid) -> Result<()> {
        let number = pid.as_raw_nonzero().to_string();
        rustix::io::retry_on_intr(|| rustix::io::write(&self.file, number.as_bytes()))
            .map(drop)
            .map_err(|source| failure::write(&self.path, &number, source))
    }
}

fn open_place(place: &Place) -> Result<Directory> {
    Directory::open_below(&place.mount, &place.relative)
}

/// Makes every directory of a place, and notes the place in `made` when the last one is new.
fn make_place(
    place: &Place,
    made: &mut Vec<Place>,
    initialise: impl Fn(&Directory, &Directory) -> Result<()>,
) -> Result<Directory> {
    let mut directory = Directory::open_mount(&place.mount)?;
    let mut names = place.relative.iter().peekable();
    while let Some(name) = names.next() {
        let (child, new) = directory.make_child(name)?;
        if new && names.peek().is_none() {
            // Noted before anything else can fail.
            made.push(place.clone());
        }
        initialise(&directory, &child)?;
        directory = child;
    }
    Ok(directory)
}

#[cfg(test)]
mod tests;
