//! Where the master side of a container's terminal goes.

use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::Spec;

use crate::container::Console;
use crate::error::{Error, ErrorKind, Result};

/// Refuses a terminal that nobody would get, and a destination for a terminal that is not asked for.
pub(crate) fn check(spec: &Spec, console: &Console) -> Result<()> {
    let asked = spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
    check_pair(asked, console)
}

/// As [`check`].
pub(crate) fn check_pair(asked: bool, console: &Console) -> Result<()> {
    let invalid = |text: &str| Err(Error::new(ErrorKind::InvalidInput, text));
    match (asked, console) {
        (true, Console::None) => invalid(
            "process.terminal is set, but there is no console socket to send the terminal to",
        ),
        (false, Console::Socket(_)) => {
            invalid("a console socket is given, but process.terminal is not set")
        }
        _ => Ok(()),
    }
}

/// Sends the master to the console socket, or hands it back.
pub(crate) fn deliver(master: Option<OwnedFd>, console: Console) -> Result<Option<OwnedFd>> {
    match (master, console) {
        (Some(master), Console::Socket(path)) => {
            let socket = brig_linux::fd::connect_unix(&path)?;
            brig_linux::fd::send_with_fds(socket.as_fd(), b"/dev/ptmx", &[master.as_fd()])
                .map_err(|errno| {
                    Error::system(format!("send the terminal to {}", path.display()), errno)
                })?;
            Ok(None)
        }
        (master, _) => Ok(master),
    }
}
