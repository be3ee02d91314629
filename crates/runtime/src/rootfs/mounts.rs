//! The mounts of a configuration, opened or prepared by the caller.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use brig_linux::mount::{MountAttributes, propagation, set_attributes};
use oci_spec::runtime::{LinuxIdMapping, Mount};
use rustix::fs::FileType;

use super::options::{self, MountOptions};
use super::tree::Tree;
use super::{Action, FilesystemPlan, RootfsStep};
use crate::cgroup::Placement;
use crate::container::RootfsMount;
use crate::error::{Error, ErrorKind, Result};
use crate::process::id_maps::is_mapped;
use crate::process::parent::user_namespace;
use crate::protection::{Protection, on};

/// What the mounts of one container have in common.
pub(crate) struct MountContext<'a> {
    /// Relative bind sources start here.
    pub(crate) bundle: &'a Path,
    /// What a bind mount keeps of its source's propagation: `linux.rootfsPropagation`.
    pub(crate) propagation: u64,
    /// The SELinux context of new filesystems.
    pub(crate) label: Option<&'a str>,
    /// Where the container's cgroup lies in every hierarchy, its own or the caller's.
    pub(crate) placement: Option<&'a Placement>,
    /// Whether the container has its own cgroup namespace.
    pub(crate) new_cgroup: bool,
    /// Whether the caller may open trees of mounts; otherwise init does.
    pub(crate) openable: bool,
    /// The container's own id maps, for mounts that are mapped without maps of their own.
    pub(crate) id_maps: Option<(&'a [LinuxIdMapping], &'a [LinuxIdMapping])>,
}

/// Prepares the mounts of a configuration, in order.
pub(crate) fn prepare(context: &MountContext<'_>, mounts: &[Mount]) -> Result<Vec<RootfsStep>> {
    let mut steps = Vec::new();
    for mount in mounts {
        let label = describe(mount);
        prepare_one(context, mount, &label, &mut steps)
            .map_err(|error| error.context(format!("prepare {label}")))?;
    }
    Ok(steps)
}

fn describe(mount: &Mount) -> String {
    let kind = mount.typ().as_deref().filter(|kind| *kind != "none");
    let what = match (kind, mount.source()) {
        (Some("bind") | None, Some(source)) => source.display().to_string(),
        (Some(kind), _) => kind.to_owned(),
        (None, None) => "nothing".to_owned(),
    };
    format!("mount {what:?} at {:?}", mount.destination().display().to_string())
}

fn prepare_one(
    context: &MountContext<'_>,
    mount: &Mount,
    label: &str,
    steps: &mut Vec<RootfsStep>,
) -> Result<()> {
    let options = options::parse(mount.options().as_deref().unwrap_or_default())?;
    let target = target(mount.destination())?;
    let kind = mount.typ().as_deref().unwrap_or("none");
    let step = |action| RootfsStep {
        action,
        target: target.clone(),
        target_nofollow: options.target_nofollow || must_be_directory(kind, &target),
        label: label.to_owned(),
    };
    if options.copy_up && kind != "tmpfs" {
        return Err(Error::new(ErrorKind::InvalidInput, "tmpcopyup on what is no tmpfs"));
    }
    if options.remount || (kind == "none" && !options.bind && mount.source().is_none()) {
        steps.extend(changes(context, &options)?.into_iter().map(step));
        return Ok(());
    }
    if options.bind || kind == "bind" {
        if let Some(to) = options.copy_link.then(|| link_of(context, mount)).flatten() {
            steps.push(step(Action::Link { to: c_path(&to)?, exact: true }));
            return Ok(());
        }
        let tree = bind(context, mount, &options)?;
        steps.push(step(Action::Attach { tree, propagation: options.propagation }));
        return Ok(());
    }
    if options.id_map.is_some() || mount.uid_mappings().is_some() {
        return Err(Error::new(ErrorKind::Unsupported, "id-mapped mount that is no bind mount"));
    }
    if kind == "cgroup" || kind == "cgroup2" {
        return cgroup(context, &options, &target, label, steps);
    }
    let filesystem = filesystem(context, kind, mount.source(), &options)?;
    steps.push(step(Action::Filesystem(filesystem)));
    Ok(())
}

