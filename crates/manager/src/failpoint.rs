//! Points at which the robustness tests make the engine die or fail; nothing in an ordinary build.

use crate::error::{Error, Result};

/// A point called `name`.
///
/// # Errors
/// What a test armed.
pub(crate) fn hit(name: &str) -> Result<()> {
    brig_failpoint::hit(name).map_err(|source| Error::io(format!("pass {name}"), source))
}
