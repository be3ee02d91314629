//! Putting the installable tree in place, and taking it away again.
//!
//! Every file appears under its name complete or not at all, so that a daemon that is started meanwhile finds either the
//! old program or the new one. The list of what was installed stays beside it, for an upgrade and for removal.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::binaries::Profile;
use crate::dist;
use crate::process::step;

/// The prefix that the units are written for.
const DEFAULT_PREFIX: &str = "/usr/local";

/// The list of what was installed, below the prefix.
const LIST: &str = "share/brig/installed-files";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where the programs are found when they run
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PREFIX)]
    prefix: PathBuf,
    /// A directory to install below, as packagers do
    #[arg(long, value_name = "DIR")]
    destdir: Option<PathBuf>,
    /// Remove what an earlier installation put there
    #[arg(long)]
    uninstall: bool,
    /// How the programs are built
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
}

/// The task.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !options.prefix.is_absolute() {
        bail!(
            "--prefix {} is not absolute: it is where programs are found later",
            options.prefix.display()
        );
    }
    let place = Place::new(&options.prefix, options.destdir.as_deref())?;
    if options.uninstall {
        return place.uninstall();
    }
    let tree = options.profile.tree();
    dist::make(&tree, options.profile)?;
    place.install(&tree)?;
    if options.destdir.is_none() {
        place.advise();
    }
    Ok(())
}

/// Installs the programs as the tests build them into `directory`, which a guest sees as `/usr/local`.
pub(crate) fn for_guest(directory: &Path) -> Result<()> {
    let tree = Profile::Dev.tree();
    dist::make(&tree, Profile::Dev)?;
    Place { prefix: DEFAULT_PREFIX.into(), root: directory.to_path_buf() }.install(&tree)
}

/// Where an installation goes.
#[derive(Debug)]
struct Place {
    /// The prefix as programs will know it.
    prefix: PathBuf,
    /// The directory that is the prefix now.
    root: PathBuf,
}

impl Place {
    fn new(prefix: &Path, destdir: Option<&Path>) -> Result<Self> {
        let root = match destdir {
            Some(directory) => std::path::absolute(directory)
                .context("find --destdir")?
                .join(prefix.strip_prefix("/").unwrap_or(prefix)),
            None => prefix.to_path_buf(),
        };
        Ok(Self { prefix: prefix.to_path_buf(), root })
    }

    fn install(&self, tree: &Path) -> Result<()> {
        step(&format!("Installing to {}", self.root.display()));
        let former = self.installed()?;
        let mut files = files(tree)?;
        // The list first: what is interrupted can still be removed.
        files.insert(LIST.into());
        self.write_list(former.union(&files))?;
        for file in files.iter().filter(|file| file.as_path() != Path::new(LIST)) {
            let (from, to) = (tree.join(file), self.root.join(file));
            if file.starts_with(dist::UNITS) {
                self.put_unit(&from, &to)?;
            } else {
                put_file(&from, &to)?;
            }
        }
        for file in former.difference(&files) {
            self.remove(file)?;
        }
        self.write_list(files.iter())
    }

    fn uninstall(&self) -> Result<()> {
        let files = self.installed()?;
        if files.is_empty() {
            bail!(
                "{} does not exist: nothing was installed there by this task",
                self.root.join(LIST).display()
            );
        }
        step(&format!("Removing from {}", self.root.display()));
        for file in files.iter().filter(|file| file.as_path() != Path::new(LIST)) {
            self.remove(file)?;
        }
        // The list last: what is interrupted can be continued.
        self.remove(Path::new(LIST))
    }

    /// The files of a former installation, relative to the prefix.
    fn installed(&self) -> Result<BTreeSet<PathBuf>> {
        let list = self.root.join(LIST);
        match fs::read_to_string(&list) {
            Ok(text) => Ok(text.lines().map(PathBuf::from).collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(error) => Err(error).with_context(|| format!("read {}", list.display())),
        }
    }

    fn write_list<'a>(&self, files: impl Iterator<Item = &'a PathBuf>) -> Result<()> {
        let text: String = files.map(|file| format!("{}\n", file.display())).collect();
        put(&self.root.join(LIST), text.as_bytes(), 0o644)
    }

    /// A unit names programs by their place.
    fn put_unit(&self, from: &Path, to: &Path) -> Result<()> {
        let text = fs::read_to_string(from).with_context(|| format!("read {}", from.display()))?;
        let bin = |prefix: &Path| format!("={}/bin/", prefix.display());
        let text = text.replace(&bin(Path::new(DEFAULT_PREFIX)), &bin(&self.prefix));
        put(to, text.as_bytes(), 0o644)
    }

