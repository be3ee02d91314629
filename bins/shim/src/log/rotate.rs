//! Rotation by renaming, and compression of rotated files without making the container wait.
//!
//! `<path>.1` is the youngest. Compression runs in a forked child on a descriptor, so files may be renamed meanwhile;
//! [`Rotated`] follows which number the file has by then. One file is compressed at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// The rotated files' numbers.
#[derive(Debug, Default)]
pub(super) struct Rotated {
    /// Files that wait for compression, youngest first.
    waiting: Vec<u32>,
    /// The file being compressed; `Some(None)` when it was rotated away meanwhile.
    active: Option<Option<u32>>,
}

/// A compression to run in a child.
#[derive(Debug)]
pub(crate) struct CompressJob {
    source: File,
    target: PathBuf,
}

impl Rotated {
    /// Moves every file one number up, the current one to 1; what would be number `max_files` goes.
    pub(super) fn shift(&mut self, path: &Path, max_files: u32, compress: bool) {
        let last = max_files - 1;
        // Each may be missing; a failure leaves a file where it is and the next rename replaces it.
        for suffix in ["", ".gz"] {
            let _absent = fs::remove_file(numbered(path, last, suffix));
            for number in (1..last).rev() {
                let to = numbered(path, number + 1, suffix);
                let _absent = fs::rename(numbered(path, number, suffix), to);
            }
        }
        let _absent = fs::rename(path, numbered(path, 1, ""));
        let up = |number: u32| Some(number + 1).filter(|&number| number <= last);
        self.waiting = self.waiting.iter().copied().filter_map(up).collect();
        self.active = self.active.map(|active| active.and_then(up));
        if compress {
            self.waiting.insert(0, 1);
        }
    }

    /// Begins the compression of the oldest file that waits, unless one is under way.
    pub(super) fn compress_job(&mut self, path: &Path) -> Option<CompressJob> {
        if self.active.is_some() {
            return None;
        }
        let number = self.waiting.pop()?;
        let source = File::open(numbered(path, number, "")).ok()?;
        self.active = Some(Some(number));
        Some(CompressJob { source, target: temporary(path) })
    }

    /// Ends a compression: the compressed file takes the place of the other.
    pub(super) fn compressed(&mut self, path: &Path, succeeded: bool) {
        let number = self.active.take().flatten();
        let temporary = temporary(path);
        match number.filter(|_| succeeded) {
            Some(number) => {
                if fs::rename(&temporary, numbered(path, number, ".gz")).is_ok() {
                    let _best_effort = fs::remove_file(numbered(path, number, ""));
                }
            }
            None => {
                let _absent = fs::remove_file(&temporary);
            }
        }
    }
}

/// Compresses; runs in a child, which yields to everything else.
pub(crate) fn compress(job: &CompressJob) -> io::Result<()> {
    let _best_effort = rustix::process::nice(19);
    let target =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&job.target)?;
    let mut encoder = GzEncoder::new(target, Compression::default());
    io::copy(&mut BufReader::with_capacity(64 << 10, &job.source), &mut encoder)?;
    encoder.finish()?.sync_all()
}

impl CompressJob {
    /// The file to compress, as a descriptor for the child to keep, and the job without it.
    pub(crate) fn into_parts(self) -> (File, PathBuf) {
        (self.source, self.target)
    }

    /// The reverse of [`CompressJob::into_parts`].
    pub(crate) fn from_parts(source: File, target: PathBuf) -> Self {
        Self { source, target }
    }
}

fn numbered(path: &Path, number: u32, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}{suffix}"));
    name.into()
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz.tmp");
    name.into()
}
