//! Which OCI runtime a container runs on: the one in the shim, or a program that the shim drives.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::{Config, RuntimeProgram};
use crate::error::{Error, Result};

/// The runtime that is linked into the shim.
pub(crate) const BUILT_IN: &str = "brig";

/// Programs that need no configuration: where one is in the search path, its name means it.
const WELL_KNOWN: [&str; 3] = ["runc", "crun", "youki"];

/// The program that a name means, `None` for the built-in runtime: a configured name, a well-known one that is
/// installed, or the absolute path of a program.
pub(crate) fn find(config: &Config, name: &str) -> Result<Option<RuntimeProgram>> {
    if name.is_empty() || name == BUILT_IN {
        return Ok(None);
    }
    if let Some(program) = config.runtimes.get(name) {
        return Ok(Some(program.clone()));
    }
    let path = if Path::new(name).is_absolute() {
        Some(PathBuf::from(name)).filter(|path| is_executable(path))
    } else {
        WELL_KNOWN.contains(&name).then(|| search(config, name)).flatten()
    };
    match path {
        Some(path) => Ok(Some(RuntimeProgram { path, arguments: Vec::new() })),
        None => Err(Error::invalid(format!("unknown or invalid runtime name: {name}"))),
    }
}

/// Every external runtime by its name, for `info`.
pub(crate) fn list(config: &Config) -> BTreeMap<String, RuntimeProgram> {
    let found = WELL_KNOWN.iter().filter_map(|name| {
        let path = search(config, name)?;
        Some(((*name).to_owned(), RuntimeProgram { path, arguments: Vec::new() }))
    });
    let mut all: BTreeMap<_, _> = found.collect();
    all.extend(config.runtimes.clone());
    all
}

fn search(config: &Config, name: &str) -> Option<PathBuf> {
    config
        .path
        .split(':')
        .filter(|directory| !directory.is_empty())
        .map(|directory| Path::new(directory).join(name))
        .find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_a_configured_a_well_known_or_a_named_program() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = Config::new("/r", "/s");
        config.path = directory.path().display().to_string();
        for name in ["", BUILT_IN] {
            assert_eq!(find(&config, name).expect("built in"), None);
        }
        let refusal = find(&config, "runc").expect_err("not installed").report();
        assert_eq!(refusal, "unknown or invalid runtime name: runc");
        let runc = directory.path().join("runc");
        std::fs::write(&runc, "").expect("write");
        assert!(find(&config, "runc").is_err(), "it cannot be executed");
        std::fs::set_permissions(&runc, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let own = RuntimeProgram { path: "/opt/own".into(), arguments: vec!["--debug".into()] };
        config.runtimes.insert("own".into(), own.clone());
        let program = RuntimeProgram { path: runc.clone(), arguments: Vec::new() };
        assert_eq!(find(&config, "runc").expect("installed"), Some(program.clone()));
        let path = runc.to_str().expect("text");
        assert_eq!(find(&config, path).expect("a path"), Some(program));
        assert_eq!(find(&config, "own").expect("configured"), Some(own));
        assert_eq!(list(&config).into_keys().collect::<Vec<_>>(), ["own", "runc"]);
        assert!(find(&config, "kata").is_err());
    }
}
