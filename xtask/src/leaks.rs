//! What the machine holds, before and after: mounts, network namespaces, links, nft rules, cgroups, processes, files.
//!
//! The integration tests compare the same things around every test; this is the last look around the whole suite.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::process::command;

/// One kind of thing and its instances, as lines.
#[derive(Debug)]
pub(crate) struct Snapshot(Vec<(&'static str, BTreeSet<String>)>);

impl Snapshot {
    /// Looks around.
    pub(crate) fn take() -> Self {
        Self(vec![
            ("mount", mounts()),
            (
                "link",
                lines(&["ip", "-o", "link"], |line| line.split(':').nth(1).map(str::to_owned)),
            ),
            ("network namespace", network_namespaces()),
            ("nft rule", lines(&["nft", "list", "ruleset"], |line| Some(line.to_owned()))),
            ("cgroup", cgroups()),
            ("process", processes()),
            ("file", files()),
        ])
    }

    /// What `later` has and this has not, one line each.
    pub(crate) fn grown(&self, later: &Self) -> Vec<String> {
        let pairs = self.0.iter().zip(&later.0);
        pairs
            .flat_map(|((kind, before), (_, after))| {
                after.difference(before).map(move |thing| format!("{kind}: {thing}"))
            })
            .collect()
    }
}

fn mounts() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').nth(4).map(str::to_owned)).collect()
}

fn network_namespaces() -> BTreeSet<String> {
    process_directories()
        .filter_map(|process| fs::read_link(process.join("ns/net")).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect()
}

fn lines(words: &[&str], pick: impl Fn(&str) -> Option<String>) -> BTreeSet<String> {
    let Some((program, arguments)) = words.split_first() else { return BTreeSet::new() };
    let output = command(program).args(arguments).stderr(Stdio::null()).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().filter_map(pick).collect()
}

/// Cgroups named after us; others of the machine come and go.
fn cgroups() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut queue = vec![Path::new("/sys/fs/cgroup").to_path_buf()];
    while let Some(directory) = queue.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.path().to_string_lossy().contains("brig") {
                    found.insert(entry.path().display().to_string());
                }
                queue.push(entry.path());
            }
        }
    }
    found
}

/// Processes of ours by program; others come and go. One that ended and waits for its parent is not counted: a parent of
/// ours would be, and the machine's init takes its time.
fn processes() -> BTreeSet<String> {
    process_directories()
        .filter_map(|process| {
            let name = fs::read_to_string(process.join("comm")).ok()?;
            let stat = fs::read_to_string(process.join("stat")).ok()?;
            if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')) {
                return None;
            }
            let ours = ["brig", "containerd-shim", "docker-registry"];
            let pid = process.file_name()?.to_string_lossy().into_owned();
            ours.iter()
                .any(|start| name.starts_with(start))
                .then(|| format!("{} {pid}", name.trim()))
        })
        .collect()
}

fn files() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for directory in ["/run/brig", "/var/lib/brig", "/run/netns"] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            found.insert(entry.path().display().to_string());
        }
    }
    found
}

fn process_directories() -> impl Iterator<Item = std::path::PathBuf> {
    fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok())
    })
}
