//! What init does to its root filesystem. Nothing here allocates.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use brig_linux::mount::{
    MountAttributes, attach, attribute, attribute_flags, clone_tree, propagation, set_attributes,
    set_attributes_at,
};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, FsPickFlags, UnmountFlags};

use super::copy_up::copy_contents;
use super::devices::DevicePlan;
use super::target::{Missing, find, find_or_make, find_or_make_nofollow, open};
use super::tree::Tree;
use super::{Action, FilesystemPlan, RootfsPlan, RootfsStep};
use crate::process::message::{At, Failure, Step};
use crate::protection::{Protection, on};

type Done<T = ()> = Result<T, Failure>;
type FilesystemOptions = [(CString, Option<CString>)];

/// Opens what the caller could not open, and attaches the root: as the caller's user still, who can reach places that
/// the root of a user namespace cannot.
pub(crate) fn attach_root(plan: &RootfsPlan) -> Done {
    let slave = MountAttributes::default().propagation(propagation::SLAVE);
    set_attributes_at(c"/", &slave, true).at(Step::RootPropagation)?;
    for (index, step) in plan.steps.iter().enumerate() {
        step.tree().map_or(Ok(()), Tree::open_early).at_index(Step::Source, index)?;
    }
    let tree = plan.tree.get().at(Step::AttachRoot)?;
    let path = rustix::fs::openat(CWD, &plan.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .at(Step::AttachRoot)?;
    attach(tree, &path).at(Step::AttachRoot)
}

/// Mounts everything. Answers the procfs that is the container's `/proc`. `released` is called before each step that needs
/// this process to be in its cgroups, and at the end.
pub(crate) fn mount(
    plan: &RootfsPlan,
    mut released: impl FnMut() -> Done,
) -> Done<Option<OwnedFd>> {
    let root = plan.tree.get().at(Step::AttachRoot)?;
    let mut proc = None;
    for (index, step) in plan.steps.iter().enumerate() {
        if step.in_cgroup() {
            released()?;
        }
        let mounted = mount_step(root, index, step)?;
        // What is mounted over it later, as a bind of the host's, takes its place.
        if step.target.as_c_str() == c"proc" && !matches!(step.action, Action::Change { .. }) {
            proc = mounted;
        }
    }
    released()?;
    Ok(proc)
}

/// Makes the devices and the links beside them.
pub(crate) fn devices(plan: &RootfsPlan, user_namespace: bool) -> Done {
    let root = plan.tree.get().at(Step::AttachRoot)?;
    if !plan.devices.is_empty() || !plan.links.is_empty() {
        refuse_link(root, c"dev").at(Step::DeviceLink)?;
    }
    for (index, device) in plan.devices.iter().enumerate() {
        make_device(root, device, user_namespace).at_index(Step::Device, index)?;
    }
    if !plan.links.is_empty() {
        make_links(root, plan)?;
    }
    Ok(())
}

/// Does one step; answers the procfs that it made.
pub(crate) fn mount_step(
    root: BorrowedFd<'_>,
    index: usize,
    step: &RootfsStep,
) -> Done<Option<OwnedFd>> {
    let target = |missing| {
        let find = if step.target_nofollow { find_or_make_nofollow } else { find_or_make };
        find(root, &step.target, missing).at_index(Step::Mount, index)
    };
    match &step.action {
        Action::Attach { tree, propagation } => {
            let tree = tree.get().at_index(Step::Source, index)?;
            let stat = rustix::fs::fstat(tree).at_index(Step::Mount, index)?;
            let missing = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Missing::Directory,
                _ => Missing::File,
            };
            attach(tree, target(missing)?).at_index(Step::Mount, index)?;
            propagate(tree, propagation).at_index(Step::Mount, index)?;
            Ok(None)
        }
        Action::Filesystem(plan) => {
            let mount = make_filesystem(plan, index)?;
            if plan.keep_mode {
                keep_mode(root, &step.target, &mount).at_index(Step::Mount, index)?;
            }
            let target = target(Missing::Directory)?;
            if plan.copy_up {
                copy_contents(target.as_fd(), mount.as_fd()).at_index(Step::Mount, index)?;
            }
            let read_only = plan.attributes & attribute::READ_ONLY;
            if read_only != 0 && (plan.copy_up || plan.keep_mode) {
                set_attributes(&mount, &MountAttributes::default().set(read_only), false)
                    .at_index(Step::Mount, index)?;
            }
            attach(&mount, target).at_index(Step::Mount, index)?;
            propagate(mount.as_fd(), &plan.propagation).at_index(Step::Mount, index)?;
            Ok(plan.is_proc.then_some(mount))
        }
        Action::Reconfigure { options } => {
            let target = find(root, &step.target).at_index(Step::Mount, index)?;
            reconfigure(&target, options, index)?;
            Ok(None)
        }
        Action::Change { attributes, recursive } => {
            let target = find(root, &step.target).at_index(Step::Mount, index)?;
            set_attributes(target, attributes, *recursive).at_index(Step::Mount, index)?;
            Ok(None)
        }
        Action::Link { to, exact } => {
            make_link(root, &step.target, to, *exact).at_index(Step::Mount, index)?;
            Ok(None)
        }
    }
}

