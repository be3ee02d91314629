//! Runs an OCI bundle: creates the container, starts it, executes a second process in it, waits for both, deletes it.
//!
//! ```text
//! cargo run -p embed-runtime -- BUNDLE [COMMAND...]
//! ```
//!
//! As root; the exit code is the container's. `brig-runtime spec` writes a `config.json` to begin with.
#![expect(clippy::print_stdout, reason = "a program's output")]

use std::error::Error;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;

use brig_runtime::{ContainerId, CreateOptions, ExecOptions, Runtime, Stdio, pidfd};
use serde_json::json;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    // A container must not be able to overwrite this program.
    brig_runtime::seal_executable(std::env::args_os(), std::env::vars_os())?;
    let mut arguments = std::env::args().skip(1);
    let bundle = arguments.next().ok_or("usage: embed-runtime BUNDLE [COMMAND...]")?;
    let command: Vec<String> = arguments.collect();

    let runtime = Runtime::new("/run/embed-runtime".into());
    let id = ContainerId::parse(&format!("example-{}", std::process::id()))?;
    let options = CreateOptions { stdio: own_output()?, ..CreateOptions::default() };
    let created = runtime.create(&id, Path::new(&bundle), options)?;
    println!("created {} with process {}", created.container.id(), created.pid);
    created.container.start()?;

    if !command.is_empty() {
        let process = serde_json::from_value(json!({
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": command, "env": ["PATH=/usr/bin:/bin"],
        }))?;
        let options = ExecOptions { stdio: own_output()?, ..ExecOptions::default() };
        let executed = created.container.exec(&process, options)?;
        println!("executed: {:?}", pidfd::wait_child(executed.pidfd.as_fd())?);
    }

    let exit = pidfd::wait_child(created.pidfd.as_fd())?;
    println!("ended: {exit:?}");
    created.container.delete(false)?;
    Ok(ExitCode::from(u8::try_from(exit.status())?))
}

/// This program's own standard output and error; nothing to read.
fn own_output() -> Result<Stdio, Box<dyn Error>> {
    Ok(Stdio {
        stdin: None,
        stdout: Some(std::io::stdout().as_fd().try_clone_to_owned()?),
        stderr: Some(std::io::stderr().as_fd().try_clone_to_owned()?),
    })
}
