//! Which containers share a shim: those of one pod, by the labels that containerd and its CRI plugin use.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Annotations that name the group, in the order in which they count.
const LABELS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// Longest name; containerd's own identifiers are shorter.
const LENGTH_MAX: usize = 256;

#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

/// The group that a bundle's container belongs to: its own id, unless a label says otherwise.
pub(crate) fn of(bundle: &Path, id: &str) -> Result<String> {
    let path = bundle.join("config.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        // `delete` may come when the bundle is half gone.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(id.to_owned()),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let parsed: Configuration =
        serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))?;
    let named = LABELS.iter().find_map(|label| parsed.annotations.get(*label));
    match named.filter(|name| !name.is_empty()) {
        Some(name) if name.len() > LENGTH_MAX => {
            bail!("the label that groups containers is longer than {LENGTH_MAX} bytes")
        }
        Some(name) => Ok(name.clone()),
        None => Ok(id.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_the_group() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(of(bundle.path(), "web").unwrap(), "web");
        let write = |text: &str| std::fs::write(bundle.path().join("config.json"), text).unwrap();
        write(r#"{"ociVersion":"1.0.2"}"#);
        assert_eq!(of(bundle.path(), "web").unwrap(), "web");
        write(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#);
        assert_eq!(of(bundle.path(), "web").unwrap(), "pod");
        write("{");
        assert!(of(bundle.path(), "web").is_err());
    }
}
