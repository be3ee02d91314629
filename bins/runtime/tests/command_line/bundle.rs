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
}

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
        let bundle = Self { directory, id };
        assert!(bundle.call(&["spec", "-b", &bundle.path()]).status.success());
        bundle.edit(|config| {
            config["process"]["terminal"] = json!(false);
            config["linux"]["cgroupsPath"] = json!(format!("/{}", bundle.id));
        });
        Some(bundle)
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
        let mut command = Command::new(PROGRAM);
        command.arg("--root").arg(self.directory.join("state")).args(arguments);
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