fn make_link(
    root: BorrowedFd<'_>,
    target: &CStr,
    to: &CStr,
    exact: bool,
) -> rustix::io::Result<()> {
    let (directory, name) = split(target);
    let directory = directory_of(root, directory)?;
    match rustix::fs::symlinkat(to, &directory, name) {
        Err(Errno::EXIST) if exact => {
            let mut present = [0_u8; 4096];
            let length = rustix::fs::readlinkat_raw(&directory, name, &mut present[..])
                .map_err(|_| Errno::EXIST)?;
            if present[..length] == *to.to_bytes() { Ok(()) } else { Err(Errno::EXIST) }
        }
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Gives a new tmpfs the mode of the directory that it will cover.
fn keep_mode(root: BorrowedFd<'_>, target: &CStr, mount: &OwnedFd) -> rustix::io::Result<()> {
    let Ok(covered) = find(root, target) else { return Ok(()) };
    let mode = Mode::from_raw_mode(rustix::fs::fstat(covered)?.st_mode & 0o7777);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::fchmod(rustix::fs::openat(mount, c".", flags, Mode::empty())?, mode)
}

fn propagate(mount: BorrowedFd<'_>, kinds: &[(u64, bool)]) -> rustix::io::Result<()> {
    for (kind, recursive) in kinds {
        set_attributes(mount, &MountAttributes::default().propagation(*kind), *recursive)?;
    }
    Ok(())
}

fn make_filesystem(plan: &FilesystemPlan, index: usize) -> Done<OwnedFd> {
    let context = rustix::mount::fsopen(&plan.kind, FsOpenFlags::FSOPEN_CLOEXEC)
        .at_index(Step::Mount, index)?;
    let explained = |errno| explained(&context, index, errno);
    configure(&context, &plan.options).map_err(explained)?;
    rustix::mount::fsconfig_create(&context).map_err(explained)?;
    // What is to be changed first cannot be read-only yet.
    let later = if plan.copy_up || plan.keep_mode { attribute::READ_ONLY } else { 0 };
    let flags = attribute_flags(plan.attributes & !later);
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(explained)
}

/// Changes the filesystem that is mounted at `target`, which must be the mount itself.
fn reconfigure(target: &OwnedFd, options: &FilesystemOptions, index: usize) -> Done {
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let context = rustix::mount::fspick(target, c"", flags).at_index(Step::Mount, index)?;
    configure(&context, options)
        .and_then(|()| rustix::mount::fsconfig_reconfigure(&context))
        .map_err(|errno| explained(&context, index, errno))
}

fn configure(context: &OwnedFd, options: &FilesystemOptions) -> rustix::io::Result<()> {
    options.iter().try_for_each(|(key, value)| match value {
        Some(value) => rustix::mount::fsconfig_set_string(context, key, value),
        None => rustix::mount::fsconfig_set_flag(context, key),
    })
}

/// A failure with the kernel's own words.
fn explained(context: &OwnedFd, index: usize, errno: Errno) -> Failure {
    let mut words = [0; 256];
    let length = rustix::io::read(context, &mut words).unwrap_or(0);
    // A message starts with its class and a space, and ends with a newline.
    let words = words.get(2..length).unwrap_or_default();
    Failure::new(Step::Mount, index, errno).with_detail(words.trim_ascii_end())
}

/// A path's directory as bytes, and its last name.
pub(crate) fn split(path: &CStr) -> (&[u8], &CStr) {
    let bytes = path.to_bytes_with_nul();
    let start = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let name = CStr::from_bytes_with_nul(&bytes[start..]).unwrap_or(c"");
    (&bytes[..start.saturating_sub(1)], name)
}

/// Opens or makes a directory beneath the root.
pub(crate) fn directory_of(root: BorrowedFd<'_>, directory: &[u8]) -> rustix::io::Result<OwnedFd> {
    let mut text = [0_u8; 4096];
    text.get_mut(..directory.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(directory);
    let path = CStr::from_bytes_until_nul(&text).map_err(|_| Errno::NAMETOOLONG)?;
    find_or_make(root, path, Missing::Directory)
}

/// Devices are made one by one, by path, and so in a directory that stays the same one.
fn refuse_link(root: BorrowedFd<'_>, path: &CStr) -> rustix::io::Result<()> {
    if !on(Protection::RealDirectory) {
        return Ok(());
    }
    match open(root, path, OFlags::PATH, ResolveFlags::NO_SYMLINKS) {
        // It will be made.
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn make_device(
    root: BorrowedFd<'_>,
    device: &DevicePlan,
    user_namespace: bool,
) -> rustix::io::Result<()> {
    let directory = find_or_make(root, &device.directory, Missing::Directory)?;
    if user_namespace {
        return bind_device(directory.as_fd(), device);
    }
    let number = rustix::fs::makedev(device.major, device.minor);
    let kind = FileType::from_raw_mode(device.mode);
    let mode = Mode::from_raw_mode(device.mode & 0o7777);
    match rustix::fs::mknodat(&directory, &device.name, kind, mode, number) {
        Ok(()) => {}
        // An image may bring the node along; only the very same device is taken.
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(&directory, &device.name, AtFlags::SYMLINK_NOFOLLOW)?;
            let same = FileType::from_raw_mode(stat.st_mode) == kind
                && (kind == FileType::Fifo || stat.st_rdev == number);
            return if same { Ok(()) } else { Err(Errno::EXIST) };
        }
        Err(Errno::PERM) => return bind_device(directory.as_fd(), device),
        Err(errno) => return Err(errno),
    }
    if device.uid != 0 || device.gid != 0 {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&directory, &device.name, Some(uid), Some(gid), flags)?;
    }
    Ok(())
}

/// Where nodes may not be made, the host's own node is bound over an empty file.
fn bind_device(directory: BorrowedFd<'_>, device: &DevicePlan) -> rustix::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::PATH;
    let create = (flags - OFlags::PATH) | OFlags::WRONLY;
    drop(rustix::fs::openat(directory, &device.name, create, Mode::from_raw_mode(0o644))?);
    let target = rustix::fs::openat(
        directory,
        &device.name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    attach(clone_tree(CWD, &device.host, false)?, target)
}

fn make_links(root: BorrowedFd<'_>, plan: &RootfsPlan) -> Done {
    let directory = find_or_make(root, c"dev", Missing::Directory).at(Step::DeviceLink)?;
    for (index, (target, name)) in plan.links.iter().enumerate() {
        match rustix::fs::symlinkat(target, &directory, name) {
            Err(Errno::EXIST) if name.as_c_str() == c"ptmx" => {
                // An image's own node would be the host's terminal multiplexer.
                rustix::fs::unlinkat(&directory, name, AtFlags::empty())
                    .and_then(|()| rustix::fs::symlinkat(target, &directory, name))
                    .at_index(Step::DeviceLink, index)?;
            }
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).at_index(Step::DeviceLink, index),
        }
    }
    Ok(())
}

/// Masks and protects paths, while the host's `/dev/null` can still be reached. Those below `/proc` are looked up from
/// `proc`, the mount itself, if there is one: whatever somebody makes of the name `/proc` meanwhile, they are masked.
pub(crate) fn protect(plan: &RootfsPlan, proc: Option<BorrowedFd<'_>>) -> Done {
    let root = plan.tree.get().at(Step::AttachRoot)?;
    let read_only = if on(Protection::ReadOnlyPaths) { plan.read_only.as_slice() } else { &[] };
    for (index, path) in read_only.iter().enumerate() {
        let Some(target) = present(root, proc, path).at_index(Step::ReadOnlyPath, index)? else {
            continue;
        };
        let read_only = MountAttributes::default().set(attribute::READ_ONLY);
        clone_tree(target.as_fd(), c"", true)
            .and_then(|tree| set_attributes(&tree, &read_only, true).map(|()| tree))
            .and_then(|tree| attach(tree, target))
            .at_index(Step::ReadOnlyPath, index)?;
    }
    if plan.masked.is_empty() || !on(Protection::MaskedPaths) {
        return Ok(());
    }
    let null = null_device()?;
    let mut empty: Option<OwnedFd> = None;
    for (index, path) in plan.masked.iter().enumerate() {
        let Some(target) = present(root, proc, path).at_index(Step::Mask, index)? else { continue };
        let stat = rustix::fs::fstat(&target).at_index(Step::Mask, index)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            clone_tree(null.as_fd(), c"", false)
                .and_then(|mask| attach(mask, target))
                .at_index(Step::Mask, index)?;
            continue;
        }
        let mask = match &empty {
            Some(first) => clone_tree(first.as_fd(), c"", false).at_index(Step::Mask, index)?,
            None => empty_directory().at_index(Step::MaskSource, 1)?,
        };
        attach(&mask, target).at_index(Step::Mask, index)?;
        empty.get_or_insert(mask);
    }
    Ok(())
}

/// A target that is there; what is not there need not be hidden.
fn present(
    root: BorrowedFd<'_>,
    proc: Option<BorrowedFd<'_>>,
    path: &CStr,
) -> rustix::io::Result<Option<OwnedFd>> {
    let bytes = path.to_bytes_with_nul();
    let below = bytes.strip_prefix(b"proc/").filter(|rest| !rest.windows(2).any(|it| it == b".."));
    let below = below.and_then(|rest| CStr::from_bytes_with_nul(rest).ok());
    let found = match (proc, below) {
        (Some(proc), Some(rest)) => find(proc, rest),
        _ => find(root, path),
    };
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The host's `/dev/null`, if it is that: a mask made from anything else would show, or write to, that instead
/// (CVE-2025-31133).
fn null_device() -> Done<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = rustix::fs::openat(CWD, c"/dev/null", flags, Mode::empty()).at(Step::MaskSource)?;
    let stat = rustix::fs::fstat(&null).at(Step::MaskSource)?;
    let genuine = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3);
    if genuine || !on(Protection::NullDevice) {
        Ok(null)
    } else {
        Err(Failure::new(Step::MaskSource, 0, Errno::NODEV))
    }
}

/// One read-only empty filesystem, shared by all masked directories.
fn empty_directory() -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, c"nr_blocks", c"1")?;
    rustix::mount::fsconfig_set_string(&context, c"nr_inodes", c"1")?;
    rustix::mount::fsconfig_create(&context)?;
    let bits = attribute::READ_ONLY | attribute::NO_SUID | attribute::NO_DEV | attribute::NO_EXEC;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attribute_flags(bits))
}

