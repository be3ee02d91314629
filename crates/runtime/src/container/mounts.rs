//! Mounts that come and go while a container exists.

use oci_spec::runtime::{LinuxNamespaceType, Mount};
use rustix::thread::ThreadNameSpaceType;

use super::create::linux;
use super::{Container, Status};
use crate::bundle::propagation;
use crate::error::{Error, ErrorKind, Result};
use crate::process::adjust::{AdjustPlan, Change};
use crate::process::parent;
use crate::rootfs::{Action, RootfsStep, mounts};
use crate::security::lsm;

impl Container {
    pub(super) fn adjust(&self, wanted: &[Mount], change: Change) -> Result<()> {
        let _lock = self.directory.lock()?;
        let state = self.existing()?;
        match self.status_of(&state)? {
            Status::Created | Status::Running | Status::Paused => {}
            status => return Err(self.conflict("change the mounts of", status)),
        }
        let config = self.directory.config()?;
        let linux = linux(&config.spec)?;
        for mount in wanted {
            check(mount, change, !rustix::process::geteuid().is_root())?;
        }
        let steps = match change {
            Change::Remove => wanted.iter().map(removal).collect::<Result<_>>()?,
            Change::Add => {
                let configured =
                    linux.rootfs_propagation().as_deref().map(propagation).transpose()?;
                let slave = brig_linux::mount::propagation::SLAVE;
                let context = mounts::MountContext {
                    bundle: &state.bundle,
                    propagation: configured.map_or(slave, |(kind, _)| kind),
                    label: lsm::mount_label(linux.mount_label().as_deref())?,
                    placement: None,
                    new_cgroup: false,
                    openable: true,
                    id_maps: linux.uid_mappings().as_deref().zip(linux.gid_mappings().as_deref()),
                };
                mounts::prepare(&context, wanted)?
            }
        };
        let own_users = linux.namespaces().iter().flatten();
        let own_users = own_users.into_iter().any(|own| own.typ() == LinuxNamespaceType::User);
        let mut namespaces = ThreadNameSpaceType::MOUNT;
        namespaces.set(ThreadNameSpaceType::USER, own_users);
        let root = state.no_pivot.then(|| {
            std::fs::File::open(format!("/proc/{}/root", state.pid))
                .map_err(|source| Error::system("open the container's root", source))
        });
        let root = root.transpose()?.map(Into::into);
        let init = self.init(&state).ok_or_else(|| super::gone(&state.id))?;
        parent::adjust_mounts(&AdjustPlan { init, namespaces, root, change, steps })
    }
}

/// Filesystems of a namespace are made by a process in it, which only init was at its birth.
fn check(mount: &Mount, change: Change, unprivileged: bool) -> Result<()> {
    let destination = mount.destination();
    if destination.file_name().is_none() || mounts::has_parent(destination) {
        let text = format!("mount destination {:?} is no place of its own", destination.display());
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    let kind = mount.typ().as_deref().unwrap_or("none");
    let bind = |option: &String| matches!(option.as_str(), "bind" | "rbind");
    let bound = kind == "bind" || mount.options().iter().flatten().any(bind);
    if change == Change::Add && bound && unprivileged {
        let text = format!("mount {:?} into a container that exists", destination.display());
        return Err(Error::new(ErrorKind::Unsupported, text).with_advice(
            "a caller who is not root can only add tmpfs: no namespace of its own has the host's mounts",
        ));
    }
    if change == Change::Remove || bound || kind == "tmpfs" {
        return Ok(());
    }
    let text = format!("mount {kind:?} into a container that exists");
    Err(Error::new(ErrorKind::Unsupported, text).with_advice("only bind and tmpfs can be added"))
}

fn removal(mount: &Mount) -> Result<RootfsStep> {
    Ok(RootfsStep {
        action: Action::Change { attributes: Default::default(), recursive: false },
        target: mounts::target(mount.destination())?,
        target_nofollow: true,
        label: format!("unmount {:?}", mount.destination().display().to_string()),
    })
}
