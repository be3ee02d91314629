//! The Brig shim: keeps one container's stdio, log, terminal and exit status.
//!
//! `containerd-shim-brig-v1 start` forks a process that stays as long as the container: it serves containerd's task API
//! (versions 2 and 3) over ttrpc, owns the container's streams, writes its log, reaps its processes and records how it
//! ended. brigd or containerd may come and go meanwhile.
//!
//! ```text
//! <bundle>/                (brigd: /run/brig/containers/<id>)
//!   config.json            from the caller
//!   shim.pid shim.json     this shim, and how its runtime is set up (for `delete`), with a version
//!   cgroup.json            where another runtime program put the container
//!   shim.sock io.sock      task API and stdio, brigd only (containerd: /run/containerd/s/<hash>)
//!   exit.json              how the container ended, durable before anybody is told
//!   log | shim.log         what the shim has to say about itself
//! ```
//!
//! One process, one thread, an epoll loop ([`server`]); slow work runs in short-lived forked children ([`operation`]),
//! which is also what keeps the memory of a waiting shim small.
#![forbid(unsafe_code)]

mod arguments;
mod client;
mod connection;
mod diagnostics;
mod external;
mod group;
mod identity;
mod info;
mod kernel_log;
mod log;
mod logger;
mod metrics;
mod operation;
mod outbox;
mod poller;
mod process;
mod ring;
mod runtime;
mod server;
mod start;
mod stdio;
mod tail;
mod timers;

use std::io::Write;
use std::process::ExitCode;

use arguments::{Action, Arguments};
use start::Environment;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "containerd-shim-brig-v1: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    #[cfg(feature = "failpoints")]
    if let Some(directory) = std::env::var_os("BRIG_FAILPOINTS") {
        brig_failpoint::configure(directory.into());
    }
    let arguments = Arguments::parse(std::env::args_os().skip(1))?;
    let environment = Environment::read(|name| std::env::var_os(name));
    match arguments.action {
        Action::Start => {
            // Containers' processes are clones of the shim until they exec (CVE-2019-5736).
            brig_runtime::seal_executable(std::env::args_os(), std::env::vars_os())?;
            start::start(arguments, environment)
        }
        Action::Delete => start::delete(&arguments, &environment),
        Action::Version => start::version(),
        Action::Info => info::info(),
    }
}
