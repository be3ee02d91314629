//! A small cache of open parent directories, so that a thousand files in one directory resolve it once.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// How many directories are held open.
const OPEN_MAX: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct DirectoryCache {
    open: HashMap<PathBuf, (Rc<OwnedFd>, u64)>,
    clock: u64,
}

impl DirectoryCache {
    pub(crate) fn find(&mut self, path: &Path) -> Option<Rc<OwnedFd>> {
        self.clock += 1;
        let (fd, used) = self.open.get_mut(path)?;
        *used = self.clock;
        Some(Rc::clone(fd))
    }

    pub(crate) fn insert(&mut self, path: &Path, fd: OwnedFd) -> Rc<OwnedFd> {
        if self.open.len() >= OPEN_MAX {
            // Drop the older half at once: the search for it is then paid for by many insertions.
            let mut ages: Vec<u64> = self.open.values().map(|(_, used)| *used).collect();
            ages.sort_unstable();
            let middle = ages[ages.len() / 2];
            self.open.retain(|_, (_, used)| *used > middle);
        }
        self.clock += 1;
        let fd = Rc::new(fd);
        self.open.insert(path.to_owned(), (Rc::clone(&fd), self.clock));
        fd
    }

    /// Forgets everything: a directory was replaced, so paths may lead elsewhere now.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }
}
