//! `start`

use lexopt::Parser;

use crate::arguments::Global;

pub(super) fn run(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let id = super::single_id(parser)?;
    global.runtime().container(&id)?.start()?;
    Ok(0)
}
