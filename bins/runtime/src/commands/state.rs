//! `state`

use lexopt::Parser;

use crate::arguments::Global;
use crate::log::print;

pub(super) fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let id = super::single_id(parser)?;
    let state = global.runtime().container(&id)?.state()?;
    print(&format!("{}\n", serde_json::to_string_pretty(&state)?));
    Ok(0)
}