/// What changes a mount that is there: as a remount, or a mount of nothing that only has options.
fn changes(context: &MountContext<'_>, options: &MountOptions) -> Result<Vec<Action>> {
    let mut actions = Vec::new();
    let data = filesystem_options(context, options)?;
    if !data.is_empty() {
        if options.bind {
            let text = format!("remount a bind mount with {:?}", options.data[0].0);
            return Err(Error::new(ErrorKind::InvalidInput, text)
                .with_advice("options of the filesystem are changed by a remount without bind"));
        }
        actions.push(Action::Reconfigure { options: data });
    }
    let propagation = options
        .propagation
        .iter()
        .map(|(kind, recursive)| (MountAttributes::default().propagation(*kind), *recursive));
    let attributes = [(options.attributes, false), (options.recursive_attributes, true)];
    let changes = attributes.into_iter().chain(propagation);
    actions.extend(
        changes
            .filter(|(attributes, _)| !attributes.is_empty())
            .map(|(attributes, recursive)| Action::Change { attributes, recursive }),
    );
    Ok(actions)
}

/// Whether a target is refused when it is a link. What is mounted there is masked, made read-only or filled with
/// devices afterwards, by the same path; behind a link, that path could lead into a volume by then, where a neighbour
/// swaps what is there (CVE-2019-19921, CVE-2023-27561, CVE-2026-41579).
fn must_be_directory(kind: &str, target: &CStr) -> bool {
    let path = target.to_bytes();
    let meant = matches!(kind, "proc" | "sysfs") || matches!(path, b"proc" | b"sys" | b"dev");
    meant && !path.is_empty() && on(Protection::RealDirectory)
}

/// Where the source of a bind mount leads, if it is a link.
fn link_of(context: &MountContext<'_>, mount: &Mount) -> Option<PathBuf> {
    std::fs::read_link(context.bundle.join(mount.source().as_ref()?)).ok()
}

/// A target without the slashes around it.
pub(crate) fn target(destination: &Path) -> Result<CString> {
    let invalid =
        |what| Error::new(ErrorKind::InvalidInput, format!("{}: {what}", destination.display()));
    let bytes = destination.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() >= 4096 {
        return Err(invalid("a mount destination has 1 to 4095 bytes"));
    }
    let start = bytes.iter().position(|byte| *byte != b'/').unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(start, |last| last + 1);
    CString::new(&bytes[start..end]).map_err(|_| invalid("it contains a zero byte"))
}

fn bind(context: &MountContext<'_>, mount: &Mount, options: &MountOptions) -> Result<Tree> {
    let source = mount
        .source()
        .as_ref()
        .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "a bind mount without source"))?;
    let source = c_path(&context.bundle.join(source))?;
    // Before its own propagation, a bind mount has what the container's root has: as if the bind had been made in
    // the container's mount namespace.
    let inherited = MountAttributes::default().propagation(context.propagation);
    let tree = Tree::new(source, options.recursive_bind)
        .nofollow(options.source_nofollow)
        .changed(inherited, true)
        .changed(options.attributes, false)
        .changed(options.recursive_attributes, true);
    let tree = map_owners(context, mount, options, tree)?;
    if context.openable {
        tree.open()?;
    }
    Ok(tree)
}

fn map_owners(
    context: &MountContext<'_>,
    mount: &Mount,
    options: &MountOptions,
    tree: Tree,
) -> Result<Tree> {
    let own = mount.uid_mappings().as_deref().zip(mount.gid_mappings().as_deref());
    if own.is_none() && options.id_map.is_none() {
        return Ok(tree);
    }
    if !context.openable {
        return Err(Error::new(ErrorKind::Unsupported, "an id-mapped mount")
            .with_advice("the kernel lets only root of the host map the owners of its files"));
    }
    let Some((users, groups)) = own.or(context.id_maps) else {
        return Err(Error::new(ErrorKind::InvalidInput, "an id-mapped mount without id maps"));
    };
    Ok(tree.mapped(user_namespace(users, groups)?, options.id_map == Some(true)))
}

