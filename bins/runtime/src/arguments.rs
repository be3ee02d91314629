//! The flags before the command.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use brig_runtime::{ContainerId, IdMapPrograms, Runtime};
use lexopt::{Arg, Parser, ValueExt as _};

/// Flags that hold for every command.
#[derive(Debug)]
pub(crate) struct Global {
    pub(crate) root: PathBuf,
    pub(crate) log: Option<PathBuf>,
    pub(crate) log_format: LogFormat,
    pub(crate) systemd_cgroup: bool,
    /// As `--rootless` says it; `None` is `auto`.
    pub(crate) rootless: Option<bool>,
}

/// How lines of the log file look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// What the flags before the command ask for.
pub(crate) enum Parsed {
    Run(Global, Parser),
    Print(String),
}

impl Default for Global {
    fn default() -> Self {
        Self {
            root: default_root(),
            log: None,
            log_format: LogFormat::Text,
            systemd_cgroup: false,
            rootless: None,
        }
    }
}

impl Global {
    /// The library's handle.
    pub(crate) fn runtime(&self) -> Runtime {
        Runtime::new(self.root.clone())
            .systemd_cgroup(self.systemd_cgroup)
            .systemd_bus(user_bus())
            .rootless(self.rootless.unwrap_or_else(is_rootless))
            .id_map_programs(id_map_programs())
    }
}

/// Whether the caller has the rights of a user, or of root over a user namespace alone.
fn is_rootless() -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    // The first user namespace maps all there are (user_namespaces(7)).
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// What maps ranges of ids for a user.
fn id_map_programs() -> Option<IdMapPrograms> {
    if rustix::process::geteuid().is_root() {
        return None;
    }
    Some(IdMapPrograms { users: find_program("newuidmap")?, groups: find_program("newgidmap")? })
}

/// A program in the search path, as an absolute path.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let executable = |file: &PathBuf| {
        file.metadata()
            .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).filter(|place| place.is_absolute());
    places.find_map(|place| Some(place.join(name)).filter(executable))
}

/// A user's own bus, where the session says that it is elsewhere than the library expects it.
fn user_bus() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return None;
    }
    let address = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
    let path = address.split(';').find_map(|address| address.strip_prefix("unix:path="));
    let path = path.and_then(|path| path.split(',').next()).map(PathBuf::from);
    path.or_else(|| Some(PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?).join("bus")))
}

/// As runc: `/run/...` for root, the user's runtime directory otherwise.
fn default_root() -> PathBuf {
    if !rustix::process::geteuid().is_root()
        && let Some(directory) = std::env::var_os("XDG_RUNTIME_DIR")
    {
        return PathBuf::from(directory).join("brig-runtime");
    }
    PathBuf::from("/run/brig-runtime")
}

/// The first lines of the help.
pub(crate) const USAGE: &str = "Usage: brig-runtime [FLAGS] COMMAND [ARGUMENTS]\n";

/// The flags before the command, for the help.
pub(crate) const FLAGS: [(&str, &str); 8] = [
    ("--root DIR", "where the state of containers is kept"),
    ("--log FILE", "write messages there too"),
    ("--log-format text|json", "how lines of that file look (default: text)"),
    ("--debug", "accepted for compatibility"),
    ("--systemd-cgroup", "have systemd make cgroups; cgroupsPath is SLICE:PREFIX:NAME"),
    (
        "--rootless true|false|auto",
        "go on without cgroups that the caller may not make (default: auto: without root of the host)",
    ),
    ("-v, --version", "print the version"),
    ("-h, --help", "print this text"),
];

/// Instead of an error: the help of the command is asked for.
#[derive(Debug)]
pub(crate) struct HelpWanted;

impl std::fmt::Display for HelpWanted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("help is asked for")
    }
}

impl std::error::Error for HelpWanted {}

/// The next argument of a command.
///
/// # Errors
/// [`HelpWanted`] for `--help`; an argument that cannot be read.
pub(crate) fn next(parser: &mut Parser) -> anyhow::Result<Option<Arg<'_>>> {
    match parser.next()? {
        Some(Arg::Long("help") | Arg::Short('h')) => Err(HelpWanted.into()),
        other => Ok(other),
    }
}

/// Parses the flags up to the command, whose name is the next argument of the parser.
pub(crate) fn parse_global() -> anyhow::Result<Parsed> {
    let mut parser = Parser::from_env();
    let mut global = Global::default();
    loop {
        // The command is left for the dispatcher; what follows it belongs to the command.
        if parser.try_raw_args().and_then(|raw| raw.peek().map(is_command)) == Some(true) {
            return Ok(Parsed::Run(global, parser));
        }
        match parser.next()? {
            Some(Arg::Long("root")) => global.root = parser.value()?.into(),
            Some(Arg::Long("log")) => global.log = Some(parser.value()?.into()),
            Some(Arg::Long("log-format")) => {
                global.log_format = match parser.value()?.to_str() {
                    Some("text") => LogFormat::Text,
                    Some("json") => LogFormat::Json,
                    other => bail!("unknown log format {:?}: text or json", other.unwrap_or("")),
                }
            }
            Some(Arg::Long("debug")) => drop(switch(&mut parser)?),
            Some(Arg::Long("systemd-cgroup")) => global.systemd_cgroup = switch(&mut parser)?,
            Some(Arg::Long("criu")) => {
                parser.value()?;
                crate::log::warning(&global, "--criu is ignored: criu is looked for in PATH");
            }
            Some(Arg::Long("rootless")) => {
                let value = parser.value()?.string()?;
                global.rootless = match value.as_str() {
                    "auto" => None,
                    value => Some(truth(value).with_context(|| {
                        format!("unknown value {value:?} of --rootless: true, false or auto")
                    })?),
                };
            }
            Some(Arg::Long("version") | Arg::Short('v')) => return Ok(Parsed::Print(version())),
            Some(Arg::Long("help") | Arg::Short('h')) | None => {
                return Ok(Parsed::Print(crate::commands::summary()));
            }
            Some(other) => return Err(other.unexpected().into()),
        }
    }
}

fn is_command(argument: &OsStr) -> bool {
    argument.to_str().is_some_and(|text| !text.starts_with('-'))
}

/// A flag without value, which may still be given as `--flag=true`; whether it is on.
pub(crate) fn switch(parser: &mut Parser) -> anyhow::Result<bool> {
    match parser.optional_value() {
        None => Ok(true),
        Some(value) => {
            let text = value.to_string_lossy();
            truth(&text)
                .with_context(|| format!("unexpected value {text:?} of a switch: true or false"))
        }
    }
}

/// Truth as runc's library of flags reads it.
fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Some(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn version() -> String {
    let (own, spec) = (env!("CARGO_PKG_VERSION"), brig_runtime::SPEC_VERSION);
    format!("brig-runtime version {own}\nspec: {spec}\n")
}

/// The one container id that most commands take.
pub(crate) fn id(value: Option<OsString>) -> anyhow::Result<ContainerId> {
    let value = value.context("a container id is missing")?;
    let text = value.to_str().context("the container id is not UTF-8")?;
    Ok(ContainerId::parse(text)?)
}
