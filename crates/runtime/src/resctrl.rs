//! `linux.intelRdt`: classes of service and monitoring groups of the resctrl filesystem, by the rules of the runtime
//! specification and the kernel's documentation (filesystems/resctrl.rst).
//!
//! ```text
//! /sys/fs/resctrl/<closID>/{schemata,tasks}       a class of service; without closID the container's id names it
//!                 <closID>/mon_groups/<id>/tasks  with enableMonitoring
//! ```
//!
//! A group is recorded in the container's state before it is made, and only what was made for the container is removed
//! with it. Tested on a recorded tree: few machines have the hardware.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// The longest schemata that are written, in bytes: a page, which the kernel takes at once.
const SCHEMATA_MAX: usize = 4096;

/// The groups of one container, as its state keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Groups {
    class: PathBuf,
    /// Whether the class was made for this container alone.
    own_class: bool,
    /// The monitoring group, made for this container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitor: Option<PathBuf>,
}

/// What a configuration asks for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) groups: Groups,
    must_exist: bool,
    schemata: String,
}

/// Where resctrl is mounted, by proc_pid_mountinfo(5).
///
/// # Errors
/// `Unsupported` where it is not.
pub(crate) fn mount_point() -> Result<PathBuf> {
    let path = "/proc/thread-self/mountinfo";
    let table = std::fs::read_to_string(path)
        .map_err(|source| Error::system(format!("read {path}"), source))?;
    find_mount(&table).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "linux.intelRdt: resctrl is not mounted").with_advice(
            "mount it (mount -t resctrl resctrl /sys/fs/resctrl) where the processor has RDT",
        )
    })
}

fn find_mount(table: &str) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let is_resctrl = after.split(' ').next() == Some("resctrl");
        is_resctrl.then(|| before.split(' ').nth(4).map(PathBuf::from)).flatten()
    })
}

