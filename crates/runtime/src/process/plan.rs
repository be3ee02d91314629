//! What a child will do, decided and prepared before it exists.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use brig_linux::capability::CapabilitySet;
use brig_linux::process::Strings;
use rustix::thread::LinkNameSpaceType;

use super::agent::AgentPlan;
use super::message::Step;
use crate::cgroup::Entry;
use crate::rootfs::tree::Tree;
use crate::rootfs::{RootfsPlan, RootfsStep};
use crate::security::seccomp::Program;

/// The init of a container.
#[derive(Debug)]
pub(crate) struct InitPlan {
    /// Flags of clone3 for the namespaces that are new.
    pub(crate) clone_flags: u64,
    /// Namespaces to enter, by descriptor.
    pub(crate) joins: Vec<NamespaceJoin>,
    /// Whether an intermediate must enter them before init exists.
    pub(crate) intermediate: bool,
    /// Whether init is in another user namespace than the caller and becomes its root.
    pub(crate) become_root: bool,
    /// The cgroups that init enters by itself, where it is not born there.
    pub(crate) cgroups: Option<Entry>,
    /// A new cgroup namespace, made once init is in its cgroup.
    pub(crate) new_cgroup: bool,
    /// A new time namespace and its `timens_offsets`.
    pub(crate) new_time: Option<Vec<u8>>,
    /// Set `lo` up: the network namespace is new.
    pub(crate) loopback: bool,
    pub(crate) hostname: Option<CString>,
    pub(crate) domainname: Option<CString>,
    pub(crate) rootfs: Option<RootfsPlan>,
    /// Report [`Message::Mounted`](super::message::Message::Mounted) and wait for hooks in the caller's namespaces.
    pub(crate) pause_when_mounted: bool,
    pub(crate) create_container: Vec<ChildHook>,
    pub(crate) start_container: Vec<ChildHook>,
    /// The OCI state, on the standard input of the hooks above.
    pub(crate) hook_state: Option<OwnedFd>,
    pub(crate) process: ProcessPlan,
    /// Where the start comes from.
    pub(crate) start: UnixListener,
}

/// A namespace to enter.
#[derive(Debug)]
pub(crate) struct NamespaceJoin {
    pub(crate) kind: LinkNameSpaceType,
    pub(crate) fd: OwnedFd,
    /// For messages.
    pub(crate) path: std::path::PathBuf,
}

/// A hook that runs inside the container.
#[derive(Debug)]
pub(crate) struct ChildHook {
    pub(crate) path: CString,
    pub(crate) arguments: Strings,
    pub(crate) environment: Strings,
    pub(crate) timeout_seconds: Option<i64>,
}

/// What init and an exec have in common: from credentials to the program.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    pub(crate) arguments: Strings,
    pub(crate) environment: Strings,
    /// Paths to try for the program, in order.
    pub(crate) candidates: Vec<CString>,
    pub(crate) cwd: CString,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<rustix::fs::Gid>,
    /// The kernel does not let an unprivileged user namespace change groups.
    pub(crate) keep_groups: bool,
    pub(crate) umask: u32,
    pub(crate) capabilities: Capabilities,
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: Option<Program>,
    /// Who answers the notifications of the filter.
    pub(crate) agent: Option<AgentPlan>,
    pub(crate) label: Option<Label>,
    /// The name of the new session keyring.
    pub(crate) keyring: Option<CString>,
    pub(crate) personality: Option<libc::c_ulong>,
    pub(crate) scheduler: Option<crate::security::scheduling::SchedulerAttributes>,
    pub(crate) io_priority: Option<libc::c_int>,
    pub(crate) memory_policy: Option<crate::security::placement::MemoryPolicy>,
    pub(crate) terminal: Option<TerminalPlan>,
    pub(crate) stdio: [Option<OwnedFd>; 3],
    pub(crate) preserve_fds: u32,
}

/// The five capability sets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capabilities {
    pub(crate) bounding: CapabilitySet,
    pub(crate) effective: CapabilitySet,
    pub(crate) inheritable: CapabilitySet,
    pub(crate) permitted: CapabilitySet,
    pub(crate) ambient: CapabilitySet,
}

/// A security label for the program, and the file below `/proc/thread-self/attr` that takes it.
#[derive(Debug)]
pub(crate) struct Label {
    pub(crate) files: Vec<CString>,
    pub(crate) value: CString,
}

/// A terminal of the container's own devpts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TerminalPlan {
    /// Rows and columns.
    pub(crate) size: Option<(u16, u16)>,
}

impl InitPlan {
    /// Every descriptor that init works with.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let mut fds = self.process.descriptors();
        fds.push(self.start.as_raw_fd());
        fds.extend(self.cgroups.iter().flat_map(Entry::descriptors));
        fds.extend(self.joins.iter().map(|join| join.fd.as_raw_fd()));
        fds.extend(self.hook_state.iter().map(AsRawFd::as_raw_fd));
        if let Some(rootfs) = &self.rootfs {
            let trees = rootfs.steps.iter().filter_map(RootfsStep::tree);
            fds.extend(trees.chain([&rootfs.tree]).filter_map(Tree::descriptor));
        }
        fds
    }
}

