//! What a restored container is, by the kernel's own word, held against its configuration.
//!
//! Its processes exist but have not run yet when this is asked. What is found to be more than the configuration gives
//! ends the restore; that it is less, as of a program that has given up privileges, is as it was saved.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use brig_linux::mount::attribute;
use oci_spec::runtime::LinuxIdMapping;
use rustix::fs::{FileType, OFlags, StatVfsMountFlags};

use super::mount_table::{self, Entry, is_below};
use crate::error::{Error, ErrorKind, Result};
use crate::process::id_maps;
use crate::process::plan::Capabilities;
use crate::rootfs::{Action, RootfsPlan, RootfsStep, target};

/// `TMPFS_MAGIC` of statfs(2).
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// Namespaces by their files below `/proc/PID/ns`. That of the time is left out: CRIU makes one where there was none, so
/// that clocks do not go backwards.
const NAMESPACES: [&str; 7] = ["user", "pid", "net", "mnt", "ipc", "uts", "cgroup"];

/// What the configuration gives.
pub(crate) struct Expected<'a> {
    pub(crate) rootfs: &'a RootfsPlan,
    /// Where each step of it ends up, as the container sees it.
    pub(crate) places: &'a [PathBuf],
    pub(crate) capabilities: Capabilities,
    pub(crate) no_new_privileges: bool,
    pub(crate) has_filter: bool,
    pub(crate) label: Option<&'a str>,
    /// New namespaces, by their names in [`NAMESPACES`].
    pub(crate) new: Vec<&'static str>,
    /// Namespaces that are joined.
    pub(crate) joined: Vec<(&'static str, &'a OwnedFd)>,
    pub(crate) id_maps: (&'a [LinuxIdMapping], &'a [LinuxIdMapping]),
    pub(crate) out_of_memory_score: Option<i32>,
    /// The container's processes, its init first.
    pub(crate) processes: Vec<i32>,
}

fn refused(what: impl Into<String>) -> Error {
    let text = format!("restored container has {}", what.into());
    Error::new(ErrorKind::Denied, text).with_advice(
        "a checkpoint cannot give more than the configuration; what it held was killed",
    )
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::system(format!("read {path}"), source))
}

