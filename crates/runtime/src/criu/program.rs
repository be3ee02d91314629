//! Running CRIU for one request.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use brig_linux::mount::{MountAttributes, attach, propagation, set_attributes_at};
use brig_linux::process::{CloneOptions, Strings, clone3, exec, flags, reset_signals, unshare};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::thread::UnshareFlags;

use super::rpc::{Request, Response, notified};
use crate::cgroup::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::process::channel::{ChildSide, ParentSide, pair};
use crate::process::message::{At, Failure, Message, Step};
use crate::process::parent::{Keep, Names, explain};
use crate::process::setup::replace;
use crate::rootfs::tree::Tree;

/// The environment: where CRIU finds the programs that it uses itself (`tar`, `ip`, `iptables-restore`).
const PATH: &CStr = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The longest message of CRIU.
const MESSAGE_MAX: usize = 64 << 10;

/// How CRIU is started.
#[derive(Debug, Default)]
pub(crate) struct Launch<'a> {
    pub(crate) stdio: [Option<OwnedFd>; 3],
    /// Descriptors that it needs under the numbers that they have.
    pub(crate) inherited: Vec<OwnedFd>,
    /// The v1 cgroups to enter.
    pub(crate) cgroups: Option<Entry>,
    /// Trees to attach where only it and what it restores can see them.
    pub(crate) mounts: Vec<(&'a Tree, CString)>,
    /// Whether it has a mount namespace of its own.
    pub(crate) new_mounts: bool,
    /// Whether the cgroup that it is in by then becomes the root of a cgroup namespace.
    pub(crate) new_cgroup: bool,
}

/// CRIU, waiting for its request.
#[derive(Debug)]
pub(crate) struct Criu<'a> {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    launch: &'a Launch<'a>,
    program: &'a Path,
    channel: ParentSide,
    socket: OwnedFd,
}

impl<'a> Criu<'a> {
    /// Makes the process, which waits to be put into its cgroups.
    ///
    /// # Errors
    /// The system's.
    #[expect(unsafe_code, reason = "criu is started from a namespace of its own")]
    pub(crate) fn prepare(
        program: &'a Path,
        launch: &'a Launch<'a>,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<Self> {
        let failed = |errno| Error::system("make a socket to criu", errno);
        let kind = SocketType::SEQPACKET;
        let (socket, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
                .map_err(failed)?;
        let (channel, child) = pair()?;
        let zero = |_| Error::new(ErrorKind::InvalidInput, "the path of criu has a zero byte");
        let path = CString::new(program.as_os_str().as_bytes()).map_err(zero)?;
        let number = CString::new(theirs.as_raw_fd().to_string()).map_err(zero)?;
        let arguments = Strings::new(vec![c"criu".to_owned(), c"swrk".to_owned(), number]);
        let environment = Strings::new(vec![PATH.to_owned()]);
        let mut fds = vec![child.as_fd().as_raw_fd(), theirs.as_raw_fd()];
        fds.extend(launch.cgroups.iter().flat_map(Entry::descriptors));
        fds.extend(launch.inherited.iter().map(AsRawFd::as_raw_fd));
        fds.extend(launch.stdio.iter().flatten().map(AsRawFd::as_raw_fd));
        fds.extend(launch.mounts.iter().filter_map(|(tree, _)| tree.descriptor()));
        let keep = Keep::new(0, fds);
        let body = || {
            if keep.apply().is_err() {
                return 1;
            }
            reset_signals();
            let failure = match set_up(launch, &child, theirs.as_fd()) {
                Ok(()) => Failure::new(Step::Exec, 0, exec(&path, &arguments, &environment)),
                Err(failure) => failure,
            };
            child.send(&Message::Failed(failure), &[]);
            1
        };
        let options = CloneOptions { flags: flags::CLEAR_SIGHAND, cgroup };
        // SAFETY: the child makes system calls on prepared values, and execs or exits.
        let cloned = unsafe { clone3(options, body) }
            .map_err(|errno| Error::system("make a process for criu", errno))?;
        let (pid, pidfd) = (cloned.pid, cloned.pidfd);
        Ok(Self { pid, pidfd, launch, program, channel, socket })
    }

    /// Lets it go on, asks, and answers its notifications until it has answered. `notified` decides whether it goes on; an
    /// error of it is the one that is reported.
    ///
    /// # Errors
    /// What it failed with, or why it could not be started.
    pub(crate) fn ask(
        &self,
        request: &[u8],
        notice: &mut dyn FnMut(&Response, Vec<OwnedFd>) -> Result<()>,
    ) -> Result<Response> {
        self.channel.go()?;
        let gone = || match self.channel.receive_sent() {
            Ok(Some((Message::Failed(failure), _))) => explain(&failure, self),
            _ => Error::new(ErrorKind::Io, "criu ended without an answer"),
        };
        let send = |bytes: &[u8]| {
            rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL).map_err(|_| gone())
        };
        let mut refused = None;
        let mut sent = send(request).map(drop);
        loop {
            if let Err(error) = sent {
                return Err(refused.unwrap_or(error));
            }
            let mut buffer = vec![0; MESSAGE_MAX];
            let received = brig_linux::fd::receive_with_fds(self.socket.as_fd(), &mut buffer);
            let Ok((length @ 1.., fds)) = received else {
                return Err(refused.unwrap_or_else(gone));
            };
            let response = Response::parse(&buffer[..length])?;
            if response.kind != Request::Notify as u64 {
                return refused.map_or_else(|| checked(response), Err);
            }
            let answer = match refused.is_some() {
                true => Ok(()),
                false => notice(&response, fds),
            };
            let success = answer.is_ok() && refused.is_none();
            if let Err(error) = answer {
                refused = Some(error);
            }
            sent = send(&notified(success)).map(drop);
        }
    }
}

fn checked(response: Response) -> Result<Response> {
    if response.success {
        return Ok(response);
    }
    // In words it is in the log.
    let errno = std::io::Error::from_raw_os_error(response.errno.saturating_abs());
    Err(match response.errno {
        0 => Error::new(ErrorKind::Io, "criu failed"),
        _ => Error::system("criu failed", errno),
    })
}

impl Drop for Criu<'_> {
    fn drop(&mut self) {
        // It ends with its socket, but not while it waits for what it has stopped.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let patience = std::time::Duration::from_secs(10);
        if !matches!(brig_linux::pidfd::wait_end(self.pidfd.as_fd(), Some(patience)), Ok(true)) {
            let _ = brig_linux::pidfd::send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        }
        // An embedder that reaps every child may have been faster.
        let _ = brig_linux::pidfd::wait_child(self.pidfd.as_fd());
    }
}

