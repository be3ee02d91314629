//! The last part of a container's process: terminal, credentials, program. Nothing here allocates.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use brig_linux::capability::{self, CapabilitySet, CapabilitySets};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use super::agent;
use super::message::{At, Failure, Step};
use super::plan::ProcessPlan;
use crate::protection::{Protection, on};
use crate::rootfs::apply::proc_file;
use crate::rootfs::target;
use crate::security::scheduling::{last_errno, set_io_priority, set_personality};

type Done<T = ()> = Result<T, Failure>;

/// `devpts` in statfs(2).
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Before anything else: nothing in this process may be read or traced by what it is about to join, its signals are
/// as a program expects them, and it leads a session of its own.
pub(crate) fn protect() -> Done {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .at(Step::Protect)?;
    brig_linux::process::reset_signals();
    rustix::process::umask(Mode::empty());
    if !on(Protection::Session) {
        return Ok(());
    }
    match rustix::process::setsid() {
        // A leader already: an embedder made it one.
        Ok(_) | Err(Errno::PERM) => Ok(()),
        Err(errno) => Err(errno).at(Step::Protect),
    }
}

/// Puts the standard descriptors in place and lets the exec close everything that is not to be passed on.
pub(crate) fn stdio(plan: &ProcessPlan) -> Done {
    for (number, fd) in plan.stdio.iter().enumerate() {
        if let Some(fd) = fd {
            replace(number, fd.as_fd()).at_index(Step::Stdio, number)?;
        }
    }
    if !on(Protection::Descriptors) {
        return Ok(());
    }
    brig_linux::fd::close_on_exec_from(plan.preserve_fds.saturating_add(3)).at(Step::Stdio)
}

pub(crate) fn replace(number: usize, fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
    match number {
        0 => rustix::stdio::dup2_stdin(fd),
        1 => rustix::stdio::dup2_stdout(fd),
        _ => rustix::stdio::dup2_stderr(fd),
    }
}

/// Lets the container's user reopen its standard descriptors through `/proc/self/fd`.
pub(crate) fn own_stdio(plan: &ProcessPlan) {
    let uid = Uid::from_raw(plan.uid);
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(fd) else { continue };
        let null = stat.st_rdev == rustix::fs::makedev(1, 3);
        let kind = FileType::from_raw_mode(stat.st_mode);
        let wanted = matches!(kind, FileType::Fifo | FileType::Socket | FileType::CharacterDevice);
        if wanted && !null && stat.st_uid != plan.uid {
            // Descriptors of read-only or foreign filesystems keep their owner; the program can use them all the same.
            let _ = rustix::fs::fchown(fd, Some(uid), None);
        }
    }
}

/// A terminal from the devpts beneath `root`: answers the master, the slave becomes the controlling terminal and the
/// standard descriptors. With `console` it is also bound over `/dev/console`.
pub(crate) fn terminal(
    plan: &ProcessPlan,
    root: BorrowedFd<'_>,
    console: bool,
) -> Done<Option<OwnedFd>> {
    let Some(terminal) = &plan.terminal else { return Ok(None) };
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master =
        target::open(root, c"dev/pts/ptmx", flags, ResolveFlags::NO_SYMLINKS).at(Step::Terminal)?;
    let stat = rustix::fs::fstat(&master).at(Step::Terminal)?;
    let filesystem = rustix::fs::fstatfs(&master).at(Step::Terminal)?;
    if stat.st_rdev != rustix::fs::makedev(5, 2) || filesystem.f_type != DEVPTS_SUPER_MAGIC {
        return Err(Failure::new(Step::Terminal, 1, Errno::NOTTY));
    }
    rustix::pty::unlockpt(&master).at(Step::Terminal)?;
    let peer = rustix::pty::OpenptFlags::RDWR
        | rustix::pty::OpenptFlags::NOCTTY
        | rustix::pty::OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, peer).at(Step::Terminal)?;
    if let Some((rows, columns)) = terminal.size {
        let size =
            rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).at(Step::Terminal)?;
    }
    let (uid, gid) = (Uid::from_raw(plan.uid), None::<Gid>);
    rustix::fs::fchown(&slave, Some(uid), gid).at(Step::Terminal)?;
    if console {
        bind_console(root, &slave).at(Step::ConsoleDevice)?;
    }
    rustix::process::ioctl_tiocsctty(&slave).at(Step::Terminal)?;
    for number in 0..3 {
        replace(number, slave.as_fd()).at_index(Step::Stdio, number)?;
    }
    Ok(Some(master))
}

/// The console is bound over a regular file made here or a node that is there; a link is refused, since it would
/// put the terminal's node over a file of somebody else's choice (CVE-2025-52565).
fn bind_console(root: BorrowedFd<'_>, slave: &OwnedFd) -> rustix::io::Result<()> {
    let directory =
        target::open(root, c"dev", OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::NO_SYMLINKS)?;
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o620);
    let links = on(Protection::ConsoleLink);
    let create = if links { create } else { OFlags::CREATE };
    match rustix::fs::openat(&directory, c"console", create | OFlags::WRONLY, mode) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let console = rustix::fs::openat(&directory, c"console", flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&console)?;
    if links && FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Err(Errno::LOOP);
    }
    let tree = brig_linux::mount::clone_tree(slave.as_fd(), c"", false)?;
    brig_linux::mount::attach(tree, console)
}