fn filesystem(
    context: &MountContext<'_>,
    kind: &str,
    source: &Option<PathBuf>,
    options: &MountOptions,
) -> Result<FilesystemPlan> {
    let mut data = Vec::new();
    if let Some(source) = source {
        data.push((c"source".to_owned(), Some(c_path(source)?)));
    }
    data.extend(filesystem_options(context, options)?);
    // Those that belong to the kernel have labels of their own.
    let own = matches!(kind, "proc" | "sysfs" | "mqueue");
    if let Some(label) = context.label.filter(|_| !own) {
        data.push((c"context".to_owned(), Some(c_string(label)?)));
    }
    Ok(FilesystemPlan {
        kind: c_string(kind)?,
        options: data,
        attributes: options.attributes.bits() | options.recursive_attributes.bits(),
        propagation: options.propagation.clone(),
        copy_up: options.copy_up,
        keep_mode: kind == "tmpfs" && !options.data.iter().any(|(key, _)| key == "mode"),
        is_proc: kind == "proc",
    })
}

/// The options that the filesystem itself understands.
fn filesystem_options(
    context: &MountContext<'_>,
    options: &MountOptions,
) -> Result<Vec<(CString, Option<CString>)>> {
    let option = |(key, value): &(String, Option<String>)| {
        check_owner(context, key, value.as_deref())?;
        Ok((c_string(key)?, value.as_deref().map(c_string).transpose()?))
    };
    options.data.iter().map(option).collect()
}

/// The kernel knows no owner that the user namespace does not map, and says only that the option is wrong.
fn check_owner(context: &MountContext<'_>, key: &str, value: Option<&str>) -> Result<()> {
    let (Some((users, groups)), Some(id)) =
        (context.id_maps, value.and_then(|value| value.parse::<u32>().ok()))
    else {
        return Ok(());
    };
    let (map, field) = match key {
        "uid" => (users, "linux.uidMappings"),
        "gid" => (groups, "linux.gidMappings"),
        _ => return Ok(()),
    };
    if is_mapped(map, id) {
        return Ok(());
    }
    let text = format!("mount option {key}={id}: {field} does not map it");
    Err(Error::new(ErrorKind::InvalidInput, text).with_advice("map it, or leave the option out"))
}

/// `/sys/fs/cgroup`: one cgroup2 mount, or on hosts with v1 a tmpfs with one mount per hierarchy. With a cgroup
/// namespace the container's cgroup is the root of each; without one its directory is bound.
fn cgroup(
    context: &MountContext<'_>,
    options: &MountOptions,
    target: &CString,
    label: &str,
    steps: &mut Vec<RootfsStep>,
) -> Result<()> {
    let places: Vec<_> =
        context.placement.map(|placement| placement.directories().collect()).unwrap_or_default();
    let push = |steps: &mut Vec<RootfsStep>, action, target: CString| {
        steps.push(RootfsStep { action, target, target_nofollow: false, label: label.to_owned() });
    };
    let mount_of =
        |controllers: &str, directory: &Path| hierarchy(context, options, controllers, directory);
    if let [(controllers, directory)] = places.as_slice()
        && controllers.is_empty()
    {
        push(steps, mount_of("", directory)?, target.clone());
        return Ok(());
    }
    let tmpfs = FilesystemPlan {
        kind: c"tmpfs".to_owned(),
        options: vec![
            (c"source".to_owned(), Some(c"tmpfs".to_owned())),
            (c"mode".to_owned(), Some(c"755".to_owned())),
        ],
        attributes: options.attributes.clear(brig_linux::mount::attribute::READ_ONLY).bits(),
        propagation: Vec::new(),
        copy_up: false,
        keep_mode: false,
        is_proc: false,
    };
    push(steps, Action::Filesystem(tmpfs), target.clone());
    let below = |name: &str| c_string(&format!("{}/{name}", target.to_string_lossy()));
    for (controllers, directory) in &places {
        let name = match controllers.strip_prefix("name=") {
            Some(name) => name,
            None if controllers.is_empty() => "unified",
            None => controllers,
        };
        push(steps, mount_of(controllers, directory)?, below(name)?);
        if name.contains(',') {
            for single in name.split(',') {
                push(steps, Action::Link { to: c_string(name)?, exact: false }, below(single)?);
            }
        }
    }
    if options.attributes.bits() & brig_linux::mount::attribute::READ_ONLY != 0 {
        let attributes = MountAttributes::default().set(brig_linux::mount::attribute::READ_ONLY);
        push(steps, Action::Change { attributes, recursive: false }, target.clone());
    }
    Ok(())
}

