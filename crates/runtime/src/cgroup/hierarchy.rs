//! Which cgroup hierarchies are mounted, and where a container's cgroup lies in each.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use serde::{Deserialize, Serialize};

use super::directory::{Directory, is_hierarchy};
use super::failure::{self, Result};

/// Longest `cgroupsPath` accepted, in bytes: the kernel's PATH_MAX less room for the mount point and file names.
const PATH_LIMIT: usize = 3072;

/// What a table in `/proc` mostly fits in, in bytes.
const PROC_FILE_SIZE: usize = 16 << 10;

/// How the host arranges its controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only v1 hierarchies.
    V1,
    /// v1 hierarchies carry the controllers, and a cgroup2 mount beside them tracks processes.
    Hybrid,
    /// One cgroup2 hierarchy.
    V2,
}

/// The mounted hierarchies and the caller's own place in each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    legacy: Vec<Hierarchy>,
    unified: Option<Hierarchy>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    /// v1 controllers as the kernel names them, or `name=systemd` for a named hierarchy; empty on v2.
    controllers: Vec<String>,
    mount: PathBuf,
    /// The caller's cgroup, relative to the mount.
    own: PathBuf,
}

/// Where one container's cgroup lies in every hierarchy: what a runtime keeps in its state, to find the cgroup again
/// from any process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// v1 hierarchies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) legacy: Vec<LegacyPlace>,
    /// The cgroup2 hierarchy, alone or beside v1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unified: Option<Place>,
    /// Made for a caller without privileges, who may not say which devices may be used, and in whose containers nobody may
    /// use more of them than the caller.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) unprivileged: bool,
}

/// A cgroup in a v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LegacyPlace {
    pub(super) controllers: Vec<String>,
    #[serde(flatten)]
    pub(super) place: Place,
}

/// A cgroup beneath a mount point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) mount: PathBuf,
    pub(super) relative: PathBuf,
}

impl Hierarchies {
    /// Finds the hierarchies of the calling thread, wherever they are mounted.
    ///
    /// # Errors
    /// `/proc` cannot be read, or no hierarchy is mounted.
    pub fn detect() -> Result<Self> {
        let mountinfo = read_proc("/proc/thread-self/mountinfo")?;
        let membership = read_proc("/proc/thread-self/cgroup")?;
        let mut found = Self::parse(&mountinfo, &membership);
        // A later mount may hide one that mountinfo still lists.
        found.legacy.retain(|hierarchy| is_hierarchy(&hierarchy.mount));
        found.unified = found.unified.filter(|hierarchy| is_hierarchy(&hierarchy.mount));
        if found.legacy.is_empty() && found.unified.is_none() {
            return Err(failure::no_hierarchy());
        }
        Ok(found)
    }

    /// Reads `mountinfo` (proc_pid_mountinfo(5)) and `/proc/self/cgroup` (cgroups(7)).
    pub(crate) fn parse(mountinfo: &str, membership: &str) -> Self {
        let memberships: Vec<Membership<'_>> =
            membership.lines().filter_map(Membership::parse).collect();
        let mut found = Self { legacy: Vec::new(), unified: None };
        for mount in mountinfo.lines().filter_map(CgroupMount::parse) {
            let member = memberships.iter().find(|member| mount.shows(member));
            let own = member.map_or("/", |member| member.path);
            let hierarchy = Hierarchy {
                controllers: member
                    .map(|member| member.controllers.iter().map(ToString::to_string).collect())
                    .unwrap_or_default(),
                own: relative_to(Path::new(own), &mount.root),
                mount: mount.point,
            };
            if mount.version == 2 {
                found.unified.get_or_insert(hierarchy);
            } else if !hierarchy.controllers.is_empty()
                && !found.legacy.iter().any(|known| known.controllers == hierarchy.controllers)
            {
                found.legacy.push(hierarchy);
            }
        }
        found
    }

