//! A bundle, and the program on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_brig-runtime");
const BUSYBOX: &str = "/bin/busybox";

/// A bundle with busybox in it, and the state of the containers that are made from it.
pub(crate) struct Bundle {
    pub(crate) directory: PathBuf,
    pub(crate) id: String,
    user: Option<User>,
}

/// Who calls the program instead of root.
struct User {
    /// The program, where the user can reach it.
    program: PathBuf,
    /// Shell commands of root, in a mount namespace of the caller's, before each call.
    preparation: String,
}

/// A user and group that own nothing on this machine.
pub(crate) const USER: u32 = 48_123;

impl Bundle {
    pub(crate) fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new(BUSYBOX).exists() {
            eprintln!("SKIPPED {test}: needs root and /bin/busybox (Debian's busybox-static)");
            return None;
        }
        let id = format!("brig-cli-{test}-{}", std::process::id());
        let directory = std::env::temp_dir().join(&id);
        for name in ["bin", "dev", "proc", "sys"] {
            std::fs::create_dir_all(directory.join("rootfs").join(name)).unwrap();
        }
        std::fs::copy(BUSYBOX, directory.join("rootfs/bin/busybox")).unwrap();
        for name in ["sh", "sleep", "cat", "env", "ls", "true"] {
            let link = directory.join("rootfs/bin").join(name);
            std::os::unix::fs::symlink("busybox", link).unwrap();
        }
        let bundle = Self { directory, id, user: None };
        assert!(bundle.call(&["spec", "-b", &bundle.path()]).status.success());
        bundle.edit(|config| {
            config["process"]["terminal"] = json!(false);
            config["linux"]["cgroupsPath"] = json!(format!("/{}", bundle.id));
        });
        Some(bundle)
    }

    /// A bundle that belongs to [`USER`], who also makes all calls, with the configuration of `spec --rootless`.
    pub(crate) fn rootless(test: &str) -> Option<Self> {
        let mut bundle = Self::new(test)?;
        let program = bundle.directory.join("brig-runtime");
        std::fs::copy(PROGRAM, &program).unwrap();
        std::fs::remove_file(bundle.directory.join("config.json")).unwrap();
        std::fs::create_dir(bundle.directory.join("run")).unwrap();
        let owner = format!("{USER}:{USER}");
        let chown = Command::new("chown").args(["-R", &owner]).arg(&bundle.directory).status();
        assert!(chown.unwrap().success());
        bundle.user = Some(User { program, preparation: String::new() });
        let made = bundle.call(&["spec", "--rootless", "-b", &bundle.path()]);
        assert!(made.status.success(), "{made:?}");
        bundle.edit(|config| config["process"]["terminal"] = json!(false));
        Some(bundle)
    }

    /// Has root run these shell commands before each call, in a mount namespace of the call's own.
    pub(crate) fn prepare(&mut self, commands: &str) {
        if let Some(user) = &mut self.user {
            user.preparation.push_str(commands);
            user.preparation.push('\n');
        }
    }

    /// A program with arguments, as whoever calls.
    pub(crate) fn called(&self, program: &Path) -> Command {
        let Some(user) = &self.user else { return Command::new(program) };
        let mut command = Command::new("unshare");
        let become_user = format!(
            "set -e\n{}exec setpriv --reuid {USER} --regid {USER} --clear-groups \"$@\"",
            user.preparation
        );
        command.args(["--mount", "sh", "-c", &become_user, "sh"]).arg(program);
        command
            .env("XDG_RUNTIME_DIR", self.directory.join("run"))
            .env_remove("DBUS_SESSION_BUS_ADDRESS");
        command
    }

    /// Makes further applets of busybox.
    pub(crate) fn link(&self, names: &[&str]) {
        for name in names {
            let link = self.directory.join("rootfs/bin").join(name);
            std::os::unix::fs::symlink("busybox", link).unwrap();
        }
    }

    pub(crate) fn path(&self) -> String {
        self.directory.display().to_string()
    }

    pub(crate) fn edit(&self, change: impl FnOnce(&mut Value)) {
        let path = self.directory.join("config.json");
        let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(path, config.to_string()).unwrap();
    }

    pub(crate) fn script(&self, script: &str) {
        self.edit(|config| config["process"]["args"] = json!(["sh", "-c", script]));
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let program = self.user.as_ref().map_or_else(|| Path::new(PROGRAM), |user| &user.program);
        let mut command = self.called(program);
        // A user's state is below the runtime directory, which is in the bundle.
        if self.user.is_none() {
            command.arg("--root").arg(self.directory.join("state"));
        }
        command.args(arguments);
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn run(&self) -> Output {
        self.call(&["run", "-b", &self.path(), &self.id])
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.call(&["delete", "-f", &self.id]);
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}