impl Plan {
    /// Checks a configuration against what is there.
    ///
    /// # Errors
    /// `InvalidInput` for names and schemata that cannot be; `NotFound` for a class that must exist; `Conflict` for one
    /// that exists with other schemata.
    pub(crate) fn new(root: &Path, wanted: &LinuxIntelRdt, id: &str) -> Result<Self> {
        let given = wanted.clos_id().as_deref().filter(|name| !name.is_empty());
        let name = given.unwrap_or(id);
        let reserved = matches!(name, "." | ".." | "info" | "mon_data" | "mon_groups");
        if reserved || name.bytes().any(|byte| b"/\0\n".contains(&byte)) || name.len() > 255 {
            let text = format!("linux.intelRdt.closID {name:?} is not the name of a group");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let class = root.join(name);
        let monitor = monitors(wanted).then(|| class.join("mon_groups").join(id));
        let groups = Groups { class, own_class: given.is_none(), monitor };
        let schemata = schemata(wanted)?;
        let plan = Self { groups, must_exist: given.is_some() && schemata.is_empty(), schemata };
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<()> {
        let class = &self.groups.class;
        if !class.exists() {
            if self.must_exist {
                let text = format!("linux.intelRdt.closID: {} does not exist", class.display());
                return Err(Error::new(ErrorKind::NotFound, text)
                    .with_advice("make the group beforehand, or say its schemata"));
            }
            return Ok(());
        }
        if self.groups.own_class || self.schemata.is_empty() {
            return Ok(());
        }
        let path = class.join("schemata");
        let present = std::fs::read_to_string(&path)
            .map_err(|source| Error::system(format!("read {}", path.display()), source))?;
        let (present, wanted) = (parse(&present), parse(&self.schemata));
        if wanted.iter().all(|(key, value)| present.get(key) == Some(value)) {
            return Ok(());
        }
        let text = format!("linux.intelRdt: {} has other schemata", class.display());
        Err(Error::new(ErrorKind::Conflict, text))
    }

    /// Makes the groups and puts a process into them; programs inherit them.
    ///
    /// # Errors
    /// What the kernel refused, by the file.
    pub(crate) fn apply(&self, pid: i32) -> Result<()> {
        let class = &self.groups.class;
        let made = make_directory(class)?;
        if !self.schemata.is_empty() && (made || self.groups.own_class) {
            write(&class.join("schemata"), &self.schemata)?;
        }
        self.groups.monitor.as_deref().map(make_directory).transpose()?;
        self.groups.join(pid)
    }
}

impl Groups {
    /// Puts a further process into the groups.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(crate) fn join(&self, pid: i32) -> Result<()> {
        let pid = pid.to_string();
        write(&self.class.join("tasks"), &pid)?;
        self.monitor.iter().try_for_each(|monitor| write(&monitor.join("tasks"), &pid))
    }

    /// Changes the schemata of the class, as far as `wanted` says some.
    ///
    /// # Errors
    /// `Conflict` for a class that others share; what the kernel refused.
    pub(crate) fn change(&self, wanted: &LinuxIntelRdt) -> Result<()> {
        if !self.own_class {
            let text = format!("linux.intelRdt: {} is not this container's", self.class.display());
            return Err(Error::new(ErrorKind::Conflict, text)
                .with_advice("change the class itself, which other containers may share"));
        }
        write(&self.class.join("schemata"), &schemata(wanted)?)
    }

    /// Removes what was made for the container; what is gone is fine.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn remove(&self) -> Result<()> {
        let class = self.own_class.then_some(&self.class);
        for path in self.monitor.iter().chain(class) {
            match std::fs::remove_dir(path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::system(format!("remove {}", path.display()), source));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The two older switches mean the same since the specification's version 1.3.
fn monitors(wanted: &LinuxIntelRdt) -> bool {
    [wanted.enable_monitoring(), wanted.enable_cmt(), wanted.enable_mbm()]
        .into_iter()
        .any(|switch| *switch == Some(true))
}

/// The lines to write; the older fields count only without `schemata`.
fn schemata(wanted: &LinuxIntelRdt) -> Result<String> {
    let mut lines: Vec<&str> = wanted.schemata().iter().flatten().map(String::as_str).collect();
    if lines.is_empty() {
        let older = [wanted.l3_cache_schema(), wanted.mem_bw_schema()];
        lines.extend(older.into_iter().flatten().flat_map(|text| text.lines()));
    }
    let wrong = lines.iter().find(|line| !line.contains(':') || line.contains(['\n', '\0']));
    if let Some(line) = wrong {
        let text = format!("linux.intelRdt: {line:?} is not a line of schemata");
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
    if text.len() > SCHEMATA_MAX {
        let text = format!("linux.intelRdt: schemata are longer than {SCHEMATA_MAX} bytes");
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(text)
}

/// `L3:0=ff;1=0f` by resource and domain, without leading zeros, which the kernel adds.
fn parse(schemata: &str) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for line in schemata.lines() {
        let Some((resource, domains)) = line.split_once(':') else { continue };
        for (domain, value) in domains.split(';').filter_map(|pair| pair.split_once('=')) {
            let value = value.trim().trim_start_matches('0').to_ascii_lowercase();
            found.insert((resource.trim().to_owned(), domain.trim().to_owned()), value);
        }
    }
    found
}

/// Whether it is new.
fn make_directory(path: &Path) -> Result<bool> {
    match std::fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(Error::system(format!("make {}", path.display()), source)),
    }
}

/// The kernel makes the files with the group and lets nobody else make any.
fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| {
            let text = format!("write {:?} to {}", text.trim_end(), path.display());
            Error::system(text, source).with_advice("see info/last_cmd_status of resctrl")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree as a machine with cache allocation, bandwidth allocation and monitoring shows it.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in ["info/L3", "info/MB", "mon_groups", "gold/mon_groups"] {
            std::fs::create_dir_all(root.path().join(name)).unwrap();
        }
        std::fs::write(root.path().join("schemata"), "    L3:0=fffff;1=fffff\n    MB:0=100\n")
            .unwrap();
        std::fs::write(root.path().join("gold/schemata"), "    L3:0=000ff;1=0000f\n").unwrap();
        std::fs::write(root.path().join("gold/tasks"), "").unwrap();
        root
    }

    fn plan(root: &tempfile::TempDir, text: &str) -> Result<Plan> {
        Plan::new(root.path(), &serde_json::from_str(text).unwrap(), "web")
    }

    fn read(root: &tempfile::TempDir, name: &str) -> String {
        std::fs::read_to_string(root.path().join(name)).unwrap()
    }

    #[test]
    fn without_a_class_the_container_gets_its_own_and_takes_it_along() {
        let root = tree();
        let made = plan(&root, r#"{"l3CacheSchema":"L3:0=f","memBwSchema":"MB:0=20"}"#).unwrap();
        made.apply(42).unwrap();
        assert_eq!(read(&root, "web/schemata"), "L3:0=f\nMB:0=20\n");
        assert_eq!(read(&root, "web/tasks"), "42");
        let other = serde_json::from_str(r#"{"memBwSchema":"MB:0=30"}"#).unwrap();
        // The kernel takes lines one by one; a recorded file keeps what is beyond the last write.
        std::fs::write(root.path().join("web/schemata"), "").unwrap();
        made.groups.change(&other).unwrap();
        assert_eq!(read(&root, "web/schemata"), "MB:0=30\n");
        // The kernel removes a group's files with it.
        for file in ["schemata", "tasks"] {
            std::fs::remove_file(root.path().join("web").join(file)).unwrap();
        }
        made.groups.remove().unwrap();
        assert!(!root.path().join("web").exists());
        made.groups.remove().unwrap();
    }

    #[test]
    fn a_named_class_is_shared_and_stays() {
        let root = tree();
        let shared = plan(&root, r#"{"closID":"gold","enableMonitoring":true}"#).unwrap();
        std::fs::create_dir(root.path().join("gold/mon_groups/web")).unwrap();
        shared.apply(42).unwrap();
        assert_eq!(read(&root, "gold/tasks"), "42");
        assert_eq!(read(&root, "gold/mon_groups/web/tasks"), "42");
        std::fs::remove_file(root.path().join("gold/mon_groups/web/tasks")).unwrap();
        shared.groups.remove().unwrap();
        assert!(root.path().join("gold").exists());
        assert!(!root.path().join("gold/mon_groups/web").exists());
        shared.groups.join(43).unwrap_err();
        let other = serde_json::from_str(r#"{"l3CacheSchema":"L3:0=1"}"#).unwrap();
        assert_eq!(shared.groups.change(&other).unwrap_err().kind(), ErrorKind::Conflict);
    }

    #[test]
    fn schemata_of_an_existing_class_must_agree() {
        let root = tree();
        for (text, kind) in [
            (r#"{"closID":"gold","schemata":["L3:0=ff"]}"#, None),
            (r#"{"closID":"gold","schemata":["L3:1=f;0=FF"]}"#, None),
            (r#"{"closID":"gold","schemata":["L3:0=f"]}"#, Some(ErrorKind::Conflict)),
            (r#"{"closID":"new"}"#, Some(ErrorKind::NotFound)),
            (r#"{"closID":"new","schemata":["MB:0=20"]}"#, None),
            (r#"{"closID":"../x"}"#, Some(ErrorKind::InvalidInput)),
            (r#"{"closID":"info"}"#, Some(ErrorKind::InvalidInput)),
            (r#"{"schemata":["L3:0=f\nMB:0=1"]}"#, Some(ErrorKind::InvalidInput)),
            (r#"{"schemata":["nonsense"]}"#, Some(ErrorKind::InvalidInput)),
        ] {
            assert_eq!(plan(&root, text).err().map(|error| error.kind()), kind, "{text}");
        }
    }

    #[test]
    fn the_mount_is_found_by_its_type() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                     40 31 0:37 / /sys/fs/resctrl rw,relatime - resctrl resctrl rw\n";
        assert_eq!(find_mount(table).unwrap(), Path::new("/sys/fs/resctrl"));
        assert_eq!(find_mount(""), None);
    }
}
