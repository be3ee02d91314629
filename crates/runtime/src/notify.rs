//! Readiness of a container's program, by the protocol of sd_notify(3).
//!
//! A directory of the container's state is bound into it at `/run/notify`, read-only, before there is a socket in it.
//! Whoever starts the container binds the socket, listens until the program says that it is ready, and passes that on to
//! the service manager with its own words: the container cannot name another process or keep the manager's descriptors.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use oci_spec::runtime::{Mount, Spec};

use crate::error::{Error, Result};

/// Where the directory is in the container.
const INSIDE: &str = "/run/notify";
/// The name of the socket in it.
const SOCKET: &str = "notify.sock";

/// Makes the directory, and adds it and the variable to a configuration.
///
/// # Errors
/// The system's.
pub(crate) fn prepare(spec: &mut Spec, directory: &Path) -> Result<()> {
    let attempt = |source| Error::system(format!("make {}", directory.display()), source);
    std::fs::create_dir(directory).map_err(attempt)?;
    // The container's user must get through, whatever the umask.
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).map_err(attempt)?;
    let mut mount = Mount::default();
    mount.set_destination(INSIDE.into());
    mount.set_source(Some(directory.to_owned()));
    mount.set_typ(Some("bind".to_owned()));
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"];
    mount.set_options(Some(options.map(ToOwned::to_owned).to_vec()));
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
    if let Some(process) = spec.process_mut() {
        let mut environment = process.env().clone().unwrap_or_default();
        environment.retain(|variable| !variable.starts_with("NOTIFY_SOCKET="));
        environment.push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
        process.set_env(Some(environment));
    }
    Ok(())
}

/// Binds the socket, if there is a directory for one.
///
/// # Errors
/// The system's.
pub(crate) fn bind(directory: &Path) -> Result<Option<UnixDatagram>> {
    if !directory.is_dir() {
        return Ok(None);
    }
    let path = directory.join(SOCKET);
    // One that a start left which was killed; nobody else can make a file here.
    let _ = std::fs::remove_file(&path);
    let socket = brig_linux::fd::bind_unix_datagram(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))
        .map_err(|source| Error::system(format!("open {} to all", path.display()), source))?;
    Ok(Some(socket))
}
