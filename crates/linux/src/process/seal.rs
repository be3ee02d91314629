//! Running from a read-only view of our own executable.
//!
//! A container's process is a clone of the runtime until it execs, so a container that gets the runtime to exec
//! `/proc/self/exe` (as its program, or as the interpreter of a script) holds a handle on the runtime's file on the
//! host and may write to it once nobody executes it (CVE-2019-5736). Checking what is about to be executed is a race
//! that an attacker wins. Making init non-dumpable keeps other processes from opening `/proc/PID/exe` before the
//! exec, but not the exec itself from resolving its own link.
//!
//! What does help is that an executable's link remembers the *mount* it was opened through: a program that was
//! started through a read-only mount cannot be opened for writing through its link by anyone, not even by the host's
//! root, and a detached mount belongs to no namespace, so nobody can remount it. [`seal_executable`] starts the
//! program once more in that way. Where mounts may not be made (no CAP_SYS_ADMIN) the program runs from a sealed
//! copy in memory instead. Containers in a user namespace do not need it: their root does not own the file.

use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, MemfdFlags, SealFlags, StatVfsMountFlags};

use super::Strings;
use crate::mount::{MountAttributes, attribute, clone_tree, set_attributes};
use crate::{Error, Result};

/// Makes sure that this program runs from an executable that cannot be written through `/proc/self/exe`, by starting
/// it once more from a read-only detached mount where it does not. Call it first thing in `main`, before threads and
/// before reading input; `arguments` and `environment` are this program's own (`std::env::args_os`, `vars_os`).
///
/// # Errors
/// When neither a read-only mount nor a sealed copy can be made or executed.
pub fn seal_executable(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<()> {
    let attempt = |what: &str| format!("{what} this program's executable");
    let own = rustix::fs::open(
        c"/proc/self/exe",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(|errno| Error::system(attempt("open"), errno))?;
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if is_sealed(&own) {
        restore_name(arguments.first());
        return Ok(());
    }
    let environment = environment.into_iter().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let strings = |words: &mut dyn Iterator<Item = OsString>| {
        // What the kernel gave to this process has no zero byte.
        Strings::new(words.filter_map(|word| CString::new(word.into_vec()).ok()).collect())
    };
    let (sealed, name) = match read_only_mount(&own) {
        Ok(mounted) => mounted,
        Err(_) => {
            let copy = sealed_copy(own);
            (copy.map_err(|source| Error::system(attempt("copy"), source))?, CString::default())
        }
    };
    let arguments = strings(&mut arguments.into_iter());
    let errno = exec_at(&sealed, &name, &arguments, &strings(&mut environment.into_iter()));
    Err(Error::system(attempt("start once more"), errno))
}

/// Before 6.14 the kernel names a program that was executed by descriptor after the descriptor's number.
fn restore_name(program: Option<&OsString>) {
    let name = program.and_then(|program| Path::new(program).file_name());
    if let Some(name) = name.and_then(|name| CString::new(name.to_owned().into_vec()).ok()) {
        // Only what `ps` shows depends on it.
        let _ = rustix::thread::set_name(&name);
    }
}

fn is_sealed(own: &OwnedFd) -> bool {
    let read_only = rustix::fs::fstatvfs(own)
        .is_ok_and(|about| about.f_flag.contains(StatVfsMountFlags::RDONLY));
    read_only
        || rustix::fs::fcntl_get_seals(own).is_ok_and(|seals| seals.contains(SealFlags::WRITE))
}

/// A read-only mount and the executable's name in it: of its directory, so that the process's link still tells which
/// program it is, or of the file alone (with an empty name), where its directory does not have it any more.
fn read_only_mount(own: &OwnedFd) -> std::io::Result<(OwnedFd, CString)> {
    let path = std::fs::read_link("/proc/self/exe")?;
    if let (Some(directory), Some(name)) = (path.parent(), path.file_name()) {
        let name = CString::new(name.as_bytes())?;
        let mount = read_only_clone(&CString::new(directory.as_os_str().as_bytes())?)?;
        let found = rustix::fs::statat(&mount, &name, AtFlags::SYMLINK_NOFOLLOW);
        let expected = rustix::fs::fstat(own)?;
        if found.is_ok_and(|it| (it.st_dev, it.st_ino) == (expected.st_dev, expected.st_ino)) {
            return Ok((mount, name));
        }
    }
    Ok((read_only_clone(c"/proc/self/exe")?, CString::default()))
}

fn read_only_clone(path: &CStr) -> rustix::io::Result<OwnedFd> {
    let mount = clone_tree(CWD, path, false)?;
    let read_only = MountAttributes::default().set(attribute::READ_ONLY);
    set_attributes(&mount, &read_only, false)?;
    Ok(mount)
}

fn sealed_copy(own: OwnedFd) -> std::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = std::fs::File::from(rustix::fs::memfd_create(c"sealed", flags)?);
    std::io::copy(&mut std::fs::File::from(own), &mut copy)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}

/// Executes what has `name` in `directory`, or what `directory` itself is when the name is empty.
#[expect(unsafe_code, reason = "execveat is in neither rustix nor std")]
fn exec_at(
    directory: &OwnedFd,
    name: &CStr,
    arguments: &Strings,
    environment: &Strings,
) -> rustix::io::Errno {
    // A link put in the name's place meanwhile is not followed.
    let flags = if name.is_empty() { libc::AT_EMPTY_PATH } else { libc::AT_SYMLINK_NOFOLLOW };
    // SAFETY: the descriptor is open, the name a CStr, and Strings keeps null-terminated arrays of live strings.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            directory.as_raw_fd(),
            name.as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
            flags,
        )
    };
    crate::fd::last_errno()
}
