//! `features`: what this runtime can do, as the specification's features document says it.

use lexopt::Parser;

use super::Command;
use crate::arguments::Global;
use crate::log::print;

pub(super) const COMMAND: Command = Command {
    name: "features",
    summary: "print what this runtime can do",
    usage: "",
    flags: &[],
    run,
};

fn run(_: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    super::no_arguments(parser)?;
    let mut features = brig_runtime::features::document();
    features["annotations"]["brig.runtime.version"] = env!("CARGO_PKG_VERSION").into();
    // It is this program's to find CRIU; the library is told where it is.
    let found = crate::arguments::find_program("criu").is_some();
    features["annotations"]["org.opencontainers.runc.checkpoint.enabled"] =
        found.to_string().into();
    print(&format!("{}\n", serde_json::to_string_pretty(&features)?));
    Ok(0)
}
