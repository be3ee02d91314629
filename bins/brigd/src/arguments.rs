//! The command line.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, ValueEnum};
use clap_complete::Shell;

/// Read when it exists and no other is named.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/brig/brigd.toml";

/// The Brig daemon: runs containers and serves the Docker Engine API.
#[derive(Debug, Parser)]
#[command(name = "brigd", version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Durable data: images, volumes, containers [default: /var/lib/brig]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,

    /// Data that a reboot may lose; best on a tmpfs [default: /run/brig]
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// Where to listen; may be given several times [default: systemd's socket, or unix:///run/brig/brig.sock]
    #[arg(short = 'H', long = "host", value_name = "unix://PATH")]
    pub(crate) hosts: Vec<String>,

    /// Settings in TOML [default: /etc/brig/brigd.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Group that may use the socket, if it exists. Its members can become root.
    #[arg(short = 'G', long, value_name = "GROUP", default_value = "brig")]
    pub(crate) group: String,

    /// How much to log
    #[arg(short = 'l', long, value_name = "LEVEL", value_enum, default_value = "info")]
    pub(crate) log_level: LogLevel,

    /// Log at level debug
    #[arg(short = 'D', long)]
    pub(crate) debug: bool,

    /// Write a byte to this descriptor when ready
    #[arg(long, value_name = "FD", hide = true)]
    pub(crate) ready_fd: Option<u32>,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", value_enum, hide = true)]
    pub(crate) completion: Option<Shell>,

    /// Print the manual page and exit
    #[arg(long, hide = true)]
    pub(crate) man: bool,
}

/// How much to log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Prints completions for `shell`.
pub(crate) fn print_completion(shell: Shell) {
    clap_complete::generate(shell, &mut Arguments::command(), "brigd", &mut std::io::stdout());
}

/// Prints the manual page.
pub(crate) fn print_man() -> ExitCode {
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(Arguments::command()).render(&mut page);
    match rendered.and_then(|()| std::io::stdout().write_all(&page)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
