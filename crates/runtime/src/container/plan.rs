//! From a configuration to the plan of its init: everything that can be decided before init exists.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use brig_linux::process::flags;
use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};
use rustix::thread::LinkNameSpaceType;

use super::CreateOptions;
use super::create::process_of;
use crate::bundle::{ProcessContext, prepare_process, propagation, sysctls};
use crate::cgroup::{Cgroup, Placement};
use crate::error::{Error, ErrorKind, Result};
use crate::hooks;
use crate::process::id_maps::{IdMaps, groups_are_denied};
use crate::process::plan::{InitPlan, NamespaceJoin};
use crate::rootfs::{RootfsPlan, devices, mounts};
use crate::security::{lsm, placement, scheduling};
use crate::state::{Directory, State};

/// All that is known before init is planned.
pub(super) struct Planning<'a> {
    pub(super) directory: &'a Directory,
    pub(super) spec: &'a Spec,
    pub(super) linux: &'a Linux,
    pub(super) state: &'a State,
    /// Where the container's processes are in every hierarchy.
    pub(super) seen: &'a Placement,
    /// The cgroup, where it is made before init.
    pub(super) cgroup: Option<&'a Cgroup>,
    pub(super) id_maps: IdMaps<'a>,
    pub(super) rootless: bool,
}

impl Planning<'_> {
    pub(super) fn init_plan(&self, options: CreateOptions) -> Result<InitPlan> {
        let Self { spec, linux, state, .. } = *self;
        let namespaces = namespaces(linux)?;
        let own_users = namespaces.clone_flags & flags::NEW_USER != 0;
        let rootfs = self.rootfs_plan(&options, &namespaces)?;
        let keyring = (!options.no_new_keyring).then(|| format!("_ses.{}", state.id));
        let personality = linux.personality().as_ref().map(scheduling::personality).transpose()?;
        let context = ProcessContext {
            seccomp: linux.seccomp().as_ref(),
            stdio: options.stdio,
            preserve_fds: options.preserve_fds.saturating_add(options.listen_fds),
            listen_fds: options.listen_fds,
            keep_groups: (own_users && self.id_maps.denies_groups())
                || (self.rootless && groups_are_denied("self")),
            keyring,
            personality,
            memory_policy: linux
                .memory_policy()
                .as_ref()
                .map(placement::memory_policy)
                .transpose()?,
        };
        let process = prepare_process(process_of(spec)?, context)?;
        let configured = spec.hooks().clone().unwrap_or_default();
        let hooks_of = |hooks: &Option<Vec<oci_spec::runtime::Hook>>, name| {
            hooks::prepare(hooks.as_deref().unwrap_or_default(), name)
        };
        let create_container = hooks_of(configured.create_container(), "createContainer")?;
        let start_container = hooks_of(configured.start_container(), "startContainer")?;
        let inside = !create_container.is_empty() || !start_container.is_empty();
        let hook_state = inside.then(|| {
            rustix::fs::memfd_create(c"oci-state", rustix::fs::MemfdFlags::CLOEXEC)
                .map_err(|errno| Error::system("make a file for the state of hooks", errno))
        });
        let outside = configured.prestart().is_some() || configured.create_runtime().is_some();
        let name = |name: &Option<String>| {
            name.as_deref()
                .map(CString::new)
                .transpose()
                .map_err(|_| Error::new(ErrorKind::InvalidInput, "a host name has a zero byte"))
        };
        Ok(InitPlan {
            clone_flags: namespaces.clone_flags,
            intermediate: namespaces.intermediate,
            become_root: namespaces.joins_user || own_users,
            joins: namespaces.joins,
            cgroups: self.cgroup.map(Cgroup::prepare_entry).transpose()?,
            new_cgroup: namespaces.new_cgroup,
            new_time: namespaces.new_time.then(|| time_offsets(linux)),
            loopback: namespaces.clone_flags & flags::NEW_NETWORK != 0,
            hostname: name(spec.hostname())?,
            domainname: name(spec.domainname())?,
            rootfs: Some(rootfs),
            pause_when_mounted: outside,
            create_container,
            start_container,
            hook_state: hook_state.transpose()?,
            process,
            start: brig_linux::fd::listen_unix(&self.directory.start_socket())?,
        })
    }

    pub(super) fn rootfs_plan(
        &self,
        options: &CreateOptions,
        namespaces: &Namespaces,
    ) -> Result<RootfsPlan> {
        let Self { spec, linux, state, .. } = *self;
        let openable = !self.id_maps.unprivileged;
        let configured = linux.rootfs_propagation().as_deref().map(propagation).transpose()?;
        let inherited = configured.map_or(brig_linux::mount::propagation::SLAVE, |(kind, _)| kind);
        let context = mounts::MountContext {
            bundle: &state.bundle,
            propagation: inherited,
            label: lsm::mount_label(linux.mount_label().as_deref())?,
            placement: Some(self.seen),
            new_cgroup: namespaces.new_cgroup,
            openable,
            id_maps: linux.uid_mappings().as_deref().zip(linux.gid_mappings().as_deref()),
        };
        let configured_mounts = spec.mounts().as_deref().unwrap_or_default();
        let dev_is_bound = configured_mounts.iter().any(|mount| {
            let bound = mount.typ().as_deref() == Some("bind")
                || mount
                    .options()
                    .iter()
                    .flatten()
                    .any(|option| option == "bind" || option == "rbind");
            mount.destination().as_os_str() == "/dev" && bound
        });
        let devices = match dev_is_bound {
            true => Vec::new(),
            false => devices::prepare(linux.devices().as_deref().unwrap_or_default())?,
        };
        let paths = |paths: &Option<Vec<String>>| -> Result<Vec<CString>> {
            paths.iter().flatten().map(|path| mounts::target(Path::new(path))).collect()
        };
        let path = CString::new(state.rootfs.as_os_str().as_bytes())
            .map_err(|_| Error::new(ErrorKind::InvalidInput, "root.path has a zero byte"))?;
        let (tree, mut steps) = mounts::root_tree(&state.rootfs, &options.rootfs_mounts, openable)?;
        steps.extend(mounts::prepare(&context, configured_mounts)?);
        Ok(RootfsPlan {
            tree,
            path,
            steps,
            links: if dev_is_bound { Vec::new() } else { devices::links() },
            devices,
            masked: paths(linux.masked_paths())?,
            read_only: paths(linux.readonly_paths())?,
            sysctls: sysctls(linux)?,
            propagation: configured,
            read_only_root: spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false),
            no_pivot: options.no_pivot,
        })
    }
}

