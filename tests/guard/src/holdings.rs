//! What the machine holds of one test, as lines by kind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Mark;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Things, each once.
#[derive(Debug, Default, Clone)]
pub(crate) struct Holdings(BTreeSet<String>);

impl Holdings {
    /// Looks around.
    pub(crate) fn look(mark: &Mark) -> Self {
        let mut found = BTreeSet::new();
        let processes = processes(mark);
        mounts(mark, &mut found);
        for process in &processes {
            let namespace = fs::read_link(process.join("ns/net")).unwrap_or_default();
            if fs::read_link("/proc/self/ns/net").ok().as_deref() != Some(&*namespace) {
                found.insert(format!("network namespace {}", namespace.display()));
            }
            found.insert(format!("process {}", describe(process)));
        }
        if let Some(holder) = mark.holder {
            inside(holder, &["ip", "-o", "link"], &mut found);
            inside(holder, &["nft", "list", "ruleset"], &mut found);
        }
        if !mark.cgroup.is_empty() {
            for place in places(&mark.cgroup) {
                directories(&place, &mut found);
            }
        }
        let beneath = mark.directory.display().to_string();
        found.extend(descriptors().filter(|line| line.contains(&beneath)));
        for directory in &mark.files {
            files(directory, &mut found);
        }
        Self(found)
    }

    /// Lets the parent of the cgroups stay, which is made with the first of them and is the test's own to remove.
    pub(crate) fn with_parent_of_cgroups(mut self, mark: &Mark) -> Self {
        self.0
            .extend(places(&mark.cgroup).iter().map(|place| format!("cgroup {}", place.display())));
        self
    }

    /// What `later` has and this has not.
    pub(crate) fn grown(&self, later: &Self) -> Vec<String> {
        later.0.difference(&self.0).cloned().collect()
    }
}

/// Mounts with the directory in their line, and with them the network namespaces that are kept there.
fn mounts(mark: &Mark, found: &mut BTreeSet<String>) {
    let beneath = mark.directory.display().to_string();
    for process in ["self".to_owned()].into_iter().chain(mark.holder.map(|id| id.to_string())) {
        let text = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap_or_default();
        for line in text.lines().filter(|line| line.contains(&beneath)) {
            let mut words = line.split(' ').skip(3);
            let (root, target) =
                (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let kind = if root.starts_with("net:[") { "network namespace" } else { "mount" };
            found.insert(format!("{kind} {root} at {target} of process {process}"));
        }
    }
}

/// Directories in /proc of processes that carry the mark; this one and the holder of its namespaces do not count.
fn processes(mark: &Mark) -> Vec<PathBuf> {
    let beneath = mark.directory.display().to_string();
    let own = fs::read_link("/proc/self").unwrap_or_default();
    let namespaces = mark.holder.map_or_else(Vec::new, |holder| {
        ["net", "mnt"].map(|kind| fs::read_link(format!("/proc/{holder}/ns/{kind}")).ok()).to_vec()
    });
    let carries = |process: &PathBuf| {
        let texts = ["cmdline", "environ"];
        let text = |name: &&str| fs::read(process.join(name)).unwrap_or_default();
        let named = texts.iter().any(|name| contains(&text(name), beneath.as_bytes()));
        let link = |name: &str| fs::read_link(process.join(name)).ok();
        named
            || link("cwd").is_some_and(|path| path.starts_with(&mark.directory))
            || namespaces.iter().flatten().any(|namespace| {
                link("ns/net").as_ref() == Some(namespace)
                    || link("ns/mnt").as_ref() == Some(namespace)
            })
            || is_in_cgroup(&String::from_utf8_lossy(&text(&"cgroup")), &mark.cgroup)
    };
    let holder = mark.holder.map(|id| id.to_string());
    numbered("/proc")
        .filter(|process| {
            let name = process.file_name().map(|name| name.to_string_lossy().into_owned());
            name.as_deref() != own.to_str() && name != holder
        })
        .filter(carries)
        .collect()
}

/// Whether one of the paths of /proc/PID/cgroup has that name as a part.
fn is_in_cgroup(text: &str, name: &str) -> bool {
    !name.is_empty() && text.split(['\n', '/']).any(|part| part == name)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

fn describe(process: &Path) -> String {
    let command = fs::read(process.join("cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    let id = process.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("{id} ({}) {}", name.trim(), command.trim())
}

fn numbered(directory: &str) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).filter(
        |path| path.file_name().is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok()),
    )
}

/// Processes that descend from this one, those that nobody waited for included.
pub(crate) fn descendants() -> impl Iterator<Item = String> {
    let mut queue = vec![std::process::id().to_string()];
    let mut found = Vec::new();
    while let Some(process) = queue.pop() {
        for thread in numbered(&format!("/proc/{process}/task")) {
            let children = fs::read_to_string(thread.join("children")).unwrap_or_default();
            for child in children.split_whitespace() {
                found.push(format!("process {}", describe(&Path::new("/proc").join(child))));
                queue.push(child.to_owned());
            }
        }
    }
    found.into_iter()
}

/// Descriptors of this process and where they lead, the one that reads them aside.
pub(crate) fn descriptors() -> impl Iterator<Item = String> {
    let links = numbered("/proc/self/fd").filter_map(|descriptor| {
        let target = fs::read_link(&descriptor).ok()?;
        let number = descriptor.file_name()?.to_string_lossy().into_owned();
        Some(format!("descriptor {number} of {}", target.display()))
    });
    links.collect::<Vec<_>>().into_iter()
}

/// The descriptor that lists descriptors.
pub(crate) fn own_descriptor(line: &str) -> bool {
    line.contains(&format!("/proc/{}/", std::process::id()))
}

/// What a program prints about the test's own namespaces; one that is missing here has nothing to say.
fn inside(holder: u32, words: &[&str], found: &mut BTreeSet<String>) {
    let output = Command::new("nsenter")
        .arg(format!("--net=/proc/{holder}/ns/net"))
        .args(words)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    let kind = if words[0] == "nft" { "nft rule" } else { "link" };
    for line in String::from_utf8_lossy(&text).lines() {
        // The number is the order in which links were made, and the rest changes with use.
        let name = if kind == "link" { line.split(':').nth(1) } else { Some(line) };
        found.extend(name.map(|name| format!("{kind} {}", name.trim())));
    }
}

/// Where a cgroup of that name can be: in each hierarchy on its own mount, and in one that is mounted alone.
fn places(name: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir(CGROUPS).into_iter().flatten().flatten();
    let mut places: Vec<_> = hierarchies.map(|entry| entry.path().join(name)).collect();
    places.push(Path::new(CGROUPS).join(name));
    places
}

fn directories(place: &Path, found: &mut BTreeSet<String>) {
    if !place.is_dir() {
        return;
    }
    found.insert(format!("cgroup {}", place.display()));
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            directories(&entry.path(), found);
        }
    }
}

fn files(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        found.insert(format!("file {}", entry.path().display()));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&entry.path(), found);
        }
    }
}