    /// How the controllers are arranged.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match (self.legacy.is_empty(), self.unified.is_some()) {
            (true, _) => Mode::V2,
            (false, true) => Mode::Hybrid,
            (false, false) => Mode::V1,
        }
    }

    /// The controllers that can limit something here, by the name of whichever version holds them.
    ///
    /// # Errors
    /// `cgroup.controllers` cannot be read.
    pub fn controllers(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = self
            .legacy
            .iter()
            .flat_map(|hierarchy| hierarchy.controllers.iter())
            .filter(|name| !name.starts_with("name="))
            .cloned()
            .collect();
        if let Some(unified) = &self.unified {
            let root = Directory::open_mount(&unified.mount)?;
            names
                .extend(root.read("cgroup.controllers")?.split_whitespace().map(ToOwned::to_owned));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Decides where a container's cgroup goes, by runc's rules: an absolute `cgroupsPath` counts from the root of
    /// each hierarchy, a relative one from the caller's own cgroup, and without one the container's id is the path.
    ///
    /// On a pure v2 host "the caller's own cgroup" is the parent of it, since a cgroup that holds processes cannot give
    /// controllers to its children (cgroups(7), "no internal processes").
    ///
    /// # Errors
    /// The path is too long, names no cgroup below the root, or has a `..` component.
    pub fn placement(&self, cgroups_path: Option<&Path>, id: &str) -> Result<Placement> {
        let requested = match cgroups_path {
            Some(path) if !path.as_os_str().is_empty() => path,
            _ => Path::new(id),
        };
        let below = checked_relative(requested)?;
        let locate = |hierarchy: &Hierarchy, base: &Path| Place {
            mount: hierarchy.mount.clone(),
            relative: if requested.is_absolute() { below.clone() } else { base.join(&below) },
        };
        let legacy = self
            .legacy
            .iter()
            .map(|hierarchy| LegacyPlace {
                controllers: hierarchy.controllers.clone(),
                place: locate(hierarchy, &hierarchy.own),
            })
            .collect();
        let unified = self.unified.as_ref().map(|hierarchy| match self.mode() {
            Mode::V2 => locate(hierarchy, hierarchy.own.parent().unwrap_or(&hierarchy.own)),
            Mode::V1 | Mode::Hybrid => locate(hierarchy, &hierarchy.own),
        });
        Ok(Placement { legacy, unified, unprivileged: false })
    }

    /// As [`Hierarchies::placement`] without a path, for a caller without privileges: only in hierarchies in which the
    /// caller may make cgroups beside or, where only the caller's own cgroup was delegated, below itself.
    ///
    /// # Errors
    /// As [`Hierarchies::placement`].
    pub fn delegated(&self, id: &str) -> Result<Placement> {
        let mut placement = self.placement(None, id)?.unprivileged();
        let allowed = |place: &Place| {
            let base = place.mount.join(place.relative.parent().unwrap_or_else(|| Path::new("")));
            is_writable(&base)
        };
        placement.legacy.retain(|legacy| allowed(&legacy.place));
        if let (Some(place), Some(hierarchy)) = (&mut placement.unified, &self.unified)
            && !allowed(place)
        {
            place.relative = hierarchy.own.join(id);
        }
        placement.unified = placement.unified.filter(allowed);
        Ok(placement)
    }

    /// A container's place, and in hierarchies in which it has none the caller's own: where its processes are.
    #[must_use]
    pub fn completed(&self, placement: &Placement) -> Placement {
        let own = |hierarchy: &Hierarchy| Place {
            mount: hierarchy.mount.clone(),
            relative: hierarchy.own.clone(),
        };
        let legacy = self.legacy.iter().map(|hierarchy| {
            let same = |legacy: &&LegacyPlace| legacy.controllers == hierarchy.controllers;
            placement.legacy.iter().find(same).cloned().unwrap_or_else(|| LegacyPlace {
                controllers: hierarchy.controllers.clone(),
                place: own(hierarchy),
            })
        });
        Placement {
            legacy: legacy.collect(),
            unified: placement.unified.clone().or_else(|| self.unified.as_ref().map(own)),
            unprivileged: placement.unprivileged,
        }
    }

    /// Where another process is, in the hierarchies in which it is not where the caller is: the cgroups that somebody
    /// made for it.
    ///
    /// # Errors
    /// The process's membership cannot be read.
    pub fn placement_of(&self, pid: i32) -> Result<Placement> {
        let membership = read_proc(&format!("/proc/{pid}/cgroup"))?;
        let mountinfo = read_proc("/proc/thread-self/mountinfo")?;
        let theirs = Self::parse(&mountinfo, &membership);
        let place = |own: &Hierarchy, theirs: &Hierarchy| {
            (own.own != theirs.own)
                .then(|| Place { mount: own.mount.clone(), relative: theirs.own.clone() })
        };
        let legacy = self.legacy.iter().filter_map(|own| {
            let theirs = theirs.legacy.iter().find(|each| each.controllers == own.controllers)?;
            let place = place(own, theirs)?;
            Some(LegacyPlace { controllers: own.controllers.clone(), place })
        });
        let unified = self.unified.as_ref().zip(theirs.unified.as_ref());
        Ok(Placement {
            legacy: legacy.collect(),
            unified: unified.and_then(|(own, theirs)| place(own, theirs)),
            unprivileged: false,
        })
    }
}

impl Placement {
    /// The same place, for a caller without privileges.
    #[must_use]
    pub fn unprivileged(self) -> Self {
        Self { unprivileged: true, ..self }
    }

    /// Only where a user's own systemd makes cgroups.
    #[must_use]
    pub(crate) fn of_systemd(mut self) -> Self {
        self.legacy.retain(|legacy| legacy.controllers == ["name=systemd"]);
        self
    }

    /// Whether it names no cgroup at all: the container stays where its caller is.
    #[must_use]
    pub fn is_nowhere(&self) -> bool {
        self.legacy.is_empty() && self.unified.is_none()
    }

    /// The place of a cgroup below this one; an absolute path counts from this one too, as the container sees it. With
    /// `controllers` only in the hierarchies that have one of them; the place is the same in the others.
    pub(super) fn below(&self, controllers: &[String], relative: &Path) -> Result<Self> {
        if relative == Path::new("/") {
            return Ok(self.clone());
        }
        let relative = checked_relative(relative)?;
        let mut below = self.clone();
        for legacy in &mut below.legacy {
            let named = legacy.controllers.iter().any(|name| controllers.contains(name));
            if controllers.is_empty() || named {
                legacy.place.relative.push(&relative);
            }
        }
        if let Some(place) = below.unified.as_mut().filter(|_| controllers.is_empty()) {
            place.relative.push(&relative);
        }
        Ok(below)
    }

    /// The place in the v1 hierarchy that has a controller.
    pub(super) fn controller(&self, name: &str) -> Option<&Place> {
        let has = |legacy: &&LegacyPlace| legacy.controllers.iter().any(|it| it == name);
        self.legacy.iter().find(has).map(|legacy| &legacy.place)
    }

    /// The hierarchies by which processes are listed, killed and frozen: cgroup2 and v1's freezer. All, where neither is.
    pub(super) fn of_processes(&self) -> Self {
        let freezer = |legacy: &&LegacyPlace| legacy.controllers.iter().any(|it| it == "freezer");
        let found = Self {
            legacy: self.legacy.iter().filter(freezer).cloned().collect(),
            unified: self.unified.clone(),
            unprivileged: self.unprivileged,
        };
        if found.legacy.is_empty() && found.unified.is_none() { self.clone() } else { found }
    }

    /// On a host with cgroup2 alone: the place at `path`, a line of `/proc/PID/cgroup`, if it lies below this one.
    pub(super) fn at(&self, path: &Path) -> Option<Self> {
        let unified = self.unified.as_ref().filter(|_| self.legacy.is_empty())?;
        let tail = unified.relative.file_name()?;
        let mut parts = path.iter().skip_while(|part| *part != tail).skip(1).peekable();
        parts.peek()?;
        let mut found = self.clone();
        found.unified.as_mut()?.relative.extend(parts);
        Some(found)
    }

    /// The directory of the cgroup in every hierarchy: the v1 controllers as joined in `/proc/self/cgroup`, and an
    /// empty name for cgroup2.
    pub fn directories(&self) -> impl Iterator<Item = (String, PathBuf)> + '_ {
        let legacy = self.legacy.iter().map(|legacy| {
            (legacy.controllers.join(","), legacy.place.mount.join(&legacy.place.relative))
        });
        let unified =
            self.unified.iter().map(|place| (String::new(), place.mount.join(&place.relative)));
        legacy.chain(unified)
    }
}

