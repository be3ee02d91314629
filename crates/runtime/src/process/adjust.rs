//! Mounting into and unmounting from a container that exists. Nothing in [`run`] allocates.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::UnmountFlags;
use rustix::thread::ThreadNameSpaceType;

use super::channel::ChildSide;
use super::init::become_root;
use super::message::{At, Failure, Message, Step};
use super::parent::Names;
use super::setup;
use crate::rootfs::tree::Tree;
use crate::rootfs::{RootfsStep, apply};

/// What a child does in the container's mount namespace.
#[derive(Debug)]
pub(crate) struct AdjustPlan {
    /// The container's init.
    pub(crate) init: OwnedFd,
    /// The mount namespace of init, and the user namespace where that is the container's own.
    pub(crate) namespaces: ThreadNameSpaceType,
    /// The container's root directory, where it was entered by chroot.
    pub(crate) root: Option<OwnedFd>,
    pub(crate) change: Change,
    pub(crate) steps: Vec<RootfsStep>,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Add,
    Remove,
}

impl AdjustPlan {
    /// Every descriptor that the process works with.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let trees = self.steps.iter().filter_map(RootfsStep::tree).filter_map(Tree::descriptor);
        let root = self.root.iter().map(AsRawFd::as_raw_fd);
        trees.chain(root).chain([self.init.as_raw_fd()]).collect()
    }
}

impl Names for AdjustPlan {
    fn name(&self, step: Step, index: usize) -> String {
        match (step, self.steps.get(index)) {
            (Step::Mount, Some(step)) => step.label.clone(),
            _ => "enter the container".to_owned(),
        }
    }
}

/// Runs the child; answers its exit code.
pub(crate) fn run(plan: &AdjustPlan, channel: &ChildSide) -> i32 {
    match adjust(plan) {
        Ok(()) => {
            channel.send(&Message::Ready, &[]);
            0
        }
        Err(failure) => {
            channel.send(&Message::Failed(failure), &[]);
            1
        }
    }
}

fn adjust(plan: &AdjustPlan) -> Result<(), Failure> {
    setup::protect()?;
    rustix::thread::move_into_thread_name_spaces(plan.init.as_fd(), plan.namespaces)
        .at(Step::EnterNamespace)?;
    if plan.namespaces.contains(ThreadNameSpaceType::USER) {
        become_root().at(Step::MapRoot)?;
    }
    if let Some(root) = &plan.root {
        rustix::process::fchdir(root).at(Step::Chroot)?;
        rustix::process::chroot(c".").at(Step::Chroot)?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, c"/", flags, Mode::empty()).at(Step::Chroot)?;
    for (index, step) in plan.steps.iter().enumerate() {
        let done = match plan.change {
            Change::Add => apply::mount_step(root.as_fd(), index, step).map(drop),
            Change::Remove => detach(root.as_fd(), step).at_index(Step::Mount, index),
        };
        if let (Err(failure), Change::Add) = (&done, plan.change) {
            // All of them or none.
            for step in plan.steps[..index].iter().rev() {
                let _ = detach(root.as_fd(), step);
            }
            return Err(*failure);
        }
        done?;
    }
    Ok(())
}

/// Unmounts by the name in a directory that is found beneath the root: what the container puts in the directory's place
/// meanwhile is not followed.
fn detach(root: BorrowedFd<'_>, step: &RootfsStep) -> rustix::io::Result<()> {
    let (directory, name) = apply::split(&step.target);
    let directory = apply::directory_of(root, directory)?;
    rustix::process::fchdir(directory)?;
    rustix::mount::unmount(name, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}
