//! The cgroups that an engine under test was given as its own.

use std::fs;
use std::path::{Path, PathBuf};

/// The places where a cgroup called `name` can be: in each hierarchy on its own mount, and in one that is mounted alone.
fn places(name: &str) -> impl Iterator<Item = PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten();
    let alone = root.join(name);
    hierarchies.map(move |hierarchy| hierarchy.path().join(name)).chain([alone])
}

/// Where a cgroup called `name` is.
#[must_use]
pub fn present(name: &str) -> Vec<PathBuf> {
    places(name).filter(|place| place.exists()).collect()
}

/// Removes it and the empty ones beneath it, wherever it is. One that is still in use stays.
pub fn remove(name: &str) {
    places(name).for_each(|place| remove_tree(&place));
}

fn remove_tree(path: &Path) {
    for child in fs::read_dir(path).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&child.path());
        }
    }
    // The kernel removes the directory of a cgroup as if it were empty.
    let _ = fs::remove_dir(path);
}