/// The namespaces of a configuration, by how they come about.
#[derive(Default)]
pub(super) struct Namespaces {
    pub(super) clone_flags: u64,
    pub(super) joins: Vec<NamespaceJoin>,
    pub(super) new_cgroup: bool,
    new_time: bool,
    joins_user: bool,
    intermediate: bool,
}

pub(super) fn namespaces(linux: &Linux) -> Result<Namespaces> {
    let mut found = Namespaces::default();
    for namespace in linux.namespaces().iter().flatten() {
        let (kind, flag) = match namespace.typ() {
            LinuxNamespaceType::User => (LinkNameSpaceType::User, flags::NEW_USER),
            LinuxNamespaceType::Pid => (LinkNameSpaceType::ProcessID, flags::NEW_PID),
            LinuxNamespaceType::Network => (LinkNameSpaceType::Network, flags::NEW_NETWORK),
            LinuxNamespaceType::Mount => (LinkNameSpaceType::Mount, flags::NEW_MOUNT),
            LinuxNamespaceType::Ipc => {
                (LinkNameSpaceType::InterProcessCommunication, flags::NEW_IPC)
            }
            LinuxNamespaceType::Uts => {
                (LinkNameSpaceType::HostNameAndNISDomainName, flags::NEW_UTS)
            }
            LinuxNamespaceType::Cgroup => (LinkNameSpaceType::ControlGroup, 0),
            LinuxNamespaceType::Time => (LinkNameSpaceType::Time, 0),
        };
        let Some(path) = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty())
        else {
            found.clone_flags |= flag;
            found.new_cgroup |= kind == LinkNameSpaceType::ControlGroup;
            found.new_time |= kind == LinkNameSpaceType::Time;
            continue;
        };
        let fd = std::fs::File::open(path).map_err(|source| {
            Error::system(format!("open namespace {}", path.display()), source)
        })?;
        found.joins_user |= kind == LinkNameSpaceType::User;
        found.intermediate |=
            matches!(kind, LinkNameSpaceType::User | LinkNameSpaceType::ProcessID);
        found.joins.push(NamespaceJoin { kind, fd: fd.into(), path: path.clone() });
    }
    // A process born in a new user namespace has no right to enter namespaces of the old one.
    if found.clone_flags & flags::NEW_USER != 0 && !found.joins.is_empty() {
        found.intermediate = true;
    }
    Ok(found)
}

/// The lines of `/proc/PID/timens_offsets` (time_namespaces(7)).
fn time_offsets(linux: &Linux) -> Vec<u8> {
    let mut text = String::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        use std::fmt::Write as _;
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        // Writing to a string does not fail.
        let _ = writeln!(text, "{clock} {seconds} {nanoseconds}");
    }
    text.into_bytes()
}
