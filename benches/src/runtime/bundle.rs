//! The bundle that every runtime gets: `spec`'s configuration around busybox, without a terminal.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use support::engine::busybox;

/// A root filesystem and the configurations over it.
#[derive(Debug)]
pub(super) struct Bundle {
    directory: PathBuf,
    config: Value,
}

impl Bundle {
    /// Makes it with `runtime spec`.
    pub(super) fn make(directory: &Path, runtime: &Path) -> Result<Self> {
        let bundle = Self { directory: directory.to_owned(), config: Value::Null };
        let rootfs = bundle.rootfs();
        for name in ["bin", "dev", "proc", "sys"] {
            fs::create_dir_all(rootfs.join(name)).context("make a root filesystem")?;
        }
        let program = busybox().context("busybox-static is not installed")?;
        fs::copy(program, rootfs.join("bin/busybox")).context("copy busybox")?;
        for name in ["true", "sleep"] {
            symlink("busybox", rootfs.join("bin").join(name)).context("link busybox's applets")?;
        }
        crate::peers::quiet(Command::new(runtime).args(["spec", "--bundle"]).arg(directory))?;
        let path = directory.join("config.json");
        let text = fs::read(&path).context("read spec's configuration")?;
        let mut config: Value = serde_json::from_slice(&text).context("parse it")?;
        // Older runtimes refuse a version that they do not know; nothing in the configuration is newer than this one.
        config["ociVersion"] = json!("1.0.2");
        config["process"]["terminal"] = json!(false);
        config["root"]["path"] = json!(rootfs);
        let bundle = Self { config, ..bundle };
        bundle.write("true", &["/bin/true"], None)?;
        bundle.write("sleep", &["/bin/sleep", "100000"], None)?;
        Ok(bundle)
    }

    /// The directory of the configuration called `name`: `true` or `sleep`, or another that was written.
    pub(super) fn named(&self, name: &str) -> PathBuf {
        self.directory.join("bundles").join(name)
    }

    /// Writes a configuration that runs `words`, with a memory limit in bytes.
    pub(super) fn write(&self, name: &str, words: &[&str], memory: Option<u64>) -> Result<()> {
        let mut config = self.config.clone();
        config["process"]["args"] = json!(words);
        if let Some(bytes) = memory {
            config["linux"]["resources"]["memory"] = json!({"limit": bytes});
        }
        let directory = self.named(name);
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(directory.join("config.json"), config.to_string()))
            .context("write a configuration")
    }

    /// The root filesystem.
    pub(super) fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }
}