/// Everything from the keyring to the working directory. Afterwards the process is the container's user. Answers
/// which of the plan's candidates is the program.
pub(crate) fn become_user(plan: &ProcessPlan, proc: Option<BorrowedFd<'_>>) -> Done<usize> {
    if let Some(name) = &plan.keyring {
        join_keyring(name).at(Step::Keyring)?;
    }
    if let Some(domain) = plan.personality {
        set_personality(domain).at(Step::Personality)?;
    }
    if let Some(scheduler) = &plan.scheduler {
        scheduler.apply().at(Step::Scheduler)?;
    }
    if let Some(priority) = plan.io_priority {
        set_io_priority(priority).at(Step::IoPriority)?;
    }
    if let Some(policy) = &plan.memory_policy {
        policy.apply().at(Step::MemoryPolicy)?;
    }
    if let (Some(label), Some(proc)) = (&plan.label, proc) {
        write_label(label, proc).at(Step::Label)?;
    }
    own_stdio(plan);
    if plan.no_new_privileges {
        rustix::thread::set_no_new_privs(true).at(Step::NoNewPrivileges)?;
    }
    credentials(plan)?;
    rustix::process::umask(Mode::from_raw_mode(plan.umask & 0o777));
    change_directory(plan).at(Step::WorkingDirectory)?;
    find_program(plan)
}

fn write_label(label: &super::plan::Label, proc: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut result = Err(Errno::NOENT);
    for file in &label.files {
        // thread-self is a link; it is procfs's own and cannot be replaced on this mount.
        result = target::open(proc, file, OFlags::WRONLY, ResolveFlags::NO_XDEV)
            .or_else(|_| proc_file(proc, file, OFlags::WRONLY))
            .and_then(|file| rustix::io::write(file, label.value.as_bytes()))
            .map(drop);
        if result.is_ok() {
            break;
        }
    }
    result
}

#[expect(unsafe_code, reason = "keyctl is in neither rustix nor nix")]
fn join_keyring(name: &std::ffi::CStr) -> rustix::io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: the kernel reads the name, which is borrowed for the call.
    let answer =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    if answer >= 0 {
        return Ok(());
    }
    match last_errno() {
        // A kernel without keys has none to leak.
        Errno::NOSYS => Ok(()),
        errno => Err(errno),
    }
}

fn credentials(plan: &ProcessPlan) -> Done {
    capability::limit_bounding_set(plan.capabilities.bounding).at(Step::Bounding)?;
    rustix::thread::set_keep_capabilities(true).at(Step::User)?;
    if !plan.keep_groups && on(Protection::Groups) {
        rustix::thread::set_thread_groups(&plan.groups).at(Step::Groups)?;
    }
    let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).at(Step::Groups)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).at(Step::User)?;
    let kept = kept_for_seccomp(plan);
    set_capabilities(plan, kept).at(Step::Capabilities)?;
    if !plan.capabilities.ambient.is_empty() {
        capability::set_ambient(plan.capabilities.ambient).at(Step::Ambient)?;
    }
    Ok(())
}

/// A filter can only be installed with CAP_SYS_ADMIN or no_new_privs. It is installed last, so that it need not
/// allow what comes before the program; until then the process keeps the capability.
fn kept_for_seccomp(plan: &ProcessPlan) -> CapabilitySet {
    if plan.seccomp.is_some() && !plan.no_new_privileges {
        CapabilitySet::SYS_ADMIN
    } else {
        CapabilitySet::empty()
    }
}

fn set_capabilities(plan: &ProcessPlan, kept: CapabilitySet) -> rustix::io::Result<()> {
    capability::set(CapabilitySets {
        effective: plan.capabilities.effective | kept,
        permitted: plan.capabilities.permitted | kept,
        inheritable: if on(Protection::Inheritable) {
            plan.capabilities.inheritable
        } else {
            plan.capabilities.permitted
        },
    })
}

/// Enters the working directory as the container's user, and never through a descriptor: a directory of the host
/// that was left open would be a way out (CVE-2024-21626).
fn change_directory(plan: &ProcessPlan) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = if on(Protection::WorkingDirectory) {
        ResolveFlags::NO_MAGICLINKS
    } else {
        ResolveFlags::empty()
    };
    let directory = rustix::fs::openat2(CWD, &plan.cwd, flags, Mode::empty(), resolve)?;
    rustix::process::fchdir(directory)
}

fn find_program(plan: &ProcessPlan) -> Done<usize> {
    let mut worst = Errno::NOENT;
    for (index, candidate) in plan.candidates.iter().enumerate() {
        let access = rustix::fs::Access::EXEC_OK;
        match rustix::fs::accessat(CWD, candidate, access, AtFlags::empty()) {
            Ok(()) => {
                let stat =
                    rustix::fs::stat(candidate.as_c_str()).at_index(Step::FindProgram, index)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    return Ok(index);
                }
                worst = Errno::ACCESS;
            }
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => worst = errno,
        }
    }
    Err(Failure::new(Step::FindProgram, 0, worst))
}

/// The filter, the last capabilities, the program. Answers only on failure.
pub(crate) fn execute(plan: &ProcessPlan, program: usize) -> Failure {
    let prepared = plan.seccomp.as_ref().map_or(Ok(()), |filter| {
        match &plan.agent {
            Some(agent) => agent::install(filter, agent),
            None => filter.install().map(drop),
        }
        .at(Step::Seccomp)?;
        if kept_for_seccomp(plan).is_empty() {
            return Ok(());
        }
        set_capabilities(plan, CapabilitySet::empty()).at(Step::Capabilities)
    });
    if let Err(failure) = prepared {
        return failure;
    }
    let Some(path) = plan.candidates.get(program) else {
        return Failure::new(Step::FindProgram, program, Errno::NOENT);
    };
    let errno = brig_linux::process::exec(path, &plan.arguments, &plan.environment);
    Failure::new(Step::Exec, program, errno)
}