/// In the child: waits for its cgroups, then makes what CRIU is to find. Allocates nothing.
fn set_up(
    launch: &Launch<'_>,
    channel: &ChildSide,
    socket: BorrowedFd<'_>,
) -> std::result::Result<(), Failure> {
    channel.wait()?;
    launch.cgroups.as_ref().map_or(Ok(()), Entry::enter)?;
    if launch.new_mounts {
        unshare(UnshareFlags::NEWNS).at(Step::NewNamespace)?;
        let slave = MountAttributes::default().propagation(propagation::SLAVE);
        set_attributes_at(c"/", &slave, true).at(Step::RootPropagation)?;
    }
    for (index, (tree, place)) in launch.mounts.iter().enumerate() {
        let tree = tree.get().at_index(Step::Source, index)?;
        rustix::fs::openat(CWD, place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .and_then(|place| attach(tree, place))
            .at_index(Step::Mount, index)?;
    }
    if launch.new_cgroup {
        unshare(UnshareFlags::NEWCGROUP).at(Step::NewNamespace)?;
    }
    for (number, fd) in launch.stdio.iter().enumerate() {
        if let Some(fd) = fd {
            replace(number, fd.as_fd()).at_index(Step::Stdio, number)?;
        }
    }
    for fd in launch.inherited.iter().map(AsFd::as_fd).chain([socket]) {
        rustix::io::fcntl_setfd(fd, FdFlags::empty()).at(Step::Stdio)?;
    }
    Ok(())
}

impl Names for Criu<'_> {
    fn name(&self, step: Step, index: usize) -> String {
        let mount = self.launch.mounts.get(index);
        match step {
            Step::Exec => self.program.display().to_string(),
            Step::JoinCgroup => {
                self.launch.cgroups.as_ref().map(|cgroups| cgroups.name(index)).unwrap_or_default()
            }
            Step::Source | Step::Mount => {
                let source = mount.map(|(tree, _)| tree.source().to_string_lossy());
                format!("attach {:?} for criu", source.unwrap_or_default())
            }
            _ => "prepare namespaces for criu".to_owned(),
        }
    }
}
