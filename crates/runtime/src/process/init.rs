//! A container's init, from its birth to the exec of the user's program. Nothing here allocates.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use brig_linux::process::flags::CLEAR_SIGHAND;
use brig_linux::process::{CloneOptions, clone3, unshare};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::channel::{ChildSide, send};
use super::message::{At, Failure, Message, Step};
use super::plan::{ChildHook, InitPlan, NamespaceJoin};
use super::setup;
use crate::cgroup::Entry;
use crate::protection::{Protection, on};
use crate::rootfs::{apply, target};

type Done<T = ()> = Result<T, Failure>;

/// Runs init; answers its exit code when it does not get to the user's program.
pub(crate) fn run(plan: &InitPlan, channel: &ChildSide) -> i32 {
    match set_up(plan, channel) {
        Ok(program) => start(plan, program),
        Err(failure) => {
            channel.send(&Message::Failed(failure), &[]);
            1
        }
    }
}

fn set_up(plan: &InitPlan, channel: &ChildSide) -> Done<usize> {
    // Opened before the process becomes non-dumpable, from when on its files in /proc belong to the host's root.
    let offsets = match &plan.new_time {
        None => None,
        Some(_) => Some(
            rustix::fs::openat(
                CWD,
                c"/proc/self/timens_offsets",
                OFlags::WRONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .at(Step::TimeOffsets)?,
        ),
    };
    let mut release = Release { channel, plan, heard: false, placed: false };
    if plan.become_root {
        // Until it has its id maps and more from the caller, whose user needs the right to its files in /proc for that,
        // this process has joined nothing that it must be protected from.
        release.hear()?;
    }
    setup::protect()?;
    if !plan.intermediate {
        enter_all(&plan.joins)?;
    }
    if let Some(rootfs) = &plan.rootfs {
        apply::attach_root(rootfs)?;
    }
    if plan.become_root {
        become_root().at(Step::MapRoot)?;
    }
    if let (Some(text), Some(file)) = (&plan.new_time, offsets) {
        enter_time(text, &file)?;
    }
    setup::stdio(&plan.process)?;
    name_and_network(plan)?;
    let (console, proc) = root_filesystem(plan, &mut release)?;
    let program = setup::become_user(&plan.process, proc.as_ref().map(AsFd::as_fd))?;
    drop(proc);
    match &console {
        Some(master) => channel.send(&Message::Ready, &[master.as_fd()]),
        None => channel.send(&Message::Ready, &[]),
    }
    Ok(program)
}

/// The caller's word that the limits of this process's cgroups are set and that it has all that only the caller could give
/// it.
///
/// Meanwhile init does what does not depend on them: it waits only before the first step that does, and at the latest when
/// all is mounted. Nothing of the image runs before, and nothing of it is read into memory, which would count as the
/// caller's.
struct Release<'a> {
    channel: &'a ChildSide,
    plan: &'a InitPlan,
    heard: bool,
    placed: bool,
}

impl Release<'_> {
    /// Waits for it and enters the cgroups, once: while this process is still the caller's user, whose cgroups they are.
    fn hear(&mut self) -> Done {
        if std::mem::replace(&mut self.heard, true) {
            return Ok(());
        }
        self.channel.wait()?;
        self.plan.cgroups.as_ref().map_or(Ok(()), Entry::enter)
    }

    /// As [`Self::hear`], then makes the cgroup namespace, whose root is where this process is.
    fn wait(&mut self) -> Done {
        self.hear()?;
        if self.plan.new_cgroup && !std::mem::replace(&mut self.placed, true) {
            unshare(UnshareFlags::NEWCGROUP).at(Step::NewNamespace)?;
        }
        Ok(())
    }
}

/// Becomes the root of a user namespace that this process was born in or has entered.
pub(crate) fn become_root() -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    // The change of user made the process dumpable by the rules of the new namespace.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
}

/// Enters namespaces. Those that the caller's user may not enter are tried again from inside the user namespace,
/// which may own them.
pub(crate) fn enter_all(joins: &[NamespaceJoin]) -> Done {
    let enter = |join: &NamespaceJoin| {
        rustix::thread::move_into_link_name_space(join.fd.as_fd(), Some(join.kind))
    };
    let user = joins.iter().position(|join| join.kind == LinkNameSpaceType::User);
    let mut refused = 0_u32;
    for (index, join) in joins.iter().enumerate() {
        if Some(index) == user {
            continue;
        }
        match enter(join) {
            Err(Errno::PERM) if user.is_some() => refused |= 1 << index.min(31),
            other => other.at_index(Step::EnterNamespace, index)?,
        }
    }
    let Some(user) = user else { return Ok(()) };
    enter(&joins[user]).at_index(Step::EnterNamespace, user)?;
    for (index, join) in joins.iter().enumerate() {
        if refused & (1 << index.min(31)) != 0 {
            enter(join).at_index(Step::EnterNamespace, index)?;
        }
    }
    Ok(())
}

/// A new time namespace takes its offsets until the first process is in it; unsharing alone only concerns children.
fn enter_time(offsets: &[u8], file: &OwnedFd) -> Done {
    unshare(UnshareFlags::NEWTIME).at(Step::NewNamespace)?;
    if !offsets.is_empty() {
        rustix::io::write(file, offsets).at(Step::TimeOffsets)?;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let path = c"/proc/self/ns/time_for_children";
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .and_then(|fd| {
            rustix::thread::move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Time))
        })
        .at(Step::TimeOffsets)
}

