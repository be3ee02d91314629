//! Sockets: bound here, or handed over by systemd.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use brig_manager::Listener;
use listenfd::ListenFd;

/// Where to listen when nothing says otherwise.
const DEFAULT_HOST: &str = "unix:///run/brig/brig.sock";

/// Everything that brigd listens on.
pub(crate) struct Listeners {
    listeners: Vec<Listener>,
    addresses: Vec<String>,
    sockets: Vec<Socket>,
}

/// A socket in the file system, removed when dropped.
#[derive(Debug)]
pub(crate) struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        // A newer brigd may have replaced it, or an operator removed it.
        let _ = fs::remove_file(&self.0);
    }
}

impl Listeners {
    /// Listens on `hosts`; when there are none, on the sockets that systemd passed, or on the default. Members of
    /// `group` may connect.
    pub(crate) fn bind(hosts: &[String], group: &str) -> Result<Self> {
        let mut all = Self { listeners: Vec::new(), addresses: Vec::new(), sockets: Vec::new() };
        for host in hosts {
            all.add(host, group)?;
        }
        if hosts.is_empty() {
            all.adopt(ListenFd::from_env())?;
        }
        if all.listeners.is_empty() {
            all.add(DEFAULT_HOST, group)?;
        }
        Ok(all)
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = &str> {
        self.addresses.iter().map(String::as_str)
    }

    /// The listeners, and what removes their sockets in the end.
    pub(crate) fn into_parts(self) -> (Vec<Listener>, Vec<Socket>) {
        (self.listeners, self.sockets)
    }

    fn adopt(&mut self, mut passed: ListenFd) -> Result<()> {
        for index in 0..passed.len() {
            let listener = passed.take_unix_listener(index);
            let listener = listener.context("take a socket from systemd")?;
            if let Some(listener) = listener {
                self.push(listener, "a socket of systemd".to_owned())?;
            }
        }
        Ok(())
    }

    fn add(&mut self, host: &str, group: &str) -> Result<()> {
        let Some(path) = host.strip_prefix("unix://").filter(|path| path.starts_with('/')) else {
            if host.starts_with("tcp://") {
                bail!(
                    "{host}: brigd does not listen on TCP, where whoever reaches the port would be root here; \
                     use a unix socket, and ssh to reach it from elsewhere"
                );
            }
            bail!("{host} is not an address to listen on: expected unix:///path");
        };
        let path = PathBuf::from(path);
        let listener = bind_unix(&path, group).with_context(|| format!("listen on {host}"))?;
        self.sockets.push(Socket(path));
        self.push(listener, host.to_owned())
    }

    fn push(&mut self, listener: UnixListener, address: String) -> Result<()> {
        listener.set_nonblocking(true).context("prepare a socket")?;
        let listener = tokio::net::UnixListener::from_std(listener).context("prepare a socket")?;
        self.listeners.push(Listener::Unix(listener));
        self.addresses.push(address);
        Ok(())
    }
}

/// Binds a socket that root and `group` may connect to. It appears under its name only with the right owner and
/// mode, and takes the place of one that nobody listens on.
fn bind_unix(path: &Path, group: &str) -> Result<UnixListener> {
    match UnixStream::connect(path) {
        Ok(_) => bail!("another daemon listens there"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).context("look for another daemon"),
    }
    if fs::symlink_metadata(path).is_ok_and(|found| !is_socket(&found)) {
        bail!("there is something else than a socket");
    }
    let directory = path.parent().context("find the socket's directory")?;
    // Everyone may pass through; the socket decides.
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o711).create(directory).context("make the socket's directory")?;
    let hidden = directory.join(format!(".brigd-{}.sock", std::process::id()));
    let _ = fs::remove_file(&hidden);
    let listener = UnixListener::bind(&hidden).context("bind a socket")?;
    let named = secure(&hidden, group)
        .and_then(|()| fs::rename(&hidden, path).context("put the socket in place"));
    if named.is_err() {
        let _ = fs::remove_file(&hidden);
    }
    named.map(|()| listener)
}

fn is_socket(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type())
}

fn secure(socket: &Path, group: &str) -> Result<()> {
    if let Some(id) = group_id(group) {
        std::os::unix::fs::chown(socket, None, Some(id)).context("give the socket to its group")?;
    }
    fs::set_permissions(socket, Permissions::from_mode(0o660)).context("set the socket's mode")
}

/// The id of a group, from group(5). A daemon's group is local.
fn group_id(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let matches = fields.next() == Some(name);
        let id = fields.nth(1)?.parse().ok()?;
        matches.then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fresh directory that removes itself.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("brigd-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn a_socket_is_closed_to_others_and_a_dead_one_is_replaced() {
        let directory = Directory::new("listen");
        let path = directory.0.join("deep/brig.sock");
        let hosts = [format!("unix://{}", path.display())];
        let bind = || Listeners::bind(&hosts, "no-such-group");
        let first = bind().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let error = bind().err().unwrap();
        assert!(format!("{error:#}").contains("another daemon listens there"), "{error:#}");

        let (listeners, sockets) = first.into_parts();
        drop(listeners);
        // As after a crash: the socket stays, nobody listens.
        std::mem::forget(sockets);
        assert!(path.exists());
        let (_listeners, sockets) = bind().unwrap().into_parts();
        UnixStream::connect(&path).unwrap();
        drop(sockets);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn other_addresses_and_other_files_are_refused() {
        let directory = Directory::new("refuse");
        let file = directory.0.join("file");
        fs::write(&file, "precious").unwrap();
        let in_the_way = format!("unix://{}", file.display());
        for (host, word) in [
            ("tcp://127.0.0.1:2375", "ssh"),
            ("unix://relative", "expected unix:///path"),
            ("/run/x", "expected unix:///path"),
            (in_the_way.as_str(), "listen on"),
        ] {
            let error = Listeners::bind(&[host.to_owned()], "x").err().unwrap();
            assert!(format!("{error:#}").contains(word), "{error:#}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
}
