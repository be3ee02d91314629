//! The mounts of a request and the volumes of its image.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Shared;
use crate::error::{Error, Result};
use crate::metadata::{ContainerRecord, MountKind, MountRecord};
use crate::models::{Mount, MountBindOptionsPropagationEnum, MountType};
use crate::name;

/// A container may have this many mounts of its own.
const MOUNTS_MAX: usize = 1024;

/// All mounts: `-v`, `--mount`, `--tmpfs`, `--volumes-from`, then the image's volumes where nothing else is.
pub(super) fn collect(shared: &Arc<Shared>, record: &ContainerRecord) -> Result<Vec<MountRecord>> {
    let host = &record.host_config;
    let mut mounts = Vec::new();
    for text in host.binds.iter().flatten() {
        add(&mut mounts, parse_bind(text)?)?;
    }
    for mount in host.mounts.iter().flatten() {
        add(&mut mounts, parse_mount(mount)?)?;
    }
    for (destination, options) in host.tmpfs.iter().flatten() {
        add(&mut mounts, parse_tmpfs(destination, options)?)?;
    }
    for from in host.volumes_from.iter().flatten() {
        for mount in borrowed(shared, from)? {
            // What the request says itself wins.
            if !mounts.iter().any(|present| present.destination == mount.destination) {
                mounts.push(mount);
            }
        }
    }
    for destination in record.config.volumes.iter().flatten() {
        let destination = check_destination(destination)?;
        if !mounts.iter().any(|present| present.destination == destination) {
            mounts.push(anonymous(destination));
        }
    }
    if mounts.len() > MOUNTS_MAX {
        return Err(Error::invalid(format!("more than {MOUNTS_MAX} mounts")));
    }
    Ok(mounts)
}

/// Gives anonymous volumes the names they will have, before anything is made.
pub(super) fn name_volumes(record: &mut ContainerRecord) {
    for mount in record.mounts.iter_mut().filter(|mount| mount.anonymous && mount.name.is_none()) {
        mount.name = Some(name::new_id());
    }
}

fn add(mounts: &mut Vec<MountRecord>, mount: MountRecord) -> Result<()> {
    if mounts.iter().any(|present| present.destination == mount.destination) {
        return Err(Error::invalid(format!("Duplicate mount point: {}", mount.destination)));
    }
    mounts.push(mount);
    Ok(())
}

fn anonymous(destination: String) -> MountRecord {
    MountRecord {
        kind: MountKind::Volume,
        destination,
        read_write: true,
        anonymous: true,
        ..MountRecord::default()
    }
}

/// An absolute path in the container, in its shortest form; never the root.
fn check_destination(path: &str) -> Result<String> {
    let wrong = |why: &str| Error::invalid(format!("invalid mount path '{path}': {why}"));
    if !path.starts_with('/') || path.contains('\0') {
        return Err(wrong("mount path must be absolute"));
    }
    match shortest_path(path) {
        root if root == "/" => Err(wrong("destination can't be '/'")),
        path => Ok(path),
    }
}

/// An absolute path in a container in its shortest form, by its text alone.
pub(crate) fn shortest_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `destination`, `source:destination` or `source:destination:options`.
fn parse_bind(text: &str) -> Result<MountRecord> {
    let wrong = || Error::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, options) = match parts[..] {
        [destination] => return check_destination(destination).map(anonymous),
        [source, destination] => (source, destination, ""),
        [source, destination, options] => (source, destination, options),
        _ => return Err(wrong()),
    };
    if source.is_empty() {
        return Err(wrong());
    }
    let mut mount = MountRecord {
        destination: check_destination(destination)?,
        read_write: true,
        mode: options.to_owned(),
        ..MountRecord::default()
    };
    if source.starts_with('/') {
        mount.source = check_source(source)?;
        mount.create_source = true;
    } else {
        mount.kind = MountKind::Volume;
        mount.name = Some(check_volume_name(source)?);
    }
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "rw" => mount.read_write = true,
            "ro" => mount.read_write = false,
            "nocopy" if mount.kind == MountKind::Volume => mount.no_copy = true,
            // SELinux relabelling and the hints of Docker Desktop change nothing on this host.
            "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave"
                if mount.kind == MountKind::Bind =>
            {
                mount.propagation = option.to_owned();
            }
            _ => return Err(Error::invalid(format!("invalid mode: {options}"))),
        }
    }
    Ok(mount)
}