fn name_and_network(plan: &InitPlan) -> Done {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.to_bytes()).at(Step::Hostname)?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.to_bytes()).at(Step::Domainname)?;
    }
    if plan.loopback {
        loopback_up().at(Step::Loopback)?;
    }
    Ok(())
}

/// One RTM_NEWLINK for the first interface of a network namespace, which is always `lo`: set IFF_UP (rtnetlink(7)).
pub(crate) fn loopback_up() -> rustix::io::Result<()> {
    #[rustfmt::skip]
    const REQUEST: [u8; 32] = [
        // nlmsghdr: length, type RTM_NEWLINK, flags NLM_F_REQUEST, sequence, port
        32, 0, 0, 0, 16, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        // ifinfomsg: family, padding, type, index 1, flags IFF_UP, change IFF_UP
        0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0,
    ];
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::send(&socket, &REQUEST, SendFlags::empty()).map(drop)
}

type Opened = (Option<OwnedFd>, Option<OwnedFd>);

/// Mounts, hooks, terminal, masks, pivot. Answers the terminal's master and the container's procfs.
fn root_filesystem(plan: &InitPlan, release: &mut Release<'_>) -> Done<Opened> {
    let channel = release.channel;
    let Some(rootfs) = &plan.rootfs else {
        release.wait()?;
        return Ok((None, None));
    };
    let root = rootfs.tree.get().at(Step::AttachRoot)?;
    let mut proc = apply::mount(rootfs, || release.wait())?;
    apply::devices(rootfs, plan.become_root)?;
    if !on(Protection::ProcDescriptor) {
        proc = Some(target::find(root, c"proc").at(Step::PrivateProc)?);
    }
    let needs_proc = !rootfs.sysctls.is_empty() || plan.process.label.is_some();
    let private = match proc.is_none() && needs_proc {
        true => Some(apply::private_proc()?),
        false => None,
    };
    if plan.pause_when_mounted {
        channel.send(&Message::Mounted, &[]);
        channel.wait()?;
    }
    run_hooks(plan, &plan.create_container)?;
    let console = setup::terminal(&plan.process, root, true)?;
    if let Some(proc) = proc.as_ref().or(private.as_ref()) {
        apply::set_sysctls(rootfs, proc.as_fd())?;
    }
    apply::protect(rootfs, proc.as_ref().map(AsFd::as_fd))?;
    apply::enter(rootfs)?;
    Ok((console, proc.or(private).filter(|_| needs_proc)))
}

/// Waits for whoever starts the container, then becomes the user's program. Answers only on failure.
fn start(plan: &InitPlan, program: usize) -> i32 {
    let starter = loop {
        let flags = SocketFlags::CLOEXEC;
        match rustix::net::accept_with(&plan.start, flags) {
            Ok(starter) => {
                let mut byte = [0; 1];
                let read = rustix::io::retry_on_intr(|| rustix::io::read(&starter, &mut byte));
                // One that went away without a word has not started anything.
                if read == Ok(1) {
                    break starter;
                }
            }
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) => return 1,
        }
    };
    let failure = match run_hooks(plan, &plan.start_container) {
        Ok(()) => setup::execute(&plan.process, program),
        Err(failure) => failure,
    };
    send(starter.as_fd(), &Message::Failed(failure), &[]);
    1
}

fn run_hooks(plan: &InitPlan, hooks: &[ChildHook]) -> Done {
    for (index, hook) in hooks.iter().enumerate() {
        run_hook(hook, plan.hook_state.as_ref().map(AsFd::as_fd), index)?;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "a hook inside the container is a child of init")]
fn run_hook(hook: &ChildHook, state: Option<BorrowedFd<'_>>, index: usize) -> Done {
    let options = CloneOptions { flags: CLEAR_SIGHAND, cgroup: None };
    let child = || {
        if let Some(state) = state {
            let rewound = rustix::fs::seek(state, rustix::fs::SeekFrom::Start(0));
            if rewound.and_then(|_| rustix::stdio::dup2_stdin(state)).is_err() {
                return 126;
            }
        }
        brig_linux::process::exec(&hook.path, &hook.arguments, &hook.environment);
        127
    };
    // SAFETY: the child makes three system calls and execs what was prepared before init existed.
    let cloned = unsafe { clone3(options, child) }.at_index(Step::Hook, index)?;
    let timeout = hook.timeout_seconds.map(|tv_sec| Timespec { tv_sec, tv_nsec: 0 });
    let mut fds = [PollFd::new(&cloned.pidfd, PollFlags::IN)];
    let ended = rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref()));
    if ended == Ok(0) {
        // It may have ended meanwhile, which is as good.
        let _ = brig_linux::pidfd::send_signal(cloned.pidfd.as_fd(), libc::SIGKILL);
    }
    let exit = brig_linux::pidfd::wait_child(cloned.pidfd.as_fd())
        .map_err(|_| Failure::new(Step::Hook, index, Errno::CHILD))?;
    match (ended, exit.status()) {
        (Ok(0), _) => Err(Failure::new(Step::Hook, index, Errno::TIMEDOUT)),
        (_, 0) => Ok(()),
        (_, 127) => Err(Failure::new(Step::Hook, index, Errno::NOENT)),
        (_, status) => {
            let mut text = *b"exit status 000";
            for (place, divisor) in [(12, 100), (13, 10), (14, 1)] {
                text[place] = b'0' + u8::try_from(status / divisor % 10).unwrap_or(0);
            }
            Err(Failure::new(Step::Hook, index, Errno::IO).with_detail(&text))
        }
    }
}