impl Expected<'_> {
    fn init(&self) -> Result<i32> {
        self.processes.first().copied().ok_or_else(|| refused("no process"))
    }

    /// Holds everything but the namespaces against the configuration.
    ///
    /// # Errors
    /// `Denied` with the first thing that is more.
    pub(crate) fn check(&self) -> Result<()> {
        let init = self.init()?;
        for pid in &self.processes {
            self.check_process(*pid)?;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = format!("/proc/{init}/root");
        let root = rustix::fs::open(&path, flags, rustix::fs::Mode::empty())
            .map_err(|errno| Error::system(format!("open {path}"), errno))?;
        let entries = mount_table::of(init)?;
        self.check_root(root.as_fd(), &entries)?;
        for entry in &entries {
            self.check_known(entry)?;
        }
        for (step, place) in self.rootfs.steps.iter().zip(self.places) {
            check_step(root.as_fd(), step, place, &entries)?;
        }
        self.check_masks(root.as_fd())
    }

    /// Holds the namespaces against the configuration, before anything enters them.
    ///
    /// # Errors
    /// `Denied` with the first that is another.
    pub(crate) fn check_namespaces(&self) -> Result<()> {
        let init = self.init()?;
        for name in NAMESPACES {
            let of = |pid: &str| {
                let path = format!("/proc/{pid}/ns/{name}");
                let about = std::fs::metadata(&path);
                about
                    .map(|it| it.ino())
                    .map_err(|source| Error::system(format!("look at {path}"), source))
            };
            let (own, ours) = (of(&init.to_string())?, of("self")?);
            let joined = self.joined.iter().find(|(kind, _)| *kind == name);
            let right = match joined {
                Some((_, fd)) => rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_ino == own),
                None => (own != ours) == self.new.contains(&name),
            };
            if !right {
                return Err(refused(format!(
                    "another {name} namespace than linux.namespaces says"
                )));
            }
            for pid in &self.processes {
                if of(&pid.to_string())? != own {
                    return Err(refused(format!("processes in several {name} namespaces")));
                }
            }
        }
        if !self.new.contains(&"user") {
            return Ok(());
        }
        for (file, maps) in [("uid_map", self.id_maps.0), ("gid_map", self.id_maps.1)] {
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let found = read(&format!("/proc/{init}/{file}"))?;
            if words(&found) != words(&id_maps::text(maps)) {
                return Err(refused(format!("another {file} than its configuration")));
            }
        }
        Ok(())
    }

    fn check_process(&self, pid: i32) -> Result<()> {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
            .map_err(|source| Error::system("list threads", source))?;
        for thread in threads {
            let thread = thread.map_err(|source| Error::system("list threads", source))?;
            let path = thread.path().display().to_string();
            self.check_status(&read(&format!("{path}/status"))?)?;
            if let Some(label) = self.label {
                let current = read(&format!("{path}/attr/current")).unwrap_or_default();
                let current = current.trim_end_matches(['\0', '\n']);
                if current.split(" (").next() != Some(label) {
                    return Err(refused(format!("the security label {current:?}, not {label:?}")));
                }
            }
        }
        let Some(score) = self.out_of_memory_score else { return Ok(()) };
        let path = format!("/proc/{pid}/oom_score_adj");
        let own: i32 = read(&path)?.trim().parse().unwrap_or(i32::MIN);
        if own >= score {
            return Ok(());
        }
        std::fs::write(&path, score.to_string())
            .map_err(|source| Error::system(format!("set oom_score_adj to {score}"), source))
    }

    /// `/proc/PID/status`, proc_pid_status(5).
    fn check_status(&self, status: &str) -> Result<()> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim).unwrap_or_default()
        };
        let sets = &self.capabilities;
        // Whatever a process gains by an exec stays within the bounding set; inheritable ones may have been there before.
        let most = sets.bounding.bits();
        for (name, most) in [
            ("CapBnd", most),
            ("CapPrm", most | sets.permitted.bits()),
            ("CapEff", most | sets.permitted.bits()),
            ("CapAmb", most | sets.permitted.bits()),
            ("CapInh", most | sets.inheritable.bits()),
        ] {
            let found = u64::from_str_radix(field(name), 16).unwrap_or(u64::MAX);
            if found & !most != 0 {
                let text = format!("{name} {found:#x}, more than process.capabilities");
                return Err(refused(text));
            }
        }
        if self.no_new_privileges && field("NoNewPrivs") != "1" {
            return Err(refused("processes without no_new_privs"));
        }
        if self.has_filter && field("Seccomp") != "2" {
            return Err(refused("processes without a seccomp filter"));
        }
        Ok(())
    }

    fn check_root(&self, root: BorrowedFd<'_>, entries: &[Entry]) -> Result<()> {
        let own = self.rootfs.tree.get().and_then(rustix::fs::fstat);
        let same = own.is_ok_and(|own| {
            rustix::fs::fstat(root)
                .is_ok_and(|found| (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino))
        });
        if !same {
            return Err(refused("another root filesystem"));
        }
        let mount = entries.iter().rev().find(|entry| entry.point == Path::new("/"));
        if self.rootfs.read_only_root && !mount.is_some_and(|mount| mount.has("ro")) {
            return Err(refused("a writable root filesystem"));
        }
        Ok(())
    }

    /// Whether a mount has a reason in the configuration.
    fn check_known(&self, entry: &Entry) -> Result<()> {
        let steps = self.rootfs.steps.iter().zip(self.places);
        let by_step =
            steps.filter(|(_, place)| *place == &entry.point).any(|(step, _)| match &step.action {
                Action::Filesystem(plan) => {
                    let kind = plan.kind.to_bytes();
                    let whole = entry.root == Path::new("/") || kind.starts_with(b"cgroup");
                    kind == entry.kind.as_bytes() && whole
                }
                _ => true,
            });
        let named = |paths: &[CString]| paths.iter().any(|path| is_at(path, &entry.point));
        let device = self
            .rootfs
            .devices
            .iter()
            .any(|device| device.host.to_bytes() == entry.point.as_os_str().as_bytes());
        let console = entry.point == Path::new("/dev/console") && entry.kind == "devpts";
        let proc = entry.kind == "proc" || entry.kind == "sysfs";
        let known = entry.point == Path::new("/")
            || by_step
            || (named(&self.rootfs.masked) && matches!(entry.kind.as_str(), "tmpfs" | "devtmpfs"))
            || (named(&self.rootfs.read_only) && entry.has("ro") && proc)
            || device
            || console;
        if known {
            return Ok(());
        }
        Err(refused(format!("a mount at {:?}, which is not configured", entry.point.display())))
    }

    fn check_masks(&self, root: BorrowedFd<'_>) -> Result<()> {
        for path in &self.rootfs.masked {
            let Ok(found) = target::find(root, path) else { continue };
            let stat = rustix::fs::fstat(&found)
                .map_err(|errno| Error::system("look at a masked path", errno))?;
            let null = stat.st_rdev == rustix::fs::makedev(1, 3)
                && FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
            let empty = rustix::fs::fstatfs(&found).is_ok_and(|about| about.f_type == TMPFS_MAGIC)
                && is_read_only(&found)
                && stat.st_nlink <= 2;
            if !null && !empty {
                return Err(refused(format!("/{} unmasked", path.to_string_lossy())));
            }
        }
        for path in &self.rootfs.read_only {
            let Ok(found) = target::find(root, path) else { continue };
            if !is_read_only(&found) {
                return Err(refused(format!("/{} writable", path.to_string_lossy())));
            }
        }
        Ok(())
    }
}

