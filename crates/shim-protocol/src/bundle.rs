//! The version of what a shim keeps in its bundle, so that nobody takes a newer shim's files for their own.

use std::path::Path;

use serde::Deserialize;

/// The version of a shim of this release. A change that an older shim or manager would misread raises it.
pub const VERSION: u32 = 1;

/// How the runtime of a bundle's container is set up, and the version of all that the shim keeps there.
pub const SETTINGS_FILE: &str = "shim.json";

#[derive(Deserialize)]
struct Settings {
    #[serde(default = "first")]
    version: u32,
}

/// The version of shims that wrote none.
#[must_use]
pub fn first() -> u32 {
    1
}

/// The version of the shim that a bundle is of; `None` when none has written its settings, or nothing that can be read.
#[must_use]
pub fn version(bundle: &Path) -> Option<u32> {
    let bytes = std::fs::read(bundle.join(SETTINGS_FILE)).ok()?;
    serde_json::from_slice::<Settings>(&bytes).ok().map(|settings| settings.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_tells_its_version() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(version(bundle.path()), None);
        for (text, expected) in
            [("{\"root\":\"/r\"}", Some(1)), ("{\"version\":7,\"new\":[]}", Some(7)), ("{", None)]
        {
            std::fs::write(bundle.path().join(SETTINGS_FILE), text).unwrap();
            assert_eq!(version(bundle.path()), expected);
        }
    }
}