/// One line of `/proc/self/cgroup`: `hierarchy-ID:controller-list:cgroup-path`.
struct Membership<'a> {
    controllers: Vec<&'a str>,
    path: &'a str,
}

impl<'a> Membership<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(3, ':');
        let _id = fields.next()?;
        let controllers = fields.next()?.split(',').filter(|name| !name.is_empty()).collect();
        Some(Self { controllers, path: fields.next()? })
    }
}

/// One cgroup mount of mountinfo.
struct CgroupMount<'a> {
    version: u8,
    root: PathBuf,
    point: PathBuf,
    options: Vec<&'a str>,
}

impl<'a> CgroupMount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let root = unescape(before.next()?);
        let point = unescape(before.next()?);
        let mut after = after.split(' ');
        let version = match after.next()? {
            "cgroup" => 1,
            "cgroup2" => 2,
            _ => return None,
        };
        let options = after.nth(1)?.split(',').collect();
        Some(Self { version, root, point, options })
    }

    /// Whether the membership line speaks of this mount's hierarchy.
    fn shows(&self, member: &Membership<'_>) -> bool {
        match self.version {
            2 => member.controllers.is_empty(),
            _ => {
                !member.controllers.is_empty()
                    && member.controllers.iter().all(|name| self.options.contains(name))
            }
        }
    }
}