fn is_read_only(found: &OwnedFd) -> bool {
    rustix::fs::fstatvfs(found).is_ok_and(|about| about.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Whether a path of the configuration is this one, as the container sees it.
fn is_at(path: &CStr, point: &Path) -> bool {
    point.as_os_str().as_bytes().strip_prefix(b"/") == Some(path.to_bytes())
}

/// Whether what a step wants is there, with at least its restrictions.
fn check_step(
    root: BorrowedFd<'_>,
    step: &RootfsStep,
    place: &Path,
    entries: &[Entry],
) -> Result<()> {
    let wanted = match &step.action {
        Action::Attach { tree, .. } => tree.attributes(),
        Action::Filesystem(plan) => plan.attributes,
        Action::Change { attributes, .. } => attributes.bits(),
        Action::Reconfigure { .. } | Action::Link { .. } => return Ok(()),
    };
    let missing = || refused(format!("not the {}", step.label));
    let mut mounts = entries.iter().rev().filter(|entry| entry.point == place);
    let Some(mount) = mounts.next() else {
        // Something that is mounted over it hides it.
        let hidden = entries.iter().any(|entry| is_below(place, &entry.point));
        return if hidden && matches!(step.action, Action::Change { .. }) {
            Ok(())
        } else {
            Err(missing())
        };
    };
    for (bit, option) in [
        (attribute::READ_ONLY, "ro"),
        (attribute::NO_SUID, "nosuid"),
        (attribute::NO_DEV, "nodev"),
        (attribute::NO_EXEC, "noexec"),
    ] {
        if wanted & bit != 0 && !mount.has(option) {
            return Err(refused(format!("{} without {option}", step.label)));
        }
    }
    let Action::Attach { tree, .. } = &step.action else { return Ok(()) };
    let identity =
        |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    let own = tree.get().and_then(identity);
    let path = CString::new(place.as_os_str().as_bytes()).map_err(|_| missing())?;
    let found = target::find(root, &path).and_then(|found| identity(found.as_fd()));
    match (own, found) {
        (Ok(own), Ok(found)) if own == found => Ok(()),
        _ => Err(missing()),
    }
}
