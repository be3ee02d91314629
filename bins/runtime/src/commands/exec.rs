//! `exec`

use std::os::fd::AsFd as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use brig_runtime::{Console, ContainerId, ExecOptions};
use lexopt::{Arg, Parser, ValueExt as _};
use oci_spec::runtime::Process;

use super::Command;
use crate::arguments::{self, Global, switch};
use crate::console::Foreground;
use crate::log;

/// The flags.
#[derive(Debug, Default)]
struct Request {
    process: Option<PathBuf>,
    command: Vec<String>,
    environment: Vec<String>,
    cwd: Option<String>,
    user: Option<String>,
    additional_gids: Vec<u32>,
    capabilities: Vec<String>,
    apparmor: Option<String>,
    process_label: Option<String>,
    no_new_privileges: bool,
    terminal: bool,
    detach: bool,
    console_socket: Option<PathBuf>,
    pidfd_socket: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    preserve_fds: u32,
    cgroups: Vec<(Vec<String>, PathBuf)>,
    ignore_paused: bool,
}

pub(super) const COMMAND: Command = Command {
    name: "exec",
    summary: "run a further process in a container",
    usage: " ID COMMAND [ARGUMENTS] | --process FILE ID",
    flags: &[&[
        ("--console-socket PATH", "a Unix socket that gets the master side of the terminal"),
        ("--pidfd-socket PATH", "a Unix socket that gets a descriptor of the process"),
        ("--cwd DIR", "working directory in the container"),
        ("-e, --env NAME=VALUE", "add to the environment"),
        ("-t, --tty", "give it a terminal"),
        ("-u, --user UID[:GID]", "whom it runs as"),
        ("-g, --additional-gids GID", "a further group"),
        ("-p, --process FILE", "a process as config.json describes it, instead of other flags"),
        ("-d, --detach", "do not wait for its end"),
        ("--pid-file FILE", "write its number there"),
        ("--process-label LABEL", "its SELinux label"),
        ("--apparmor PROFILE", "its AppArmor profile"),
        ("--no-new-privs", "no privileges from setuid programs"),
        ("-c, --cap NAME", "add a capability"),
        ("--preserve-fds N", "pass on N descriptors after standard error (default: 0)"),
        ("--cgroup [CONTROLLERS:]PATH", "a cgroup below the container's to run in"),
        ("--ignore-paused", "also in a paused container"),
        ("--no-subreaper", "accepted for compatibility"),
    ]],
    run,
};

fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let (id, request) = parse(parser)?;
    // runc answers 255 when the process could not be started at all.
    match execute(global, &id, request) {
        Ok(code) => Ok(code),
        Err(error) => {
            log::error(global, &format!("{error:#}"));
            Ok(255)
        }
    }
}

fn execute(global: &Global, id: &ContainerId, request: Request) -> anyhow::Result<u8> {
    brig_runtime::check_preserved(request.preserve_fds)?;
    super::run::seal()?;
    let container = global.runtime().container(id)?;
    let process = match &request.process {
        Some(path) => {
            let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
            serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))?
        }
        None => merge(global, container.spec()?.process().clone().unwrap_or_default(), &request)?,
    };
    let terminal = process.terminal().unwrap_or(false);
    let console = match (&request.console_socket, request.detach) {
        (Some(path), _) => Console::Socket(path.clone()),
        (None, false) if terminal => Console::Return,
        _ => Console::None,
    };
    let options = ExecOptions {
        console,
        pidfd_socket: request.pidfd_socket,
        pid_file: request.pid_file,
        preserve_fds: request.preserve_fds,
        cgroups: request.cgroups,
        ignore_paused: request.ignore_paused,
        ..ExecOptions::default()
    };
    if request.detach {
        container.exec(&process, options)?;
        return Ok(0);
    }
    let foreground = Foreground::prepare()?;
    let exec = container.exec(&process, options)?;
    foreground.wait(exec.pidfd.as_fd(), exec.console.as_ref())
}

