//! The command line that containerd's shim contract prescribes: Go's flags (one or two dashes), then an action.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// What was asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// containerd's namespace; `brig` under brigd.
    pub(crate) namespace: String,
    /// Container id.
    pub(crate) id: String,
    /// containerd's gRPC address.
    pub(crate) address: String,
    /// Program that publishes events where ttrpc does not.
    pub(crate) publish_binary: String,
    /// Bundle directory, when it is not the working directory.
    pub(crate) bundle: Option<PathBuf>,
    /// Say more in the shim's own log.
    pub(crate) debug: bool,
    /// What to do.
    pub(crate) action: Action,
}

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a shim in the background and print how to reach it.
    #[default]
    Start,
    /// Remove what a dead shim left and print how the container ended.
    Delete,
    /// Print the version.
    Version,
    /// Print a `RuntimeInfo`.
    Info,
}

impl Arguments {
    /// Parses the arguments that follow the program's name.
    pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self> {
        let mut parsed = Self::default();
        let mut action = None;
        let mut rest = arguments;
        while let Some(argument) = rest.next() {
            let text = argument.to_str().context("an argument is not UTF-8")?;
            let Some(flag) = text.strip_prefix("--").or_else(|| text.strip_prefix('-')) else {
                if action.is_none() {
                    action = Some(parse_action(text)?);
                }
                continue;
            };
            let (name, attached) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            match name {
                "debug" => parsed.debug = attached.as_deref() != Some("false"),
                "v" | "version" => action = Some(Action::Version),
                "info" => action = Some(Action::Info),
                _ => {
                    let value = match attached {
                        Some(value) => value,
                        None => rest
                            .next()
                            .and_then(|value| value.into_string().ok())
                            .with_context(|| format!("flag -{name} needs a value"))?,
                    };
                    parsed.set(name, value)?;
                }
            }
        }
        parsed.action = action.context("say what to do: start or delete")?;
        Ok(parsed)
    }

    fn set(&mut self, name: &str, value: String) -> Result<()> {
        match name {
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "address" => self.address = value,
            "publish-binary" => self.publish_binary = value,
            "bundle" => self.bundle = Some(value.into()).filter(|path: &PathBuf| path != ""),
            // Understood for the contract's sake: the socket is ours to choose.
            "socket" | "debug-socket" => {}
            _ => bail!("unknown flag -{name}"),
        }
        Ok(())
    }
}

fn parse_action(text: &str) -> Result<Action> {
    match text {
        "start" => Ok(Action::Start),
        "delete" => Ok(Action::Delete),
        _ => bail!("unknown action {text:?}: start or delete"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments> {
        Arguments::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn containerd_1_6_and_2_command_lines_parse() {
        let parsed = parse(&[
            "-namespace",
            "default",
            "-address",
            "/run/containerd/containerd.sock",
            "-publish-binary",
            "/usr/bin/containerd",
            "-id",
            "web",
            "-debug",
            "start",
        ])
        .unwrap();
        assert_eq!((&*parsed.namespace, &*parsed.id, parsed.debug), ("default", "web", true));
        assert_eq!(parsed.action, Action::Start);
        let parsed =
            parse(&["--namespace=k8s.io", "-id", "a", "-bundle", "/run/b", "delete"]).unwrap();
        assert_eq!(parsed.bundle, Some("/run/b".into()));
        assert_eq!(parsed.action, Action::Delete);
        assert_eq!(parse(&["-v"]).unwrap().action, Action::Version);
        assert_eq!(parse(&["--info"]).unwrap().action, Action::Info);
    }

    #[test]
    fn mistakes_are_named() {
        for (arguments, message) in [
            (&["-id"][..], "flag -id needs a value"),
            (&["-colour", "red", "start"], "unknown flag -colour"),
            (&["stop"], "unknown action \"stop\": start or delete"),
            (&["-id", "a"], "say what to do: start or delete"),
        ] {
            assert_eq!(parse(arguments).unwrap_err().to_string(), message);
        }
    }
}
