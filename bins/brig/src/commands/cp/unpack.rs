//! Unpacking what a container sent: beneath the destination, through no link.

use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use brig_engine_api::path_stat::PathStat;

/// Where an archive goes.
#[derive(Debug)]
pub(super) struct Target {
    /// The existing directory everything is written beneath.
    directory: PathBuf,
    /// What the archive's first component becomes; `None` drops it.
    name: Option<PathBuf>,
}

impl Target {
    /// docker's rules: into a directory that exists, else under the destination's own name.
    pub(super) fn choose(destination: &Path, stat: &PathStat, contents_only: bool) -> Result<Self> {
        if destination.is_dir() {
            let name = (!contents_only).then(|| PathBuf::from(&stat.name));
            return Ok(Self { directory: destination.to_path_buf(), name });
        }
        if stat.is_directory() && destination.exists() {
            bail!("cannot copy a directory over the file {}", destination.display());
        }
        let shown = destination.as_os_str().to_string_lossy();
        if !stat.is_directory() && shown.ends_with('/') {
            bail!("no such directory: {shown}");
        }
        let name =
            destination.file_name().with_context(|| format!("invalid destination {shown}"))?;
        let parent = destination.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or_else(|| Path::new(".")).to_path_buf();
        if !directory.is_dir() {
            bail!("no such directory: {}", directory.display());
        }
        Ok(Self { directory, name: Some(PathBuf::from(name)) })
    }

    /// Writes every entry.
    pub(super) fn unpack(&self, source: impl Read) -> Result<()> {
        let mut archive = tar::Archive::new(source);
        for entry in archive.entries().context("read the archive")? {
            let mut entry = entry.context("read the archive")?;
            let path = entry.path().context("read the archive")?.into_owned();
            let Some(relative) = self.relative(&path)? else { continue };
            let target = self.beneath(&relative)?;
            if entry.header().entry_type().is_hard_link() {
                self.link(&entry, &target)?;
                continue;
            }
            // A link that is in the way must be replaced, not written through.
            if fs::symlink_metadata(&target).is_ok_and(|found| found.file_type().is_symlink()) {
                fs::remove_file(&target)
                    .with_context(|| format!("replace {}", target.display()))?;
            }
            entry.unpack(&target).with_context(|| format!("write {}", target.display()))?;
        }
        Ok(())
    }

    /// An entry's path with its first component renamed; `None` for what has no place.
    fn relative(&self, path: &Path) -> Result<Option<PathBuf>> {
        let mut parts = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(part) => parts.push(part),
                Component::CurDir | Component::RootDir => {}
                _ => bail!("the archive holds the path {}, which leads out of it", path.display()),
            }
        }
        let Some((_, rest)) = parts.split_first() else { return Ok(None) };
        let mut relative = self.name.clone().unwrap_or_default();
        relative.extend(rest);
        Ok((!relative.as_os_str().is_empty()).then_some(relative))
    }

    /// The path of an entry, whose parents below the destination must be real directories.
    fn beneath(&self, relative: &Path) -> Result<PathBuf> {
        let mut path = self.directory.clone();
        let parents = relative.parent().into_iter().flat_map(Path::components);
        for part in parents {
            path.push(part);
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => bail!("{} is in the way: it is no directory", path.display()),
                Err(_) => {
                    fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
                }
            }
        }
        Ok(self.directory.join(relative))
    }

    fn link<R: Read>(&self, entry: &tar::Entry<'_, R>, target: &Path) -> Result<()> {
        let name =
            entry.link_name().context("read the archive")?.context("a hard link has no target")?;
        let Some(relative) = self.relative(&name)? else { bail!("a hard link has no target") };
        let original = self.beneath(&relative)?;
        let _ = fs::remove_file(target);
        fs::hard_link(&original, target).with_context(|| format!("link {}", target.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(if *kind == tar::EntryType::Directory { 0o755 } else { 0o644 });
            let link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
            // Written by hand, since the builder itself refuses paths with "..".
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            if link {
                header.set_link_name(content).unwrap();
            }
            let data = if link { &[][..] } else { content.as_bytes() };
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn directory(name: &str) -> PathStat {
        PathStat { name: name.to_owned(), mode: 1 << 31, ..PathStat::default() }
    }

    #[test]
    fn the_first_component_is_renamed_or_dropped() {
        let root = tempfile::tempdir().unwrap();
        let tree =
            archive(&[("d", tar::EntryType::Directory, ""), ("d/f", tar::EntryType::Regular, "x")]);
        let fresh = root.path().join("fresh");
        Target::choose(&fresh, &directory("d"), false).unwrap().unpack(&tree[..]).unwrap();
        assert_eq!(fs::read_to_string(fresh.join("f")).unwrap(), "x");
        Target::choose(root.path(), &directory("d"), false).unwrap().unpack(&tree[..]).unwrap();
        assert!(root.path().join("d/f").exists());
        Target::choose(root.path(), &directory("d"), true).unwrap().unpack(&tree[..]).unwrap();
        assert!(root.path().join("f").exists());
    }

    #[test]
    fn hostile_archives_stay_beneath_the_destination() {
        let outside = tempfile::tempdir().unwrap();
        let victim = outside.path().join("victim");
        fs::write(&victim, "untouched").unwrap();
        let through = outside.path().to_str().unwrap();
        let hostile = [
            archive(&[("d/../../victim", tar::EntryType::Regular, "bad")]),
            archive(&[
                ("d/l", tar::EntryType::Symlink, through),
                ("d/l/victim", tar::EntryType::Regular, "bad"),
            ]),
            archive(&[
                ("d/l", tar::EntryType::Symlink, victim.to_str().unwrap()),
                ("d/l", tar::EntryType::Regular, "bad"),
            ]),
            archive(&[
                ("d/l", tar::EntryType::Symlink, through),
                ("d/h", tar::EntryType::Link, "d/l/victim"),
            ]),
        ];
        for tree in hostile {
            let root = tempfile::tempdir().unwrap();
            let target = Target::choose(root.path(), &directory("d"), false).unwrap();
            let _ = target.unpack(&tree[..]);
            assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
            assert!(!root.path().join("d/h").exists());
        }
    }
}
