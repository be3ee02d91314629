//! File descriptors: closing on exec, passing over sockets, and Unix sockets at paths of any length.
//!
//! Functions that answer [`rustix::io::Result`] neither allocate nor lock, so a freshly cloned child may call them.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::{Error, ErrorKind, Result};

/// How many descriptors one message may carry.
pub const MESSAGE_DESCRIPTORS_MAX: usize = 4;

/// Marks every descriptor from `first` up close-on-exec: `close_range(2)` with `CLOSE_RANGE_CLOEXEC` (Linux 5.11).
///
/// # Errors
/// `ENOSYS` or `EINVAL` on kernels before 5.11.
#[expect(unsafe_code, reason = "close_range is in neither rustix nor nix")]
pub fn close_on_exec_from(first: u32) -> rustix::io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC the call closes nothing; it only sets a flag on descriptors of this process,
    // and takes no pointers.
    let answer =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Closes every descriptor from `first` up except those in `keep`, which must be sorted. For a freshly cloned child:
/// what other threads of its parent had open (locks, sockets whose end of file somebody waits for, directories of the
/// host) must not live on in it.
///
/// # Safety
/// Nothing in this process may use or drop a value that owns a closed descriptor.
///
/// # Errors
/// `ENOSYS` on kernels before 5.9.
#[expect(unsafe_code, reason = "closes descriptors that other values own")]
pub unsafe fn close_all_but(first: u32, keep: &[RawFd]) -> rustix::io::Result<()> {
    let mut next = first;
    for fd in keep.iter().filter_map(|fd| u32::try_from(*fd).ok()) {
        if fd > next {
            // SAFETY: the caller promises that nothing uses what is closed.
            unsafe { close_range(next, fd - 1) }?;
        }
        next = next.max(fd.saturating_add(1));
    }
    // SAFETY: as above.
    unsafe { close_range(next, u32::MAX) }
}

/// # Safety
/// As [`close_all_but`].
#[expect(unsafe_code, reason = "close_range is in neither rustix nor nix")]
unsafe fn close_range(first: u32, last: u32) -> rustix::io::Result<()> {
    // SAFETY: the call takes three integers; the caller promises that nothing uses what is closed.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

/// The error number which the libc wrapper of this thread's last failed call left.
pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Sends `bytes` with the descriptors `fds` (at most [`MESSAGE_DESCRIPTORS_MAX`]) over a Unix socket, without
/// raising SIGPIPE.
///
/// # Errors
/// As sendmsg(2); `E2BIG` when there are too many descriptors.
pub fn send_with_fds(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> rustix::io::Result<usize> {
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    })
}

/// Receives one message and the descriptors that came with it (close-on-exec). Zero bytes mean end of file.
///
/// # Errors
/// As recvmsg(2).
pub fn receive_with_fds(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> rustix::io::Result<(usize, Vec<OwnedFd>)> {
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(buffer)];
        rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    Ok((message.bytes, fds))
}

/// Listens on a Unix socket at `path`, however long the path is: the address goes through a descriptor of the
/// directory, since `sockaddr_un` holds only 108 bytes.
///
/// # Errors
/// `InvalidInput` for a path without a name; otherwise the system's.
pub fn listen_unix(path: &Path) -> Result<UnixListener> {
    with_short_path(path, |short| UnixListener::bind(short))
        .map_err(|error| error.context(format!("listen on {}", path.display())))
}

/// Binds a Unix datagram socket at `path`, however long the path is.
///
/// # Errors
/// `InvalidInput` for a path without a name; otherwise the system's.
pub fn bind_unix_datagram(path: &Path) -> Result<UnixDatagram> {
    with_short_path(path, |short| UnixDatagram::bind(short))
        .map_err(|error| error.context(format!("bind {}", path.display())))
}

/// Connects to a Unix stream socket at `path`, however long the path is.
///
/// # Errors
/// `InvalidInput` for a path without a name; otherwise the system's.
pub fn connect_unix(path: &Path) -> Result<UnixStream> {
    with_short_path(path, |short| UnixStream::connect(short))
        .map_err(|error| error.context(format!("connect to {}", path.display())))
}

/// Whether somebody listens on the Unix stream socket at `path`. Never waits: a listener that is too busy to take a
/// connection is one. It sees a connection that ends without a byte.
///
/// # Errors
/// `InvalidInput` for a path without a name; otherwise the system's.
pub fn is_listening(path: &Path) -> Result<bool> {
    with_short_path(path, |short| {
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        match rustix::net::connect(&socket, &SocketAddrUnix::new(short)?) {
            Ok(()) | Err(Errno::AGAIN) => Ok(true),
            Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    })
}

fn with_short_path<T>(path: &Path, call: impl Fn(&Path) -> std::io::Result<T>) -> Result<T> {
    let attempt = || format!("use socket {}", path.display());
    if path.as_os_str().len() < 100 {
        return call(path).map_err(|source| Error::system(attempt(), source));
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::new(ErrorKind::InvalidInput, attempt()));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, directory, flags, Mode::empty())
        .map_err(|errno| Error::system(attempt(), errno))?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()));
    call(&short.join(name)).map_err(|source| Error::system(attempt(), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_travel_over_a_socket() {
        let (left, right) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send_with_fds(left.as_fd(), b"x", &[file.as_fd()]).unwrap();
        let mut buffer = [0; 8];
        let (length, fds) = receive_with_fds(right.as_fd(), &mut buffer).unwrap();
        assert_eq!((length, fds.len()), (1, 1));
        assert!(rustix::io::fcntl_getfd(&fds[0]).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn sockets_work_at_paths_longer_than_an_address() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(150));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("s");
        assert!(!is_listening(&path).unwrap(), "nothing is there");
        let listener = listen_unix(&path).unwrap();
        let _client = connect_unix(&path).unwrap();
        listener.accept().unwrap();
        assert!(is_listening(&path).unwrap());
        drop(listener);
        assert!(!is_listening(&path).unwrap(), "only the name is there");
    }
}