fn parse(parser: &mut Parser) -> anyhow::Result<(ContainerId, Request)> {
    let mut request = Request::default();
    while let Some(argument) = arguments::next(parser)? {
        match argument {
            Arg::Long("process") | Arg::Short('p') => {
                request.process = Some(parser.value()?.into());
            }
            Arg::Long("env") | Arg::Short('e') => {
                request.environment.push(parser.value()?.string()?);
            }
            Arg::Long("cwd") => request.cwd = Some(parser.value()?.string()?),
            Arg::Long("user") | Arg::Short('u') => request.user = Some(parser.value()?.string()?),
            Arg::Long("additional-gids") | Arg::Short('g') => {
                request.additional_gids.push(parser.value()?.parse()?);
            }
            Arg::Long("cap") | Arg::Short('c') => {
                request.capabilities.push(parser.value()?.string()?);
            }
            Arg::Long("apparmor") => request.apparmor = Some(parser.value()?.string()?),
            Arg::Long("process-label") => request.process_label = Some(parser.value()?.string()?),
            Arg::Long("console-socket") => request.console_socket = Some(parser.value()?.into()),
            Arg::Long("pidfd-socket") => request.pidfd_socket = Some(parser.value()?.into()),
            Arg::Long("pid-file") => request.pid_file = Some(parser.value()?.into()),
            Arg::Long("preserve-fds") => request.preserve_fds = parser.value()?.parse()?,
            Arg::Long("cgroup") => request.cgroups.push(sub_cgroup(&parser.value()?.string()?)),
            Arg::Long("no-new-privs") => request.no_new_privileges = switch(parser)?,
            Arg::Long("tty") | Arg::Short('t') => request.terminal = switch(parser)?,
            Arg::Long("detach") | Arg::Short('d') => request.detach = switch(parser)?,
            Arg::Long("ignore-paused") => request.ignore_paused = switch(parser)?,
            Arg::Long("no-subreaper") => drop(switch(parser)?),
            Arg::Value(value) => {
                // Everything after the id is the command, flags included.
                for part in parser.raw_args()? {
                    request.command.push(part.string()?);
                }
                if request.command.first().is_some_and(|first| first == "--") {
                    request.command.remove(0);
                }
                return Ok((arguments::id(Some(value))?, request));
            }
            other => return Err(other.unexpected().into()),
        }
    }
    bail!("a container id is missing")
}

/// `[CONTROLLER,...:]PATH`
fn sub_cgroup(text: &str) -> (Vec<String>, PathBuf) {
    match text.split_once(':') {
        Some((controllers, path)) => {
            (controllers.split(',').map(ToOwned::to_owned).collect(), path.into())
        }
        None => (Vec::new(), text.into()),
    }
}

/// The container's own process with what the flags change.
fn merge(global: &Global, mut process: Process, request: &Request) -> anyhow::Result<Process> {
    if request.command.is_empty() {
        bail!("a command or --process is missing");
    }
    process.set_args(Some(request.command.clone()));
    process.set_terminal(Some(request.terminal));
    if let Some(cwd) = &request.cwd {
        process.set_cwd(cwd.into());
    }
    let mut environment = process.env().clone().unwrap_or_default();
    environment.extend(request.environment.iter().cloned());
    process.set_env(Some(environment));
    if let Some(user) = &request.user {
        let (uid, gid) = user.split_once(':').map_or((user.as_str(), None), |(u, g)| (u, Some(g)));
        let number = |text: &str| text.parse().with_context(|| format!("user {user:?}"));
        process.user_mut().set_uid(number(uid)?);
        if let Some(gid) = gid {
            process.user_mut().set_gid(number(gid)?);
        }
    }
    if !request.additional_gids.is_empty() {
        let mut groups = process.user().additional_gids().clone().unwrap_or_default();
        groups.extend(&request.additional_gids);
        process.user_mut().set_additional_gids(Some(groups));
    }
    if request.no_new_privileges {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(profile) = &request.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &request.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    add_capabilities(global, &mut process, &request.capabilities);
    Ok(process)
}

/// Adds to the bounding, effective and permitted sets, as runc does; never to the inheritable one (CVE-2022-29162).
fn add_capabilities(global: &Global, process: &mut Process, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let mut sets = process.capabilities().clone().unwrap_or_default();
    for name in names {
        let value = serde_json::Value::String(name.clone());
        let Ok(capability) = serde_json::from_value::<oci_spec::runtime::Capability>(value) else {
            // Scripts name capabilities of newer kernels too; runc goes on without them.
            log::warning(
                global,
                &format!("--cap {name:?} is ignored: there is no such capability"),
            );
            continue;
        };
        let with = |set: &Option<oci_spec::runtime::Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        sets.set_bounding(with(sets.bounding()));
        sets.set_effective(with(sets.effective()));
        sets.set_permitted(with(sets.permitted()));
    }
    process.set_capabilities(Some(sets));
}
