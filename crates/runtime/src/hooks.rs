//! Hooks: programs of the host that the configuration names, at points of the container's life.

use std::ffi::CString;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use brig_linux::process::Strings;
use oci_spec::runtime::{Hook, Hooks};

use crate::error::{Error, ErrorKind, Result};
use crate::process::plan::ChildHook;

/// Checks a hook's path and timeout.
fn check(hook: &Hook, kind: &str) -> Result<()> {
    let path = hook.path();
    let invalid = |what: &str| {
        let attempt = format!("hooks.{kind}: {}: {what}", path.display());
        Err(Error::new(ErrorKind::InvalidInput, attempt))
    };
    if !path.is_absolute() {
        return invalid("the path is not absolute");
    }
    if hook.timeout().is_some_and(|seconds| seconds <= 0) {
        return invalid("the timeout is not positive");
    }
    Ok(())
}

/// The hooks of a configuration by the point of the container's life at which they run, in its order.
pub(crate) fn kinds(hooks: &Hooks) -> [(&'static str, &[Hook]); 6] {
    let prestart = hooks.prestart();
    [
        ("prestart", prestart),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ]
    .map(|(name, hooks)| (name, hooks.as_deref().unwrap_or_default()))
}

/// Checks the hooks of a configuration, of which each point may have `most`.
pub(crate) fn validate(hooks: &Hooks, most: usize) -> Result<()> {
    for (kind, hooks) in kinds(hooks) {
        if hooks.len() > most {
            let text =
                format!("hooks.{kind} has {} entries, at most {most} are allowed", hooks.len());
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        hooks.iter().try_for_each(|hook| check(hook, kind))?;
    }
    Ok(())
}

/// Prepares hooks that init runs.
pub(crate) fn prepare(hooks: &[Hook], kind: &str) -> Result<Vec<ChildHook>> {
    let strings = |texts: &[String]| {
        texts
            .iter()
            .map(|text| CString::new(text.as_str()))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map(Strings::new)
            .map_err(|_| {
                let attempt = format!("hooks.{kind} contains a zero byte");
                Error::new(ErrorKind::InvalidInput, attempt)
            })
    };
    hooks
        .iter()
        .map(|hook| {
            check(hook, kind)?;
            let path = hook.path().to_string_lossy().into_owned();
            let own_name = vec![path.clone()];
            Ok(ChildHook {
                path: CString::new(path).map_err(|_| {
                    Error::new(ErrorKind::InvalidInput, "the path of a hook has a zero byte")
                })?,
                arguments: strings(hook.args().as_ref().unwrap_or(&own_name))?,
                environment: strings(hook.env().as_deref().unwrap_or_default())?,
                timeout_seconds: hook.timeout(),
            })
        })
        .collect()
}

/// Runs hooks in the caller's namespaces, one after the other, with the OCI state on their standard input.
///
/// # Errors
/// The first that fails, with what it wrote to standard error.
pub(crate) fn run(hooks: &[Hook], kind: &str, state: &[u8]) -> Result<()> {
    hooks.iter().try_for_each(|hook| {
        run_one(hook, state)
            .map_err(|error| error.context(format!("{kind} hook {:?}", hook.path())))
    })
}

fn run_one(hook: &Hook, state: &[u8]) -> Result<()> {
    let mut command = Command::new(hook.path());
    if let Some((name, arguments)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(arguments);
    }
    command.env_clear();
    for variable in hook.env().iter().flatten() {
        if let Some((name, value)) = variable.split_once('=') {
            command.env(name, value);
        }
    }
    let errors = rustix::fs::memfd_create(c"hook-stderr", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|errno| Error::system("make a file for its output", errno))?;
    let output = errors.try_clone().map_err(|source| Error::system("share its output", source))?;
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::from(output));
    let mut child = command.spawn().map_err(|source| Error::system("start it", source))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read its state closes the pipe, which is its own affair.
        let _ = stdin.write_all(state);
    }
    let timeout = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok());
    let pid = i32::try_from(child.id()).unwrap_or(0);
    let pidfd = brig_linux::pidfd::open(pid)?;
    let timeout = timeout.map(Duration::from_secs);
    let ended = brig_linux::pidfd::wait_end(std::os::fd::AsFd::as_fd(&pidfd), timeout)?;
    if !ended {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|source| Error::system("wait for it", source))?;
    if !ended {
        let seconds = timeout.unwrap_or_default().as_secs();
        return Err(Error::new(ErrorKind::Io, format!("killed at its timeout of {seconds} s")));
    }
    if status.success() {
        return Ok(());
    }
    let mut words = [0; 1024];
    let length = rustix::io::pread(&errors, &mut words, 0).unwrap_or(0);
    let words = String::from_utf8_lossy(&words[..length]);
    Err(Error::new(ErrorKind::Io, format!("{status}, stderr: {:?}", words.trim_end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<i64>) -> Hook {
        serde_json::from_value(serde_json::json!({
            "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["A=b"], "timeout": timeout
        }))
        .unwrap()
    }

    #[test]
    fn a_hook_gets_its_state_and_environment() {
        run(&[hook("test \"$(cat)\" = state && test $A = b", None)], "prestart", b"state").unwrap();
    }

    #[test]
    fn failure_and_timeout_are_told_apart() {
        let error = run(&[hook("echo why >&2; exit 3", None)], "poststop", b"").unwrap_err();
        let text = error.chain();
        assert!(text.contains("exit status: 3") && text.contains("why"), "{text}");
        let error = run(&[hook("exec sleep 60", Some(1))], "poststop", b"").unwrap_err();
        assert!(error.chain().contains("timeout"), "{}", error.chain());
    }
}