/// A procfs that nobody can have mounted over, for what must reach the kernel and nothing else.
pub(crate) fn private_proc() -> Done<OwnedFd> {
    let context =
        rustix::mount::fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC).at(Step::PrivateProc)?;
    rustix::mount::fsconfig_create(&context).at(Step::PrivateProc)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attribute_flags(0))
        .at(Step::PrivateProc)
}

/// Opens a file of a procfs, refusing links and anything mounted over a part of it.
pub(crate) fn proc_file(
    proc: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let whole =
        if on(Protection::ProcOvermount) { ResolveFlags::NO_XDEV } else { ResolveFlags::empty() };
    open(proc, path, flags, whole)
}

/// Writes the kernel parameters.
pub(crate) fn set_sysctls(plan: &RootfsPlan, proc: BorrowedFd<'_>) -> Done {
    for (index, sysctl) in plan.sysctls.iter().enumerate() {
        proc_file(proc, &sysctl.path, OFlags::WRONLY)
            .and_then(|file| rustix::io::write(file, &sysctl.value))
            .at_index(Step::Sysctl, index)?;
    }
    Ok(())
}

/// Makes the tree the root of this mount namespace and lets go of the host's.
pub(crate) fn enter(plan: &RootfsPlan) -> Done {
    let tree = plan.tree.get().at(Step::PivotRoot)?;
    rustix::process::fchdir(tree).at(Step::PivotRoot)?;
    if plan.no_pivot {
        use rustix::mount::{MoveMountFlags, move_mount};
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(tree, c"", CWD, c"/", flags).at(Step::PivotRoot)?;
        rustix::process::chroot(c".").at(Step::PivotRoot)?;
    } else {
        // With the same directory for both, the old root ends up on top of the new one, and is detached from there:
        // no directory for it is needed inside the container (pivot_root(2)).
        rustix::process::pivot_root(c".", c".").at(Step::PivotRoot)?;
        rustix::mount::unmount(c".", UnmountFlags::DETACH).at(Step::PivotRoot)?;
    }
    rustix::process::chdir(c"/").at(Step::PivotRoot)?;
    if let Some((kind, recursive)) = plan.propagation {
        let change = MountAttributes::default().propagation(kind);
        set_attributes_at(c"/", &change, recursive).at(Step::RootPropagation)?;
    }
    if plan.read_only_root {
        let read_only = MountAttributes::default().set(attribute::READ_ONLY);
        set_attributes_at(c"/", &read_only, false).at(Step::RootReadOnly)?;
    }
    Ok(())
}
