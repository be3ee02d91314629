//! From a configured process to the plan of one.

use std::ffi::CString;

use brig_linux::process::Strings;
use oci_spec::runtime::{LinuxSeccomp, Process};

use crate::container::Stdio;
use crate::error::{Error, ErrorKind, Result};
use crate::process::agent::AgentPlan;
use crate::process::plan::{ProcessPlan, TerminalPlan};
use crate::security::placement::MemoryPolicy;
use crate::security::seccomp::{self, Program};
use crate::security::{capabilities, lsm, scheduling};

/// The search path of a process that has none in its environment.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The most bytes of arguments and environment together; the kernel's own limit is a quarter of the stack limit.
const STRINGS_MAX: usize = 8 << 20;

/// What a process has besides its configuration.
#[derive(Debug, Default)]
pub(crate) struct ProcessContext<'a> {
    pub(crate) seccomp: Option<&'a LinuxSeccomp>,
    pub(crate) stdio: Stdio,
    pub(crate) preserve_fds: u32,
    pub(crate) listen_fds: u32,
    /// The user namespace does not let the process change its groups.
    pub(crate) keep_groups: bool,
    pub(crate) keyring: Option<String>,
    pub(crate) personality: Option<libc::c_ulong>,
    pub(crate) memory_policy: Option<MemoryPolicy>,
}

/// Prepares a process.
///
/// # Errors
/// `InvalidInput` or `Unsupported`, naming the field.
pub(crate) fn prepare(process: &Process, context: ProcessContext<'_>) -> Result<ProcessPlan> {
    let arguments = process.args().as_deref().unwrap_or_default();
    let environment = process.env().as_deref().unwrap_or_default();
    let Some(program) = arguments.first().filter(|program| !program.is_empty()) else {
        return Err(invalid("process.args is empty"));
    };
    let size: usize = arguments.iter().chain(environment).map(String::len).sum();
    if size > STRINGS_MAX {
        return Err(invalid("process.args and process.env are larger than 8 MiB"));
    }
    if !process.cwd().is_absolute() {
        return Err(invalid("process.cwd is not an absolute path"));
    }
    let user = process.user();
    for (given, field) in [
        (process.command_line(), "process.commandLine"),
        (user.username(), "process.user.username"),
    ] {
        if given.as_ref().is_some_and(|text| !text.is_empty()) {
            let text = format!("{field} is for another platform than Linux");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
    }
    let groups = user.additional_gids().iter().flatten();
    if context.keep_groups && groups.clone().next().is_some() {
        return Err(invalid(
            "process.user.additionalGids in a user namespace that denies setgroups",
        )
        .with_advice("without root, map groups of /etc/subgid by linux.gidMappings"));
    }
    let terminal = process.terminal().unwrap_or(false).then(|| {
        let size = process.console_size().map(|size| {
            let number = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
            (number(size.height()), number(size.width()))
        });
        TerminalPlan { size }
    });
    let seccomp = context.seccomp.map(seccomp::compile).transpose()?;
    let agent = seccomp.as_ref().and_then(Program::listener).map(AgentPlan::connect);
    let Stdio { stdin, stdout, stderr } = context.stdio;
    Ok(ProcessPlan {
        candidates: candidates(program, environment)?,
        arguments: strings(arguments, "process.args")?,
        environment: strings(&with_listen_fds(environment, context.listen_fds), "process.env")?,
        cwd: c_string(&process.cwd().to_string_lossy(), "process.cwd")?,
        uid: checked_id(user.uid(), "process.user.uid")?,
        gid: checked_id(user.gid(), "process.user.gid")?,
        groups: groups
            .map(|gid| {
                checked_id(*gid, "process.user.additionalGids").map(rustix::fs::Gid::from_raw)
            })
            .collect::<Result<_>>()?,
        keep_groups: context.keep_groups,
        umask: user.umask().unwrap_or(0o022),
        capabilities: capabilities::parse(process.capabilities().as_ref()),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        agent: agent.transpose()?,
        seccomp,
        label: lsm::prepare(process)?,
        keyring: context.keyring.map(|name| c_string(&name, "keyring")).transpose()?,
        personality: context.personality,
        scheduler: process.scheduler().as_ref().map(scheduling::scheduler).transpose()?,
        io_priority: process.io_priority().as_ref().map(scheduling::io_priority).transpose()?,
        memory_policy: context.memory_policy,
        terminal,
        stdio: [stdin, stdout, stderr],
        preserve_fds: context.preserve_fds,
    })
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

/// The program is the first of its PID namespace, or is told a number that cannot be its own and ignores the sockets,
/// as with every other runtime.
fn with_listen_fds(environment: &[String], count: u32) -> Vec<String> {
    let mut environment = environment.to_vec();
    if count > 0 {
        environment.extend([format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()]);
    }
    environment
}

/// The highest number means "no change" to the kernel and is no id.
fn checked_id(id: u32, field: &str) -> Result<u32> {
    if id == u32::MAX { Err(invalid(format!("{field} is {id}"))) } else { Ok(id) }
}

fn c_string(text: &str, field: &str) -> Result<CString> {
    CString::new(text).map_err(|_| invalid(format!("{field} contains a zero byte")))
}

fn strings(texts: &[String], field: &str) -> Result<Strings> {
    let strings: Result<Vec<_>> = texts.iter().map(|text| c_string(text, field)).collect();
    strings.map(Strings::new)
}

/// Where the program may be: as given when it has a slash, otherwise in each directory of its own PATH.
fn candidates(program: &str, environment: &[String]) -> Result<Vec<CString>> {
    if program.contains('/') {
        return Ok(vec![c_string(program, "process.args")?]);
    }
    let path = environment.iter().rev().find_map(|variable| variable.strip_prefix("PATH="));
    path.unwrap_or(DEFAULT_PATH)
        .split(':')
        .map(|directory| {
            let directory = if directory.is_empty() { "." } else { directory };
            c_string(&format!("{directory}/{program}"), "process.args")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_in_their_own_path() {
        let environment = ["PATH=/a:/b".to_owned()];
        assert_eq!(
            candidates("x", &environment).unwrap(),
            [c"/a/x".to_owned(), c"/b/x".to_owned()]
        );
        assert_eq!(candidates("./x", &environment).unwrap(), [c"./x".to_owned()]);
        assert_eq!(candidates("x", &[]).unwrap().len(), 6);
    }

    #[test]
    fn contradictions_are_named() {
        let refused = |text: &str| {
            let process: Process = serde_json::from_str(text).unwrap();
            prepare(&process, ProcessContext::default()).unwrap_err().to_string()
        };
        let user = r#""user":{"uid":0,"gid":0}"#;
        assert!(refused(&format!(r#"{{"cwd":"/",{user}}}"#)).contains("process.args"));
        assert!(refused(&format!(r#"{{"cwd":"x","args":["a"],{user}}}"#)).contains("cwd"));
        let text = r#"{"cwd":"/","args":["a"],"user":{"uid":4294967295,"gid":0}}"#;
        assert!(refused(text).contains("uid"));
    }
}
