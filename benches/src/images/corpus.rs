//! The images that are pulled: files of the Debian packages on this machine, in the proportions of the three kinds of images
//! that differ most.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use support::engine::pack_image;

const MIB: u64 = 1 << 20;
/// A small file: sources, documentation, what a `node_modules` is made of.
const SMALL_BYTES_MAX: u64 = 32 << 10;
const LARGE_BYTES_MIN: u64 = 2 * MIB;
const LARGE_BYTES_MAX: u64 = 40 * MIB;

/// One image, by the letter that issue and tables call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// 100 MB in few files
    A,
    /// 70,000 small files, 300 MB
    B,
    /// Eight layers of 40 MB
    C,
}

impl Kind {
    /// The name of its repository.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::A => "few",
            Self::B => "small",
            Self::C => "layers",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::A => "(a) 100 MB, few files",
            Self::B => "(b) 70,000 small files, 300 MB",
            Self::C => "(c) eight layers of 40 MB",
        }
    }

    fn shape(self) -> Shape {
        match self {
            Self::A => Shape {
                layers: 1,
                sizes: LARGE_BYTES_MIN..LARGE_BYTES_MAX,
                bytes_max: 100 * MIB,
                files_max: usize::MAX,
            },
            Self::B => Shape {
                layers: 1,
                sizes: 1..SMALL_BYTES_MAX,
                bytes_max: u64::MAX,
                files_max: 70_000,
            },
            Self::C => Shape {
                layers: 8,
                sizes: SMALL_BYTES_MAX..LARGE_BYTES_MIN,
                bytes_max: 40 * MIB,
                files_max: usize::MAX,
            },
        }
    }
}

/// What an image is made of.
struct Shape {
    layers: usize,
    /// Sizes of files, in bytes.
    sizes: std::ops::Range<u64>,
    /// Of one layer.
    bytes_max: u64,
    /// Of one layer.
    files_max: usize,
}

impl Shape {
    fn scaled(mut self, percent: u8) -> Self {
        if let Some(bytes) = self.bytes_max.checked_mul(u64::from(percent)) {
            self.bytes_max = bytes / 100;
        }
        if let Some(files) = self.files_max.checked_mul(usize::from(percent)) {
            self.files_max = files / 100;
        }
        self
    }
}

/// The files that images are made of, in the order of their paths.
#[derive(Debug)]
pub(crate) struct Corpus {
    files: Vec<(PathBuf, u64)>,
}

impl Corpus {
    /// Looks at the machine's packages.
    pub(crate) fn gather() -> Result<Self> {
        let mut files = Vec::new();
        walk(Path::new("/usr"), &mut files).context("look at /usr")?;
        files.sort();
        Ok(Self { files })
    }

    /// Writes an image as `docker save` does, with so many hundredths of what its kind has.
    pub(crate) fn pack(&self, kind: Kind, percent: u8, name: &str, archive: &Path) -> Result<()> {
        let shape = kind.shape().scaled(percent);
        let wanted: Vec<&(PathBuf, u64)> =
            self.files.iter().filter(|(_, size)| shape.sizes.contains(size)).collect();
        ensure!(!wanted.is_empty(), "/usr has no files for the image {}", kind.title());
        // Where there are too few, they come again under another directory.
        let rounds = (0_usize..).flat_map(|round| wanted.iter().map(move |file| (round, *file)));
        let mut rounds = rounds.peekable();
        let mut layers = Vec::new();
        for number in 0..shape.layers {
            let mut layer = tar::Builder::new(Vec::new());
            let (mut bytes, mut count) = (0, 0);
            while let Some((round, (path, size))) = rounds.next_if(|(_, (_, size))| {
                bytes + size <= shape.bytes_max && count < shape.files_max
            }) {
                let inside = path.strip_prefix("/").unwrap_or(path);
                let place = Path::new(&format!("{number}-{round}")).join(inside);
                layer
                    .append_path_with_name(path, place)
                    .with_context(|| format!("pack {}", path.display()))?;
                (bytes, count) = (bytes + size, count + 1);
            }
            layers.push(layer.into_inner().context("pack a layer")?);
        }
        pack_image(archive, name, &layers);
        Ok(())
    }
}

fn walk(directory: &Path, files: &mut Vec<(PathBuf, u64)>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push((entry.path(), entry.metadata()?.len()));
        }
    }
    Ok(())
}
