//! The cgroup hierarchies that are mounted, as the floor is told them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Where hierarchies are mounted.
pub(super) const ROOT: &str = "/sys/fs/cgroup";

/// The hierarchies below `/sys/fs/cgroup`.
#[derive(Debug, Clone)]
pub(super) struct Hierarchies(Vec<Hierarchy>);

#[derive(Debug, Clone)]
struct Hierarchy {
    /// This process's own cgroup.
    own: String,
    /// What to mount it with in a container: empty for cgroup2.
    options: String,
}

impl Hierarchies {
    /// Looks at what is mounted.
    pub(super) fn detect() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
        let own = fs::read_to_string("/proc/self/cgroup").context("read this process's cgroups")?;
        let found: Vec<Hierarchy> =
            mounts.lines().filter_map(|line| Hierarchy::parse(line, &own)).collect();
        ensure!(!found.is_empty(), "no cgroup hierarchy is mounted below {ROOT}");
        Ok(Self(found))
    }

    /// `v1`, `hybrid` or `v2`.
    pub(super) fn mode(&self) -> &'static str {
        let unified = self.0.iter().any(|it| it.options.is_empty());
        match (unified, self.0.len()) {
            (true, 1) => "v2",
            (true, _) => "hybrid",
            (false, _) => "v1",
        }
    }

    /// One line for the reader.
    pub(super) fn describe(&self) -> String {
        if let [unified] = self.0.as_slice()
            && unified.options.is_empty()
        {
            let file = Path::new(ROOT).join("cgroup.controllers");
            let controllers = fs::read_to_string(file).unwrap_or_default();
            return format!("v2: cgroup2 alone, with the controllers: {}", controllers.trim());
        }
        let names = self.0.iter().map(|it| match it.options.as_str() {
            "" => "cgroup2",
            options => options,
        });
        format!("{}: {}", self.mode(), names.collect::<Vec<_>>().join(" "))
    }

    /// Whether the floor, too, can set a memory limit: v1's controller is mounted.
    pub(super) fn limit_memory(&self) -> bool {
        self.0.iter().any(|it| it.options == "memory")
    }

    /// As the floor takes them.
    pub(super) fn words(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|it| format!("{}|{}", it.own, it.options))
    }
}

impl Hierarchy {
    /// Of a line of `/proc/self/mounts`: device, mount point, type, options.
    fn parse(line: &str, memberships: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let (point, kind, options) = (fields.nth(1)?, fields.next()?, fields.next()?);
        if !point.starts_with(ROOT) || !matches!(kind, "cgroup" | "cgroup2") {
            return None;
        }
        let of_mount = ["rw", "ro", "nosuid", "nodev", "noexec", "relatime", "xattr", "seclabel"];
        let controllers: Vec<&str> = match kind {
            "cgroup2" => Vec::new(),
            _ => options.split(',').filter(|word| !of_mount.contains(word)).collect(),
        };
        let controllers = controllers.join(",");
        let own = memberships.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            (names == controllers).then_some(path)
        })?;
        let options = match controllers.starts_with("name=") {
            true => format!("none,{controllers}"),
            false => controllers,
        };
        Some(Self { own: format!("{point}{}", own.trim_end_matches('/')), options })
    }
}

#[cfg(test)]
mod tests {
    use super::Hierarchy;

    #[test]
    fn mounts_become_words_of_the_floor() {
        let own = "9:name=systemd:/\n4:cpu,cpuacct:/a/b\n0::/c\n";
        let parse = |line| Hierarchy::parse(line, own).map(|it| (it.own, it.options));
        let found = |own: &str, options: &str| Some((own.to_owned(), options.to_owned()));
        assert_eq!(
            parse("cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0"),
            found("/sys/fs/cgroup/cpu,cpuacct/a/b", "cpu,cpuacct")
        );
        assert_eq!(
            parse("cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0"),
            found("/sys/fs/cgroup/systemd", "none,name=systemd")
        );
        assert_eq!(
            parse("cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0"),
            found("/sys/fs/cgroup/c", "")
        );
        assert_eq!(parse("tmpfs /sys/fs/cgroup tmpfs rw 0 0"), None);
    }
}
