//! `features`: what this runtime can do, as the specification's features document says it.

use lexopt::Parser;

use crate::log::print;

pub(super) fn run(parser: &mut Parser) -> anyhow::Result<u8> {
    super::no_arguments(parser)?;
    let mut features = brig_runtime::features::document();
    features["annotations"]["brig.runtime.version"] = env!("CARGO_PKG_VERSION").into();
    print(&format!("{}\n", serde_json::to_string_pretty(&features)?));
    Ok(0)
}
