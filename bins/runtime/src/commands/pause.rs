//! `pause` and `resume`

use lexopt::Parser;

use crate::arguments::Global;

pub(super) fn pause(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let id = super::single_id(parser)?;
    global.runtime().container(&id)?.pause()?;
    Ok(0)
}

pub(super) fn resume(global: &Global, parser: &mut Parser) -> anyhow::Result<u8> {
    let id = super::single_id(parser)?;
    global.runtime().container(&id)?.resume()?;
    Ok(0)
}
