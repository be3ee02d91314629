//! The guest's disk, kernels and initial file system, made of Debian packages and kept in the build directory.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::image::{backports, hex, mmdebstrap};
use crate::process::{command, output, run, step};

/// What is installed in the guest beside Debian's essential packages. The user session's parts are for containers
/// without root, which ask their own systemd for cgroups.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "dbus",
    "dbus-user-session",
    "iproute2",
    "kmod",
    "libpam-systemd",
    "nftables",
    "procps",
    "systemd",
    "systemd-sysv",
    "udev",
    "uidmap",
];

/// Files put into the guest: path, mode, content.
const FILES: &[(&str, u32, &str)] = &[
    ("usr/lib/brig-vm/run", 0o755, include_str!("guest/run")),
    ("etc/systemd/system/brig-vm.service", 0o644, include_str!("guest/brig-vm.service")),
    ("etc/systemd/system/brig-vm.target", 0o644, include_str!("guest/brig-vm.target")),
    ("etc/hostname", 0o644, "brig-vm\n"),
    ("etc/fstab", 0o644, ""),
];

/// Unpacks the kernels, as a hook of mmdebstrap.
const KERNELS: &str = include_str!("guest/kernels");

/// The first program of the initial file system.
const INIT: &str = include_str!("guest/init");

/// Modules for the way to the disk, in loading order; one that is missing is part of its kernel or comes as another's
/// dependency.
const MODULES: &[&str] = &["virtio_pci", "crc32c-intel", "crc32c_generic", "ext4", "virtio_blk"];

/// How much room for files the disk has beside what is installed, in MiB. It takes none on the host until it is used.
const ROOM_MIB: u64 = 4096;

/// The Linux kernels that a guest can boot.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kernel {
    /// Debian 12's own, which still has every controller of cgroup v1.
    Stable,
    /// From Debian 12's backports, younger by years.
    Backports,
}

impl Kernel {
    const ALL: [Self; 2] = [Self::Stable, Self::Backports];

    const fn release(self) -> &'static str {
        match self {
            Self::Stable => "bookworm",
            Self::Backports => "bookworm-backports",
        }
    }
}

/// The finished parts of a guest.
#[derive(Debug)]
pub(super) struct Disk(PathBuf);

impl Disk {
    /// Makes the parts in `directory`, unless a former run did by the same recipe.
    pub(super) fn ensure(directory: &Path) -> Result<Self> {
        let disk = Self(directory.join(format!("guest-{}", fingerprint())));
        if disk.0.exists() {
            return Ok(disk);
        }
        step("Making the guest's disk out of Debian packages");
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        remove_former(directory)?;
        let work = tempfile::Builder::new()
            .prefix("unfinished-")
            .tempdir_in(directory)
            .context("make a work directory")?;
        let tree = work.path().join("tree");
        bootstrap(work.path(), &tree)?;
        let parts = work.path().join("parts");
        fs::create_dir(&parts).context("make the directory for the guest's parts")?;
        for kernel in Kernel::ALL {
            take_kernel(kernel, &tree, &parts)?;
        }
        pack(&tree, &parts.join("disk.ext4"))?;
        fs::rename(&parts, &disk.0).with_context(|| format!("rename to {}", disk.0.display()))?;
        Ok(disk)
    }

    /// The root file system, as a raw ext4 image.
    pub(super) fn image(&self) -> PathBuf {
        self.0.join("disk.ext4")
    }

    /// The kernel itself.
    pub(super) fn kernel(&self, kernel: Kernel) -> PathBuf {
        self.0.join(format!("vmlinuz-{}", kernel.release()))
    }

    /// What the kernel unpacks as its first root.
    pub(super) fn initial_files(&self, kernel: Kernel) -> PathBuf {
        self.0.join(format!("initrd-{}", kernel.release()))
    }
}

/// Everything that decides how the guest comes out.
fn fingerprint() -> String {
    let recipe = format!("{PACKAGES:?} {FILES:?} {KERNELS} {INIT} {MODULES:?} {ROOM_MIB}");
    let mut text = hex(&Sha256::digest(recipe));
    text.truncate(16);
    text
}