/// One hierarchy of the container's cgroup.
fn hierarchy(
    context: &MountContext<'_>,
    options: &MountOptions,
    controllers: &str,
    directory: &Path,
) -> Result<Action> {
    if !context.new_cgroup {
        // Where systemd makes it, it exists only once init does.
        let tree = Tree::new(c_path(directory)?, false)
            .late()
            .changed(options.attributes.propagation(propagation::SLAVE), false);
        return Ok(Action::Attach { tree, propagation: options.propagation.clone() });
    }
    let kind = if controllers.is_empty() { c"cgroup2" } else { c"cgroup" };
    let mut data = vec![(c"source".to_owned(), Some(c"cgroup".to_owned()))];
    data.extend(match controllers.strip_prefix("name=") {
        Some(name) => {
            vec![(c"none".to_owned(), None), (c"name".to_owned(), Some(c_string(name)?))]
        }
        None => controllers
            .split(',')
            .filter(|name| !name.is_empty())
            .map(|name| Ok((c_string(name)?, None)))
            .collect::<Result<Vec<_>>>()?,
    });
    Ok(Action::Filesystem(FilesystemPlan {
        kind: kind.to_owned(),
        options: data,
        attributes: options.attributes.bits(),
        propagation: options.propagation.clone(),
        copy_up: false,
        keep_mode: false,
        is_proc: false,
    }))
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::new(ErrorKind::InvalidInput, "a mount contains a zero byte"))
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text)
        .map_err(|_| Error::new(ErrorKind::InvalidInput, "a mount contains a zero byte"))
}

/// Opens the root filesystem as a detached tree: the directory of the bundle, or the mounts that an engine handed over.
/// Of those without target the last is the root, as if each had been mounted over the one before; those with a target
/// come back as steps, in order.
///
/// The trees are slaves of the host's mounts: what is mounted in the container never reaches the host, and pivot_root
/// refuses a shared root. `linux.rootfsPropagation` is set once it is the root.
pub(crate) fn root_tree(
    path: &Path,
    handed: &[RootfsMount],
    openable: bool,
) -> Result<(Tree, Vec<RootfsStep>)> {
    if !handed.is_empty() && !openable {
        return Err(Error::new(ErrorKind::Unsupported, "mount a root filesystem without root"));
    }
    let slave = MountAttributes::default().propagation(propagation::SLAVE);
    let mut root = None;
    let mut steps = Vec::new();
    for mount in handed {
        let tree = handed_mount(mount)?;
        set_attributes(&tree, &slave, true)
            .map_err(|errno| Error::system("set the propagation of the root filesystem", errno))?;
        if mount.target.trim_matches('/').is_empty() {
            root = Some(Tree::opened(tree, c_path(path)?));
            continue;
        }
        let tree = Tree::opened(tree, c_string(&mount.source)?);
        steps.push(RootfsStep {
            action: Action::Attach { tree, propagation: Vec::new() },
            target: target(Path::new(&mount.target))?,
            target_nofollow: false,
            label: format!("mount {:?} of the root filesystem", mount.target),
        });
    }
    if let Some(root) = root {
        return Ok((root, steps));
    }
    let stat = rustix::fs::stat(path).map_err(|errno| {
        Error::system(format!("open root filesystem {}", path.display()), errno)
    })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        let attempt = format!("root filesystem {} is not a directory", path.display());
        return Err(Error::new(ErrorKind::InvalidInput, attempt));
    }
    let root = Tree::new(c_path(path)?, true).changed(slave, true);
    if openable {
        root.open()?;
    }
    Ok((root, steps))
}