/// Undoes mountinfo's octal escapes of space, tab, newline and backslash.
pub(crate) fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let octal = bytes
            .get(index + 1..index + 4)
            .filter(|digits| {
                bytes[index] == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d))
            })
            .map(|digits| {
                digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'))
            })
            .and_then(|value| u8::try_from(value).ok());
        if let Some(byte) = octal {
            out.push(byte);
            index += 4;
        } else {
            out.push(bytes[index]);
            index += 1;
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

/// The caller's cgroup beneath the mount. A mount that shows a part of the hierarchy where the caller is not, or a
/// cgroup outside the caller's cgroup namespace (`/../x`), leaves only the mount itself.
fn relative_to(own: &Path, mount_root: &Path) -> PathBuf {
    let relative = own.strip_prefix(mount_root).unwrap_or_else(|_| Path::new(""));
    if relative.components().all(|part| matches!(part, Component::Normal(_))) {
        relative.to_owned()
    } else {
        PathBuf::new()
    }
}

fn checked_relative(path: &Path) -> Result<PathBuf> {
    let invalid = |why| Err(failure::invalid("linux.cgroupsPath", path.display(), why));
    if path.as_os_str().len() > PATH_LIMIT {
        return invalid("longer than 3072 bytes");
    }
    let mut below = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => below.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir => return invalid("`..` would leave the hierarchy"),
            Component::Prefix(_) => return invalid("not a Linux path"),
        }
    }
    if below.as_os_str().is_empty() {
        return invalid("names the root cgroup; name one below it");
    }
    Ok(below)
}

/// Whether the caller may make cgroups in a cgroup and move processes from there into them.
fn is_writable(cgroup: &Path) -> bool {
    let may =
        |path: &Path| rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    may(cgroup) && may(&cgroup.join("cgroup.procs"))
}