fn check_source(source: &str) -> Result<String> {
    if !source.starts_with('/')
        || source.contains('\0')
        || source.split('/').any(|part| part == "..")
    {
        return Err(Error::invalid(format!(
            "invalid mount source '{source}': it must be an absolute path without '..'"
        )));
    }
    Ok(source.to_owned())
}

fn check_volume_name(text: &str) -> Result<String> {
    name::parse_container(text).map(str::to_owned).map_err(|_| {
        Error::invalid(format!(
            "\"{text}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
             allowed. If you intended to pass a host directory, use absolute path"
        ))
    })
}

fn parse_mount(mount: &Mount) -> Result<MountRecord> {
    let target = mount.target.as_deref().unwrap_or_default();
    let mut record = MountRecord {
        destination: check_destination(target)?,
        read_write: mount.read_only != Some(true),
        ..MountRecord::default()
    };
    let source = mount.source.clone().unwrap_or_default();
    match mount.typ {
        Some(MountType::BIND) => {
            record.source = check_source(&source)?;
            bind_options(mount, &mut record)?;
        }
        Some(MountType::VOLUME) => {
            record.kind = MountKind::Volume;
            record.anonymous = source.is_empty();
            record.name = if source.is_empty() { None } else { Some(check_volume_name(&source)?) };
            volume_options(mount, &mut record)?;
        }
        Some(MountType::TMPFS) => {
            record.kind = MountKind::Tmpfs;
            if !source.is_empty() {
                return Err(Error::invalid(
                    "invalid mount config for type \"tmpfs\": source is not possible",
                ));
            }
            tmpfs_options(mount, &mut record)?;
        }
        Some(other) => {
            return Err(Error::unsupported(format!("mounts of type {other} are not built")));
        }
        None => return Err(Error::invalid("mount type unknown: \"\"")),
    }
    Ok(record)
}

fn bind_options(mount: &Mount, record: &mut MountRecord) -> Result<()> {
    let Some(options) = &mount.bind_options else { return Ok(()) };
    record.propagation = match options.propagation {
        None | Some(MountBindOptionsPropagationEnum::EMPTY) => String::new(),
        Some(propagation) => propagation.to_string(),
    };
    record.non_recursive = options.non_recursive == Some(true);
    record.create_source = options.create_mountpoint == Some(true);
    if options.read_only_force_recursive == Some(true) {
        return Err(Error::unsupported("bind option ReadOnlyForceRecursive is not built"));
    }
    Ok(())
}

fn volume_options(mount: &Mount, record: &mut MountRecord) -> Result<()> {
    let Some(options) = &mount.volume_options else { return Ok(()) };
    record.subpath = options.subpath.clone().unwrap_or_default();
    let leaves = |part: &str| part == "..";
    if record.subpath.starts_with('/') || record.subpath.split('/').any(leaves) {
        return Err(Error::invalid(format!(
            "invalid volume subpath '{}': it must be a relative path within the volume",
            record.subpath
        )));
    }
    record.no_copy = options.no_copy == Some(true);
    record.volume_labels = options.labels.clone().unwrap_or_default().into_iter().collect();
    if let Some(driver) = &options.driver_config {
        if driver.name.as_deref().is_some_and(|name| !name.is_empty() && name != "local") {
            return Err(Error::unsupported("volume drivers other than local are not built"));
        }
        record.volume_options = driver.options.clone().unwrap_or_default().into_iter().collect();
    }
    Ok(())
}