impl ProcessPlan {
    /// Every descriptor that the process works with.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let stdio = self.stdio.iter().flatten().map(AsRawFd::as_raw_fd);
        stdio.chain(self.agent.iter().flat_map(AgentPlan::descriptors)).collect()
    }
}

impl super::parent::Names for InitPlan {
    fn name(&self, step: Step, index: usize) -> String {
        let text = |string: Option<&CString>| {
            string.map(|string| string.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let hook = |hook: Option<&ChildHook>| text(hook.map(|hook| &hook.path));
        let rootfs = self.rootfs.as_ref();
        let source = |tree: &Tree| tree.source().to_string_lossy().into_owned();
        match step {
            Step::EnterNamespace => match self.joins.get(index) {
                Some(join) => format!("join namespace {}", join.path.display()),
                None => "join a namespace".to_owned(),
            },
            Step::JoinCgroup => {
                self.cgroups.as_ref().map_or_else(String::new, |entry| entry.name(index))
            }
            Step::Mount => rootfs
                .and_then(|rootfs| rootfs.steps.get(index))
                .map_or_else(|| "mount".to_owned(), |step| step.label.clone()),
            Step::Source => {
                let tree = rootfs.and_then(|rootfs| rootfs.steps.get(index)?.tree());
                format!("bind {}", tree.map_or_else(String::new, source))
            }
            Step::Device => {
                let device = rootfs.and_then(|rootfs| rootfs.devices.get(index));
                format!("make device {}", text(device.map(|device| &device.host)))
            }
            Step::Mask => {
                format!("mask /{}", text(rootfs.and_then(|rootfs| rootfs.masked.get(index))))
            }
            Step::ReadOnlyPath => {
                let path = rootfs.and_then(|rootfs| rootfs.read_only.get(index));
                format!("make /{} read-only", text(path))
            }
            Step::Sysctl => {
                let sysctl = rootfs.and_then(|rootfs| rootfs.sysctls.get(index));
                format!("set /proc/{}", text(sysctl.map(|sysctl| &sysctl.path)))
            }
            Step::AttachRoot => {
                let path = text(rootfs.map(|rootfs| &rootfs.path));
                format!("attach the root filesystem at {path:?}")
            }
            Step::Hook => {
                let found = self.create_container.get(index);
                format!("run createContainer hook {:?}", hook(found))
            }
            step => self.process.name(step, index),
        }
    }
}

impl super::parent::Names for ProcessPlan {
    fn name(&self, step: Step, _index: usize) -> String {
        let first = || {
            let program = self.arguments.as_slice().first();
            program.map(|program| program.to_string_lossy().into_owned()).unwrap_or_default()
        };
        match step {
            Step::FindProgram | Step::Exec => first(),
            Step::WorkingDirectory => format!("enter working directory {:?}", self.cwd),
            Step::User => format!("become user {}", self.uid),
            Step::Groups => format!("set group {} and additional groups", self.gid),
            step => phrase(step).to_owned(),
        }
    }
}

/// Steps without an object of their own.
fn phrase(step: Step) -> &'static str {
    match step {
        Step::Protect => "protect the new process",
        Step::Wait => "wait for the caller",
        Step::EnterNamespace => "enter the container's namespaces",
        Step::Clone => "make the container's process",
        Step::MapRoot => "become root of the user namespace",
        Step::NewNamespace => "make a namespace",
        Step::TimeOffsets => "set the time offsets",
        Step::Stdio => "put the standard descriptors in place",
        Step::Loopback => "set the loopback interface up",
        Step::Hostname => "set the host name",
        Step::Domainname => "set the domain name",
        Step::RootPropagation => "set the propagation of the root mount",
        Step::DeviceLink => "make the links in /dev",
        Step::Terminal => "open a terminal in the container",
        Step::ConsoleDevice => "bind the terminal over /dev/console",
        Step::MaskSource => "prepare the masks of paths",
        Step::PrivateProc => "mount a private proc",
        Step::PivotRoot => "make the root filesystem the root",
        Step::RootReadOnly => "make the root filesystem read-only",
        Step::Keyring => "join a new session keyring",
        Step::Label => "set the security label",
        Step::Personality => "set the personality",
        Step::Scheduler => "set the scheduler",
        Step::IoPriority => "set the I/O priority",
        Step::NoNewPrivileges => "set no_new_privs",
        Step::Bounding => "drop capabilities from the bounding set",
        Step::Capabilities => "set the capabilities",
        Step::Ambient => "set the ambient capabilities",
        Step::Seccomp => "install the seccomp filter",
        Step::Start => "wait for the start",
        Step::Chroot => "enter the container's root",
        Step::MemoryPolicy => "set the memory policy",
        Step::OomScore => "set oom_score_adj",
        Step::Affinity => "bind the process to its processors",
        _ => "set the container up",
    }
}
