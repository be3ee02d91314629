//! A further process in a container. Nothing in [`run`] allocates.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space};

use super::channel::ChildSide;
use super::init::become_root;
use super::message::{At, Failure, Message, Step};
use super::parent::Names;
use super::plan::ProcessPlan;
use super::setup;
use crate::cgroup::Entry;
use crate::rootfs::apply::private_proc;
use crate::security::placement::{Affinity, set_affinity};

/// What the process does.
#[derive(Debug)]
pub(crate) struct ExecPlan {
    /// The container's init.
    pub(crate) init: OwnedFd,
    /// The namespaces of init to enter, but for that of cgroups.
    pub(crate) namespaces: ThreadNameSpaceType,
    /// The container's cgroup namespace, entered last of all: the kernel makes no process in a cgroup for one whose own
    /// cgroup lies outside of its namespace, where the hierarchy is mounted with `nsdelegate`, as systemd does.
    pub(crate) cgroup_namespace: Option<OwnedFd>,
    /// The cgroups that the process enters by itself, as it is not born there.
    pub(crate) cgroups: Entry,
    /// Whether the user namespace is among them.
    pub(crate) become_root: bool,
    /// The container's root directory, where it was entered by chroot.
    pub(crate) root: Option<OwnedFd>,
    pub(crate) affinity: Affinity,
    pub(crate) oom_score_adjustment: Option<OomScoreAdjustment>,
    pub(crate) process: ProcessPlan,
}

impl ExecPlan {
    /// Every descriptor that the process works with.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let mut fds = self.process.descriptors();
        fds.push(self.init.as_raw_fd());
        fds.extend(self.cgroups.descriptors());
        fds.extend(self.cgroup_namespace.iter().chain(&self.root).map(AsRawFd::as_raw_fd));
        fds
    }

    /// What is inherited by whom the intermediate makes, and what only a process outside of the container may set.
    pub(crate) fn adjust(&self) -> Result<(), Failure> {
        if let Some(adjustment) = &self.oom_score_adjustment {
            adjustment.apply().at(Step::OomScore)?;
        }
        Ok(())
    }

    /// Enters the container's namespaces: for the intermediate.
    pub(crate) fn enter(&self) -> Result<(), Failure> {
        if let Some(processors) = &self.affinity.initial {
            set_affinity(processors).at(Step::Affinity)?;
        }
        if self.namespaces.is_empty() {
            return Ok(());
        }
        rustix::thread::move_into_thread_name_spaces(self.init.as_fd(), self.namespaces)
            .at(Step::EnterNamespace)
    }
}

impl Names for ExecPlan {
    fn name(&self, step: Step, index: usize) -> String {
        match step {
            Step::JoinCgroup => self.cgroups.name(index),
            step => self.process.name(step, index),
        }
    }
}

/// A process's `oom_score_adj`, as text.
#[derive(Debug)]
pub(crate) struct OomScoreAdjustment {
    value: i32,
    text: String,
}

impl OomScoreAdjustment {
    pub(crate) fn new(value: i32) -> Self {
        Self { value, text: value.to_string() }
    }

    /// Whether a container is made all the same when the kernel denies this value. One below what the caller has needs
    /// CAP_SYS_RESOURCE; the nearest that is allowed is then the caller's own. Engines ask for lower values, and for the
    /// neutral one, by default.
    pub(crate) fn is_wish(value: i32) -> bool {
        value <= 0
    }

    fn apply(&self) -> rustix::io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let written = rustix::fs::openat(CWD, c"/proc/self/oom_score_adj", flags, Mode::empty())
            .and_then(|file| rustix::io::write(&file, self.text.as_bytes()));
        match written {
            Err(Errno::ACCESS | Errno::PERM) if Self::is_wish(self.value) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// Runs the process; answers its exit code when it does not get to the program.
pub(crate) fn run(plan: &ExecPlan, channel: &ChildSide) -> i32 {
    let failure = match set_up(plan, channel) {
        Ok(program) => setup::execute(&plan.process, program),
        Err(failure) => failure,
    };
    channel.send(&Message::Failed(failure), &[]);
    1
}

fn set_up(plan: &ExecPlan, channel: &ChildSide) -> Result<usize, Failure> {
    setup::protect()?;
    channel.wait()?;
    plan.cgroups.enter()?;
    if let Some(namespace) = &plan.cgroup_namespace {
        let kind = Some(LinkNameSpaceType::ControlGroup);
        move_into_link_name_space(namespace.as_fd(), kind).at(Step::EnterNamespace)?;
    }
    if let Some(processors) = &plan.affinity.last {
        set_affinity(processors).at(Step::Affinity)?;
    }
    if plan.become_root {
        become_root().at(Step::MapRoot)?;
    }
    if let Some(root) = &plan.root {
        rustix::process::fchdir(root).at(Step::Chroot)?;
        rustix::process::chroot(c".").at(Step::Chroot)?;
    }
    rustix::process::chdir(c"/").at(Step::Chroot)?;
    setup::stdio(&plan.process)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, c"/", flags, Mode::empty()).at(Step::Terminal)?;
    let console = setup::terminal(&plan.process, root.as_fd(), false)?;
    let proc = match &plan.process.label {
        Some(_) => Some(private_proc()?),
        None => None,
    };
    let program = setup::become_user(&plan.process, proc.as_ref().map(AsFd::as_fd))?;
    match &console {
        Some(master) => channel.send(&Message::Ready, &[master.as_fd()]),
        None => channel.send(&Message::Ready, &[]),
    }
    Ok(program)
}
