//! The one definition of the command line, from which help, completions and man pages are made, and the parsers of
//! docker's flag syntax.

pub(crate) mod container;
pub(crate) mod environment;
pub(crate) mod health;
pub(crate) mod mount;
pub(crate) mod port;
pub(crate) mod resources;
pub(crate) mod size;
pub(crate) mod time;

use std::path::PathBuf;

use brig_engine_api::Filters;
use clap::Parser;

use crate::commands::Command;

/// An engine for containers
#[derive(Debug, Parser)]
#[command(
    name = "brig",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    infer_long_args = false
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What stands before the command.
#[derive(Debug, clap::Args)]
pub(crate) struct Globals {
    /// The daemon to talk to: unix:///path or tcp://host:port [default: unix:///run/brig/brig.sock]
    #[arg(short = 'H', long, env = "BRIG_HOST", hide_env_values = true, value_name = "URL")]
    pub(crate) host: Option<String>,
    /// Directory of config.json with credentials [default: ~/.docker]
    #[arg(long, env = "BRIG_CONFIG", hide_env_values = true, value_name = "DIR")]
    pub(crate) config: Option<PathBuf>,
    /// Show every cause of an error on a line of its own
    #[arg(short = 'D', long)]
    pub(crate) debug: bool,
}

/// `KEY=VALUE` conditions of `--filter`.
pub(crate) fn filters(conditions: &[String]) -> anyhow::Result<Filters> {
    let mut filters = Filters::new();
    for condition in conditions {
        let Some((name, value)) = condition.split_once('=') else {
            anyhow::bail!("invalid filter {condition:?}: expected NAME=VALUE");
        };
        filters.add(name.trim().to_lowercase(), value.trim());
    }
    Ok(filters)
}

/// `KEY=VALUE` pairs, where a missing `=` means an empty value.
pub(crate) fn pairs(values: &[String]) -> std::collections::HashMap<String, String> {
    values
        .iter()
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_after_the_image_belongs_to_the_container() {
        let cli =
            Cli::parse_from(["brig", "run", "-it", "--rm", "busybox", "ls", "-d", "--rm", "/"]);
        let text = format!("{:?}", cli.command);
        assert!(text.contains(r#"["busybox", "ls", "-d", "--rm", "/"]"#), "{text}");
    }

    #[test]
    fn filters_need_a_value() {
        assert!(filters(&["status".to_owned()]).is_err());
        let parsed = filters(&["status=exited".to_owned(), "label=a=b".to_owned()]).unwrap();
        assert_eq!(parsed.values("label"), ["a=b"]);
    }
}