    /// Removes a file, and the directories that it leaves empty; the prefix itself stays.
    fn remove(&self, file: &Path) -> Result<()> {
        let path = self.root.join(file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
        let mut directory = file.parent();
        while let Some(name) = directory.filter(|name| !name.as_os_str().is_empty()) {
            if fs::remove_dir(self.root.join(name)).is_err() {
                break;
            }
            directory = name.parent();
        }
        Ok(())
    }

    /// Says how the daemon is started.
    fn advise(&self) {
        println!("\nInstalled. `brig run` starts the daemon on demand; where systemd runs:\n");
        println!("  systemctl daemon-reload");
        if [DEFAULT_PREFIX, "/usr"].iter().any(|known| self.prefix == Path::new(known)) {
            println!("  systemctl enable --now brig.socket");
        } else {
            let units = self.prefix.join(dist::UNITS);
            println!("  systemctl link {0}/brig.service {0}/brig.socket", units.display());
            println!("  systemctl start brig.socket");
        }
    }
}

/// Every file below `tree`, relative to it.
fn files(tree: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut queue = vec![tree.to_path_buf()];
    while let Some(directory) = queue.pop() {
        let entries =
            fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("list {}", directory.display()))?.path();
            if path.is_dir() {
                queue.push(path);
            } else if let Ok(relative) = path.strip_prefix(tree) {
                found.insert(relative.to_path_buf());
            }
        }
    }
    Ok(found)
}

/// Copies a file with its mode, all or nothing.
pub(crate) fn put_file(from: &Path, to: &Path) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    let mode = fs::metadata(from).with_context(|| format!("look at {}", from.display()))?;
    put(to, &content, mode.permissions().mode() & 0o777)
}

/// Writes a file beside its place, makes it durable, and gives it its name.
fn put(to: &Path, content: &[u8], mode: u32) -> Result<()> {
    let parent = to.parent().with_context(|| format!("{} has no directory", to.display()))?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let mut unfinished = tempfile::Builder::new()
        .prefix(".brig-install-")
        .tempfile_in(parent)
        .with_context(|| format!("create a file in {}", parent.display()))?;
    unfinished
        .write_all(content)
        .and_then(|()| unfinished.as_file().set_permissions(fs::Permissions::from_mode(mode)))
        .and_then(|()| unfinished.as_file().sync_all())
        .with_context(|| format!("write {}", to.display()))?;
    unfinished.persist(to).with_context(|| format!("put {} in place", to.display()))?;
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("make {} durable", parent.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(directory: &Path, files: &[&str]) -> PathBuf {
        let tree = directory.join("tree");
        let _ = fs::remove_dir_all(&tree);
        for file in files {
            let path = tree.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("{file}\nExecStart=/usr/local/bin/brigd\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        tree
    }

    #[test]
    fn installing_replaces_upgrades_and_removes_only_its_own_files() {
        let directory = tempfile::tempdir().unwrap();
        let place =
            Place::new(Path::new("/opt/brig"), Some(&directory.path().join("dest"))).unwrap();
        assert_eq!(place.root, directory.path().join("dest/opt/brig"));
        let others = place.root.join("bin/other");
        fs::create_dir_all(place.root.join("bin")).unwrap();
        fs::write(&others, "stays").unwrap();

        let unit = "lib/systemd/system/brig.service";
        place.install(&tree(directory.path(), &["bin/brig", "bin/old", unit])).unwrap();
        assert_eq!(
            fs::metadata(place.root.join("bin/brig")).unwrap().permissions().mode() & 0o777,
            0o755
        );
        let text = fs::read_to_string(place.root.join(unit)).unwrap();
        assert!(text.contains("ExecStart=/opt/brig/bin/brigd"), "{text}");

        place.install(&tree(directory.path(), &["bin/brig", "share/new/file", unit])).unwrap();
        assert!(!place.root.join("bin/old").exists(), "an upgrade removes what is gone");
        assert!(place.root.join("share/new/file").exists());

        place.uninstall().unwrap();
        assert_eq!(files(&place.root).unwrap(), BTreeSet::from(["bin/other".into()]));
        assert!(!place.root.join("share").exists(), "empty directories go");
        assert!(place.uninstall().unwrap_err().to_string().contains("nothing was installed"));
    }
}
