//! `checkpoint`, and what `restore` shares with it.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use brig_runtime::{CheckpointOptions, CriuOptions};
use lexopt::{Arg, Parser, ValueExt as _};

use super::{Command, Flag};
use crate::arguments::{self, Global, find_program, switch};

/// The flags of both commands.
pub(super) const FLAGS: &[Flag] = &[
    ("--image-path DIR", "where the images are (default: ./checkpoint)"),
    ("--work-path DIR", "where the log goes (default: the image path)"),
    ("--tcp-established", "save or restore established TCP connections"),
    ("--ext-unix-sk", "allow Unix sockets that are connected to the outside"),
    ("--shell-job", "allow a session and a terminal of the outside"),
    ("--file-locks", "save or restore file locks"),
    (
        "--manage-cgroups-mode soft|ignore",
        "accepted for compatibility: the cgroup is made from the configuration",
    ),
    ("--empty-ns network", "accepted for compatibility: network devices are not saved"),
    ("--auto-dedup", "leave out memory that earlier images have"),
];

pub(super) const COMMAND: Command = Command {
    name: "checkpoint",
    summary: "save a running container by CRIU, and remove it",
    usage: " ID",
    flags: &[
        FLAGS,
        &[
            ("--parent-path DIR", "earlier images of --pre-dump, relative to the image path"),
            ("--leave-running", "let the container run on"),
            ("--pre-dump", "save the memory alone; the container runs on"),
            ("--tcp-skip-in-flight", "drop TCP connections that are not established yet"),
            ("--link-remap", "give files without name one for the time being"),
            ("--page-server ADDRESS:PORT", "send the memory to a `criu page-server`"),
        ],
    ],
    run,
};

fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let mut found = None;
    let mut options = CheckpointOptions::default();
    while let Some(argument) = arguments::next(parser)? {
        match argument {
            Arg::Long("parent-path") => options.parent = Some(parser.value()?.into()),
            Arg::Long("leave-running") => options.leave_running = switch(parser)?,
            Arg::Long("pre-dump") => options.pre_dump = switch(parser)?,
            Arg::Long("tcp-skip-in-flight") => options.tcp_skip_in_flight = switch(parser)?,
            Arg::Long("link-remap") => options.link_remap = switch(parser)?,
            Arg::Long("page-server") => {
                options.page_server = Some(page_server(&parser.value()?.string()?)?);
            }
            Arg::Long("status-fd") => bail!("--status-fd is not supported, nor is --lazy-pages"),
            Arg::Long(name) => {
                let name = name.to_owned();
                shared(&mut options.criu, &name, parser)?;
            }
            Arg::Value(value) if found.is_none() => found = Some(value),
            other => return Err(other.unexpected().into()),
        }
    }
    let id = arguments::id(found)?;
    complete(&mut options.criu)?;
    global.runtime().container(&id)?.checkpoint(&options)?;
    Ok(0)
}

/// Takes a flag of [`FLAGS`], whose name was read.
pub(super) fn shared(
    options: &mut CriuOptions,
    name: &str,
    parser: &mut Parser,
) -> anyhow::Result<()> {
    match name {
        "image-path" => options.images = parser.value()?.into(),
        "work-path" => options.work = Some(parser.value()?.into()),
        "tcp-established" => options.tcp_established = switch(parser)?,
        "ext-unix-sk" => options.external_unix_sockets = switch(parser)?,
        "shell-job" => options.shell_job = switch(parser)?,
        "file-locks" => options.file_locks = switch(parser)?,
        "auto-dedup" => options.auto_dedup = switch(parser)?,
        "manage-cgroups-mode" => match parser.value()?.string()?.as_str() {
            "" | "soft" | "ignore" => {}
            mode @ ("full" | "strict") => {
                bail!("--manage-cgroups-mode {mode} is not supported: soft or ignore")
            }
            mode => bail!("unknown value {mode:?} of --manage-cgroups-mode: soft or ignore"),
        },
        "empty-ns" => match parser.value()?.string()?.as_str() {
            "network" => {}
            name => bail!("namespace {name:?} is not supported by --empty-ns: only network"),
        },
        "lazy-pages" => {
            if switch(parser)? {
                bail!("--lazy-pages is not supported");
            }
        }
        name => return Err(Arg::Long(name).unexpected().into()),
    }
    Ok(())
}

/// Fills in what was not given.
pub(super) fn complete(options: &mut CriuOptions) -> anyhow::Result<()> {
    options.program = find_program("criu")
        .context("criu is not in PATH: install it to save and restore containers")?;
    if options.images.as_os_str().is_empty() {
        options.images = PathBuf::from("checkpoint");
    }
    Ok(())
}

fn page_server(text: &str) -> anyhow::Result<(String, u16)> {
    let parts = text.rsplit_once(':').filter(|(address, _)| !address.is_empty());
    let (address, port) =
        parts.with_context(|| format!("--page-server {text:?}: ADDRESS:PORT is expected"))?;
    let port = port.parse().with_context(|| format!("--page-server {text:?}: port"))?;
    Ok((address.trim_matches(['[', ']']).to_owned(), port))
}