/// Removes what older recipes and interrupted runs left.
fn remove_former(directory: &Path) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("guest-") || name.starts_with("unfinished-") {
            let path = entry.path();
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn bootstrap(work: &Path, tree: &Path) -> Result<()> {
    let kernels = work.join("kernels");
    fs::write(&kernels, KERNELS).context("write the kernels' hook")?;
    fs::set_permissions(&kernels, fs::Permissions::from_mode(0o755))
        .context("make the kernels' hook executable")?;
    let mut bootstrap = mmdebstrap();
    bootstrap
        .args(["--variant=essential", "--format=directory"])
        .arg(format!("--include={}", PACKAGES.join(",")));
    for unneeded in ["usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "var/cache/apt/*"]
    {
        bootstrap.arg(format!("--customize-hook=rm -rf \"$1\"/{unneeded}"));
    }
    bootstrap.arg(format!("--customize-hook={}", kernels.display()));
    bootstrap.arg("bookworm").arg(tree);
    bootstrap.args(backports()?);
    run(&mut bootstrap)?;
    for (path, mode, content) in FILES {
        let path = tree.join(path);
        let parent = path.parent().unwrap_or(tree);
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode))
            .with_context(|| format!("set the mode of {}", path.display()))?;
    }
    let default = tree.join("etc/systemd/system/default.target");
    std::os::unix::fs::symlink("brig-vm.target", default).context("set the default target")
}

/// Moves a kernel out of the tree and makes its initial file system.
fn take_kernel(kernel: Kernel, tree: &Path, parts: &Path) -> Result<()> {
    let release = kernel.release();
    let boot = tree.join("boot");
    let version = fs::read_to_string(boot.join(format!("version-{release}")))
        .context("read the kernel's version")?;
    let image = format!("vmlinuz-{release}");
    fs::rename(boot.join(&image), parts.join(&image)).context("take the kernel")?;
    let modules = tree.join("lib/modules").join(version.trim());
    let root = tempfile::tempdir_in(parts).context("make the initial file system")?;
    for directory in ["bin", "modules", "proc", "dev", "root"] {
        fs::create_dir(root.path().join(directory)).context("make the initial file system")?;
    }
    fs::copy(tree.join("bin/busybox"), root.path().join("bin/busybox")).context("copy busybox")?;
    let init = root.path().join("init");
    fs::write(&init, INIT).context("write the initial file system's program")?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).context("set its mode")?;
    for (index, module) in load_order(&modules)?.iter().enumerate() {
        let from = modules.join(module);
        let to = root.path().join(format!("modules/{index:02}"));
        if from.extension().is_some_and(|extension| extension == "xz") {
            let file = fs::File::create(&to).with_context(|| format!("create {}", to.display()))?;
            run(command("xz").args(["--decompress", "--stdout"]).arg(&from).stdout(file))?;
        } else {
            fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
        }
    }
    let archive = parts.join(format!("initrd-{release}"));
    let pack = "cd \"$1\" && find . | \"$1/bin/busybox\" cpio -o -H newc >\"$2\" 2>/dev/null";
    run(command("sh").args(["-c", pack, "sh"]).arg(root.path()).arg(&archive))
}

/// The modules of `MODULES` that exist below `modules`, each after those it needs (modules.dep(5)).
fn load_order(modules: &Path) -> Result<Vec<String>> {
    let path = modules.join("modules.dep");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut order: Vec<String> = Vec::new();
    for wanted in MODULES {
        let line = text.lines().filter_map(|line| line.split_once(':')).find(|(file, _)| {
            let name = file.rsplit('/').next().unwrap_or_default();
            name.split(".ko").next() == Some(wanted)
        });
        let Some((file, needs)) = line else { continue };
        // modules.dep lists the needs nearest first, and all of them.
        for file in needs.split_whitespace().rev().chain([file]) {
            if !order.iter().any(|known| known == file) {
                order.push(file.to_owned());
            }
        }
    }
    if order.is_empty() {
        bail!("{} knows none of {MODULES:?}", path.display());
    }
    Ok(order)
}

/// Packs the tree into an ext4 image.
fn pack(tree: &Path, image: &Path) -> Result<()> {
    let used = output(command("du").args(["--summarize", "--block-size=1M"]).arg(tree))?;
    let used: u64 = used.split_whitespace().next().and_then(|size| size.parse().ok()).unwrap_or(0);
    run(command("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-L", "brig-vm", "-d"])
        .arg(tree)
        .arg(image)
        .arg(format!("{}M", used + ROOM_MIB)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_load_after_what_they_need() {
        let directory = tempfile::tempdir().unwrap();
        let text = "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz\n\
                    kernel/fs/jbd2/jbd2.ko.xz:\nkernel/drivers/block/virtio_blk.ko: kernel/lib/crc16.ko.xz\n";
        fs::write(directory.path().join("modules.dep"), text).unwrap();
        assert_eq!(
            load_order(directory.path()).unwrap(),
            [
                "kernel/lib/crc16.ko.xz",
                "kernel/fs/jbd2/jbd2.ko.xz",
                "kernel/fs/ext4/ext4.ko.xz",
                "kernel/drivers/block/virtio_blk.ko"
            ]
        );
    }
}
