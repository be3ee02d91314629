//! The id maps of a new user namespace (user_namespaces(7)), and who may write them.
//!
//! Root of the host writes any. Anybody else may map their own user and group alone, having given up setgroups(2);
//! for ranges there are newuidmap(1) and newgidmap(1), which know who owns which.

use std::path::{Path, PathBuf};
use std::process::Command;

use oci_spec::runtime::LinuxIdMapping;

use crate::error::{Error, ErrorKind, Result};

/// The programs that map ranges of ids for a caller without privileges, as `/etc/subuid` and `/etc/subgid` allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMapPrograms {
    /// newuidmap(1)
    pub users: PathBuf,
    /// newgidmap(1)
    pub groups: PathBuf,
}

/// The maps of one user namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdMaps<'a> {
    pub(crate) users: &'a [LinuxIdMapping],
    pub(crate) groups: &'a [LinuxIdMapping],
    /// The caller is not root of its own user namespace.
    pub(crate) unprivileged: bool,
    pub(crate) programs: Option<&'a IdMapPrograms>,
}

/// One of the two.
struct Map<'a> {
    file: &'static str,
    lines: &'a [LinuxIdMapping],
    /// The caller's own id.
    own: u32,
    field: &'static str,
}

impl IdMaps<'_> {
    /// Refuses before anything exists what could not be written then.
    ///
    /// # Errors
    /// `InvalidInput` for a caller without privileges and maps that are missing; `Unsupported` when a program is.
    pub(crate) fn check(&self) -> Result<()> {
        for map in [self.user_map(), self.group_map()] {
            if self.unprivileged && map.lines.is_empty() {
                let text = format!("{} is empty", map.field);
                return Err(Error::new(ErrorKind::InvalidInput, text)
                    .with_advice("without root, map at least the caller's own id"));
            }
            if self.by_program(&map) && self.programs.is_none() {
                let text = format!("{} maps more than the caller's own id", map.field);
                return Err(Error::new(ErrorKind::Unsupported, text).with_advice(
                    "without root this needs newuidmap and newgidmap (Debian's uidmap)",
                ));
            }
        }
        Ok(())
    }

    /// Whether writing the maps gives up changing groups.
    pub(crate) fn denies_groups(&self) -> bool {
        self.unprivileged && !self.by_program(&self.group_map())
    }

    /// Writes the maps of a process that was born in the new user namespace and is still dumpable.
    ///
    /// # Errors
    /// What the kernel or a program refused.
    pub(crate) fn write(&self, pid: i32) -> Result<()> {
        if self.denies_groups() {
            write(pid, "setgroups", "deny")?;
        }
        for map in [self.user_map(), self.group_map()] {
            match self.programs.filter(|_| self.by_program(&map)) {
                None => write(pid, map.file, &text(map.lines))?,
                Some(programs) if map.file == "uid_map" => run(&programs.users, pid, map.lines)?,
                Some(programs) => run(&programs.groups, pid, map.lines)?,
            }
        }
        Ok(())
    }

    fn user_map(&self) -> Map<'_> {
        let own = rustix::process::geteuid().as_raw();
        Map { file: "uid_map", lines: self.users, own, field: "linux.uidMappings" }
    }

    fn group_map(&self) -> Map<'_> {
        let own = rustix::process::getegid().as_raw();
        Map { file: "gid_map", lines: self.groups, own, field: "linux.gidMappings" }
    }

    fn by_program(&self, map: &Map<'_>) -> bool {
        let own = matches!(map.lines, [line] if line.host_id() == map.own && line.size() == 1);
        self.unprivileged && !own
    }
}

/// Whether a number has a meaning in a user namespace with this map.
pub(crate) fn is_mapped(map: &[LinuxIdMapping], id: u32) -> bool {
    map.iter().any(|line| {
        id.checked_sub(line.container_id()).is_some_and(|distance| distance < line.size())
    })
}

/// Whether the user namespace of a process does not let it change its groups. `self` is the caller.
pub(crate) fn groups_are_denied(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/setgroups"))
        .is_ok_and(|text| text.trim_end() == "deny")
}

fn write(pid: i32, file: &str, text: &str) -> Result<()> {
    std::fs::write(format!("/proc/{pid}/{file}"), text).map_err(|source| {
        Error::system(format!("write {:?} to {file}", text.trim_end()), source)
            .with_advice("ranges must not overlap, and need CAP_SETUID and CAP_SETGID")
    })
}

fn run(program: &Path, pid: i32, map: &[LinuxIdMapping]) -> Result<()> {
    let name = program.file_name().unwrap_or_default().display().to_string();
    let numbers = map.iter().flat_map(|line| [line.container_id(), line.host_id(), line.size()]);
    let output = Command::new(program)
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|source| Error::system(format!("run {}", program.display()), source))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().trim_start_matches(name.as_str()).trim_start_matches(": ");
    let text = format!("{name}: {said} ({})", output.status);
    Err(Error::new(ErrorKind::Denied, text)
        .with_advice("the ranges of the user are in /etc/subuid and /etc/subgid"))
}

/// The lines of `/proc/PID/uid_map`.
pub(crate) fn text(maps: &[LinuxIdMapping]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for map in maps {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} {} {}", map.container_id(), map.host_id(), map.size());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[[u32; 3]]) -> Vec<LinuxIdMapping> {
        let line = |[container, host, size]: &[u32; 3]| {
            serde_json::from_value(
                serde_json::json!({"containerID": container, "hostID": host, "size": size}),
            )
            .unwrap()
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn only_ones_own_id_alone_is_mapped_without_a_program() {
        let (user, group) =
            (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let own = (map(&[[0, user, 1]]), map(&[[0, group, 1]]));
        fn maps<'a>(users: &'a [LinuxIdMapping], groups: &'a [LinuxIdMapping]) -> IdMaps<'a> {
            IdMaps { users, groups, unprivileged: true, programs: None }
        }
        maps(&own.0, &own.1).check().unwrap();
        assert!(maps(&own.0, &own.1).denies_groups());
        for other in [map(&[[0, user, 2]]), map(&[[0, user, 1], [1, 100_000, 5]])] {
            assert_eq!(maps(&other, &own.1).check().unwrap_err().kind(), ErrorKind::Unsupported);
            let privileged = IdMaps { unprivileged: false, ..maps(&other, &own.1) };
            privileged.check().unwrap();
            assert!(!privileged.denies_groups());
        }
        let error = maps(&[], &own.1).check().unwrap_err();
        assert!(error.to_string().contains("linux.uidMappings is empty"), "{error}");
    }

    #[test]
    fn ids_are_mapped_by_the_line_they_fall_into() {
        let lines = map(&[[0, 1000, 1], [10, 100_000, 5]]);
        for (id, mapped) in [(0, true), (1, false), (9, false), (10, true), (14, true), (15, false)]
        {
            assert_eq!(is_mapped(&lines, id), mapped, "{id}");
        }
    }
}
