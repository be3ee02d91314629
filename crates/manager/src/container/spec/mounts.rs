//! The mounts of a container: Docker's own, our files over the image's, then what was asked for.

use std::path::Path;

use oci_spec::runtime::{Mount, MountBuilder};

use super::{INIT_DESTINATION, Input, Namespace, failed};
use crate::error::{Error, Result};
use crate::metadata::{ContainerRecord, MountKind, MountRecord};

/// All mounts, in the order in which they are made.
pub(super) fn mounts(input: &Input<'_>) -> Result<Vec<Mount>> {
    let host = &input.record.host_config;
    let privileged = host.privileged.unwrap_or(false);
    let mut mounts = defaults(input, privileged)?;
    for (destination, source) in input.files {
        let source = source.display().to_string();
        mounts.push(mount(destination, "bind", &source, &["rbind", "rprivate"])?);
    }
    if host.init == Some(true) {
        let init = input.config.init.as_ref().ok_or_else(|| {
            Error::unsupported(
                "--init needs an init program: install tini or catatonit, or set `init` in brigd's configuration",
            )
        })?;
        mounts.push(mount(INIT_DESTINATION, "bind", &init.display().to_string(), &["bind", "ro"])?);
    }
    let mut requested: Vec<&MountRecord> = input.record.mounts.iter().collect();
    // Parents before what is mounted inside them.
    requested.sort_by_key(|record| depth(&record.destination));
    for record in requested {
        // A mount of the user replaces ours at the same place.
        mounts.retain(|mount| mount.destination() != Path::new(&record.destination));
        mounts.push(requested_mount(record)?);
    }
    Ok(mounts)
}

fn defaults(input: &Input<'_>, privileged: bool) -> Result<Vec<Mount>> {
    let host = &input.record.host_config;
    let shm_size = host.shm_size.filter(|size| *size > 0);
    let shm_size = match shm_size {
        Some(size) => u64::try_from(size).unwrap_or(input.config.shm_size_bytes),
        None => input.config.shm_size_bytes,
    };
    let access = if privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access])?,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", access])?,
    ];
    if input.ipc == Namespace::Host {
        mounts.push(mount(
            "/dev/mqueue",
            "bind",
            "/dev/mqueue",
            &["rbind", "nosuid", "noexec", "nodev"],
        )?);
    } else {
        mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?);
    }
    match (&input.ipc, host.ipc_mode.as_deref()) {
        (_, Some("none")) => {}
        (Namespace::Host, _) => {
            mounts.push(mount("/dev/shm", "bind", "/dev/shm", &["rbind", "rprivate"])?);
        }
        _ => {
            let size = format!("size={shm_size}");
            mounts.push(mount(
                "/dev/shm",
                "tmpfs",
                "shm",
                &["nosuid", "noexec", "nodev", "mode=1777", &size],
            )?);
        }
    }
    Ok(mounts)
}

fn requested_mount(record: &MountRecord) -> Result<Mount> {
    match record.kind {
        MountKind::Tmpfs => {
            let mut options: Vec<&str> = vec!["noexec", "nosuid", "nodev"];
            for option in record.tmpfs_options.iter().map(String::as_str) {
                let opposite =
                    option.strip_prefix("no").map_or_else(|| format!("no{option}"), str::to_owned);
                options.retain(|earlier| *earlier != opposite && *earlier != option);
                options.push(option);
            }
            mount(&record.destination, "tmpfs", "tmpfs", &options)
        }
        MountKind::Bind | MountKind::Volume => {
            let propagation =
                if record.propagation.is_empty() { "rprivate" } else { &record.propagation };
            let bind = if record.non_recursive { "bind" } else { "rbind" };
            let access = if record.read_write { "rw" } else { "ro" };
            mount(&record.destination, "bind", &record.source, &[bind, access, propagation])
        }
    }
}

/// A bind that shares mounts with the host needs a root that lets them through.
pub(super) fn rootfs_propagation(record: &ContainerRecord) -> Option<String> {
    let has = |words: [&str; 2]| {
        record.mounts.iter().any(|mount| words.contains(&mount.propagation.as_str()))
    };
    if has(["shared", "rshared"]) {
        Some("shared".into())
    } else if has(["slave", "rslave"]) {
        Some("rslave".into())
    } else {
        None
    }
}

fn depth(path: &str) -> usize {
    path.split('/').filter(|part| !part.is_empty()).count()
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount> {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
        .build()
        .map_err(failed)
}