/// Attaches the mounts that an engine handed over on the host, one above the other, for a runtime that cannot take them.
pub(crate) fn mount_on_host(handed: &[RootfsMount], path: &Path) -> Result<()> {
    if let Some(mount) = handed.iter().find(|mount| !mount.target.trim_matches('/').is_empty()) {
        let attempt = format!("mount {:?} of the root filesystem on the host", mount.target);
        return Err(Error::new(ErrorKind::Unsupported, attempt));
    }
    for mount in handed {
        brig_linux::mount::attach_at(handed_mount(mount)?, path)?;
    }
    Ok(())
}

fn handed_mount(mount: &RootfsMount) -> Result<OwnedFd> {
    let options = options::parse(&mount.options)?;
    if options.bind || mount.fstype == "bind" {
        let tree = brig_linux::mount::bind(Path::new(&mount.source), true)?;
        if !options.attributes.is_empty() {
            set_attributes(&tree, &options.attributes, false).map_err(|errno| {
                Error::system(format!("set options of {}", mount.source), errno)
            })?;
        }
        return Ok(tree);
    }
    if mount.fstype == "overlay" {
        return overlay(&options);
    }
    let source = ("source", Some(mount.source.as_str()));
    let data: Vec<(&str, Option<&str>)> = std::iter::once(source)
        .chain(options.data.iter().map(|(key, value)| (key.as_str(), value.as_deref())))
        .collect();
    Ok(brig_linux::mount::filesystem(&mount.fstype, &data, options.attributes.bits())?)
}

fn overlay(options: &MountOptions) -> Result<OwnedFd> {
    let mut lower = Vec::new();
    let (mut upper, mut work, mut extra) = (None, None, Vec::new());
    for (key, value) in &options.data {
        match (key.as_str(), value.as_deref()) {
            ("lowerdir", Some(list)) => lower.extend(split_layers(list)),
            ("lowerdir+", Some(one)) => lower.push(one.into()),
            ("upperdir", Some(path)) => upper = Some(Path::new(path)),
            ("workdir", Some(path)) => work = Some(Path::new(path)),
            (key, value) => extra.push((key, value)),
        }
    }
    Ok(brig_linux::mount::overlay(&brig_linux::mount::OverlayOptions {
        lower: &lower,
        upper,
        work,
        extra: &extra,
        attributes: options.attributes.bits(),
    })?)
}

/// The layers of a `lowerdir` list, in which a backslash escapes a colon.
fn split_layers(list: &str) -> Vec<PathBuf> {
    let mut layers = vec![String::new()];
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' => layers.push(String::new()),
            '\\' => {
                if let (Some(layer), Some(next)) = (layers.last_mut(), characters.next()) {
                    layer.push(next);
                }
            }
            other => {
                if let Some(layer) = layers.last_mut() {
                    layer.push(other);
                }
            }
        }
    }
    layers.into_iter().map(Into::into).collect()
}

/// Whether a path has a `..` component.
pub(crate) fn has_parent(path: &Path) -> bool {
    path.components().any(|component| component == Component::ParentDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_split_at_unescaped_colons() {
        let layers = split_layers("/a:/b\\:c:/d");
        assert_eq!(layers, ["/a", "/b:c", "/d"].map(PathBuf::from));
    }

    #[test]
    fn targets_lose_the_slashes_around_them() {
        assert_eq!(target(Path::new("//proc")).unwrap().as_c_str(), c"proc");
        assert_eq!(target(Path::new("/a/b//")).unwrap().as_c_str(), c"a/b");
        assert_eq!(target(Path::new("//")).unwrap().as_c_str(), c"");
        assert!(target(Path::new("")).is_err());
    }
}
