//! Runs one untrusted command on a read-only root filesystem: no network, no capabilities, another user's ids, 64 MiB, 32
//! processes, and only the system calls below.
//!
//! ```text
//! cargo run -p sandbox -- ROOTFS COMMAND...
//! ```
use std::error::Error;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use brig_runtime::{ContainerId, CreateOptions, Runtime, Stdio, pidfd};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let rootfs = std::path::absolute(arguments.next().ok_or("usage: sandbox ROOTFS COMMAND...")?)?;
    let mut config: serde_json::Value = serde_json::from_str(include_str!("../config.json"))?;
    config["root"]["path"] = rootfs.to_str().ok_or("the path is not UTF-8")?.into();
    config["process"]["args"] = arguments.collect();
    let bundle = tempfile::tempdir()?;
    std::fs::write(bundle.path().join("config.json"), config.to_string())?;

    let runtime = Runtime::new(bundle.path().join("state"));
    let id = ContainerId::parse(&format!("sandbox-{}", std::process::id()))?;
    let stdout = Some(std::io::stdout().as_fd().try_clone_to_owned()?);
    let stderr = Some(std::io::stderr().as_fd().try_clone_to_owned()?);
    let options =
        CreateOptions { stdio: Stdio { stdin: None, stdout, stderr }, ..Default::default() };
    let created = runtime.create(&id, bundle.path(), options)?;
    created.container.start()?;
    let exit = pidfd::wait_child(created.pidfd.as_fd())?;
    created.container.delete(true)?;
    Ok(ExitCode::from(u8::try_from(exit.status())?))
}