fn read_proc(path: &str) -> Result<String> {
    // procfs tells no size; without room from the start the text would be read a few bytes at a time.
    let mut text = String::with_capacity(PROC_FILE_SIZE);
    std::fs::File::open(path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(|source| failure::file("read", Path::new(path), source))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";
    const HYBRID_MEMBERSHIP: &str = "9:name=systemd:/
4:memory:/process_api/7d65
1:cpu,cpuacct:/
0::/
";

    fn hybrid() -> Hierarchies {
        Hierarchies::parse(HYBRID_MOUNTS, HYBRID_MEMBERSHIP)
    }

    fn directories(placement: &Placement) -> Vec<(String, String)> {
        placement
            .directories()
            .map(|(name, path)| (name, path.to_string_lossy().into_owned()))
            .collect()
    }

    #[test]
    fn hybrid_hosts_show_both_versions() {
        let found = hybrid();
        assert_eq!(found.mode(), Mode::Hybrid);
        let placement = found.placement(Some(Path::new("/brig/abc")), "abc").unwrap();
        let expected = [
            ("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/brig/abc"),
            ("memory", "/sys/fs/cgroup/memory/brig/abc"),
            ("name=systemd", "/sys/fs/cgroup/systemd/brig/abc"),
            ("", "/sys/fs/cgroup/unified/brig/abc"),
        ];
        let expected: Vec<_> =
            expected.iter().map(|(n, p)| ((*n).to_owned(), (*p).to_owned())).collect();
        assert_eq!(directories(&placement), expected);
    }

    #[test]
    fn relative_paths_start_at_the_callers_own_cgroup() {
        let placement = hybrid().placement(None, "abc").unwrap();
        assert!(directories(&placement).contains(&(
            "memory".to_owned(),
            "/sys/fs/cgroup/memory/process_api/7d65/abc".to_owned()
        )));
    }

    #[test]
    fn relative_paths_on_v2_are_siblings_of_the_caller() {
        let found = Hierarchies::parse(
            "30 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n",
            "0::/user.slice/session-1.scope\n",
        );
        assert_eq!(found.mode(), Mode::V2);
        let placement = found.placement(Some(Path::new("x")), "abc").unwrap();
        assert_eq!(directories(&placement), [(String::new(), "/cg/user.slice/x".to_owned())]);
    }

    #[test]
    fn mounts_of_a_part_of_the_hierarchy_are_places_of_their_own() {
        let found = Hierarchies::parse(
            "30 23 0:26 /docker/abc /cg\\040here rw - cgroup cgroup rw,pids\n",
            "3:pids:/docker/abc/inner\n",
        );
        assert_eq!(found.mode(), Mode::V1);
        let placement = found.placement(Some(Path::new("x")), "abc").unwrap();
        assert_eq!(directories(&placement), [("pids".to_owned(), "/cg here/inner/x".to_owned())]);
    }

    #[test]
    fn paths_that_leave_or_name_the_root_are_refused() {
        for path in ["/", "/..", "a/../../b", "..", "."] {
            let error = hybrid().placement(Some(Path::new(path)), "abc").unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::InvalidInput, "{path}");
        }
        let long = "a/".repeat(4096);
        assert!(hybrid().placement(Some(Path::new(&long)), "abc").is_err());
    }

    #[test]
    fn places_below_stay_below() {
        let placement = hybrid().placement(Some(Path::new("/brig/abc")), "abc").unwrap();
        let below = placement.below(&[], Path::new("/inner")).unwrap();
        assert!(below.directories().all(|(_, path)| path.ends_with("brig/abc/inner")));
        assert!(placement.below(&[], Path::new("../x")).is_err());
        let some = placement.below(&["memory".to_owned()], Path::new("inner")).unwrap();
        let places: Vec<_> =
            some.directories().filter(|(_, path)| path.ends_with("inner")).collect();
        assert_eq!(places.len(), 1, "{places:?}");
    }

    #[test]
    fn on_cgroup2_a_container_may_have_moved_its_init() {
        let found = Hierarchies::parse("30 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n", "0::/\n");
        let placement = found.placement(Some(Path::new("/brig/abc")), "abc").unwrap();
        let moved = placement.at(Path::new("/brig/abc/init.scope")).unwrap();
        assert!(moved.directories().all(|(_, path)| path.ends_with("brig/abc/init.scope")));
        assert!(placement.at(Path::new("/brig/abc")).is_none());
        assert!(hybrid().placement(None, "abc").unwrap().at(Path::new("/abc/x")).is_none());
    }

    #[test]
    fn placements_survive_a_round_trip_through_the_state_file() {
        let placement = hybrid().placement(None, "abc").unwrap();
        let text = serde_json::to_string(&placement).unwrap();
        assert_eq!(serde_json::from_str::<Placement>(&text).unwrap(), placement);
    }
}