fn tmpfs_options(mount: &Mount, record: &mut MountRecord) -> Result<()> {
    let Some(options) = &mount.tmpfs_options else { return Ok(()) };
    if options.options.as_ref().is_some_and(|list| !list.is_empty()) {
        return Err(Error::unsupported("tmpfs option Options is not built; use --tmpfs"));
    }
    if let Some(size) = options.size_bytes.filter(|size| *size != 0) {
        let size = u64::try_from(size)
            .map_err(|_| Error::invalid("a tmpfs cannot have a negative size"))?;
        record.tmpfs_options.push(format!("size={size}"));
    }
    if let Some(mode) = options.mode.filter(|mode| *mode != 0) {
        let mode = u32::try_from(mode).ok().filter(|mode| *mode <= 0o7777);
        let mode =
            mode.ok_or_else(|| Error::invalid("the mode of a tmpfs must be at most 07777"))?;
        record.tmpfs_options.push(format!("mode={mode:o}"));
    }
    if !record.read_write {
        record.tmpfs_options.push("ro".into());
    }
    Ok(())
}

fn parse_tmpfs(destination: &str, options: &str) -> Result<MountRecord> {
    const FLAGS: [&str; 17] = [
        "ro",
        "rw",
        "exec",
        "noexec",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "sync",
        "async",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
    ];
    let mut words: Vec<String> = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let known = match option.split_once('=') {
            Some(("size" | "nr_blocks" | "nr_inodes" | "uid" | "gid" | "mode", value)) => {
                !value.is_empty()
                    && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'%')
            }
            Some(_) => false,
            None => FLAGS.contains(&option),
        };
        if !known {
            return Err(Error::invalid(format!("invalid tmpfs option \"{option}\"")));
        }
        words.push(option.to_owned());
    }
    Ok(MountRecord {
        kind: MountKind::Tmpfs,
        destination: check_destination(destination)?,
        read_write: !words.iter().any(|word| word == "ro"),
        tmpfs_options: words,
        ..MountRecord::default()
    })
}

/// The volumes and binds of another container: `container` or `container:ro`.
fn borrowed(shared: &Arc<Shared>, text: &str) -> Result<Vec<MountRecord>> {
    let (container, mode) = text.split_once(':').unwrap_or((text, "rw"));
    if !["ro", "rw", "z", "Z"].contains(&mode) {
        return Err(Error::invalid(format!("invalid mode for volumes-from: {mode}")));
    }
    let view = shared.table.find(container)?.view();
    let mounts = view.record.mounts.iter().filter(|mount| mount.kind != MountKind::Tmpfs);
    Ok(mounts
        .map(|mount| MountRecord {
            read_write: mount.read_write && mode != "ro",
            anonymous: false,
            volume_labels: BTreeMap::new(),
            ..mount.clone()
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_parse_in_all_forms() {
        let bind = parse_bind("/src:/dst:ro,rslave").expect("a bind");
        assert_eq!(
            (bind.kind, bind.source.as_str(), bind.destination.as_str()),
            (MountKind::Bind, "/src", "/dst")
        );
        assert!(!bind.read_write && bind.create_source && bind.propagation == "rslave");
        let volume = parse_bind("data:/var/lib/x:nocopy").expect("a volume");
        assert_eq!(
            (volume.kind, volume.name.as_deref(), volume.no_copy),
            (MountKind::Volume, Some("data"), true)
        );
        let anonymous = parse_bind("/cache").expect("an anonymous volume");
        assert!(anonymous.anonymous && anonymous.name.is_none());
    }

    #[test]
    fn malformed_binds_are_refused() {
        for bad in [
            "",
            ":",
            ":/x",
            "a:b",
            "/a:b",
            "/a:/",
            "/a:/b:nope",
            "/a:/b:ro:x",
            "../x:/y",
            "/a/../b:/c",
            "a b:/c",
            "a:/b:shared",
        ] {
            assert!(parse_bind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn destinations_are_shortened_and_never_the_root() {
        assert_eq!(check_destination("/a//b/./c/../d/").expect("good"), "/a/b/d");
        for bad in ["/", "/..", "a", "", "/a/.."] {
            assert!(check_destination(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tmpfs_options_are_a_closed_list() {
        let mount = parse_tmpfs("/run", "size=64m,exec,mode=1777").expect("good");
        assert_eq!(mount.tmpfs_options, ["size=64m", "exec", "mode=1777"]);
        for bad in ["lowerdir=/x", "size=", "size=1,foo", "context=\"x\""] {
            assert!(parse_tmpfs("/run", bad).is_err(), "{bad}");
        }
    }
}
