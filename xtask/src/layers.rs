//! The walls between the crates, checked over `cargo metadata` and the crates' root files.
//!
//! Each rule carries the number of the invariant in ARCHITECTURE.md that it enforces, so that a failure says what was
//! broken and where to read why.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{cargo, output, workspace};

/// Which crates of ours each crate may import (normal and build dependencies; tests may look further).
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("brig-failpoint", &[]),
    ("brig-linux", &[]),
    ("brig-runtime", &["brig-failpoint", "brig-linux"]),
    ("brig-storage", &["brig-linux"]),
    ("brig-network", &["brig-linux"]),
    ("brig-images", &[]),
    ("brig-registry", &["brig-images"]),
    ("brig-engine-api", &[]),
    ("brig-shim-protocol", &[]),
    (
        "brig-manager",
        &[
            "brig-failpoint",
            "brig-images",
            "brig-storage",
            "brig-network",
            "brig-engine-api",
            "brig-shim-protocol",
        ],
    ),
    ("brig", &["brig-engine-api", "brig-registry"]),
    ("brigd", &["brig-failpoint", "brig-manager"]),
    (
        "containerd-shim-brig-v1",
        &["brig-failpoint", "brig-runtime", "brig-shim-protocol", "brig-linux"],
    ),
    ("brig-runtime-cli", &["brig-runtime", "brig-linux"]),
    ("embed-runtime", &["brig-runtime"]),
    ("sandbox", &["brig-runtime"]),
    ("pull-image", &["brig-images"]),
    ("unpack-layers", &["brig-storage"]),
    ("two-namespaces", &["brig-network"]),
    ("engine-in-process", &["brig-engine-api", "brig-manager"]),
    ("xtask", &[]),
];

/// Crates in whose dependency tree an async runtime must not appear (invariant 1).
const WITHOUT_TOKIO: &[&str] = &[
    "brig-linux",
    "brig-runtime",
    "brig-storage",
    "brig-network",
    "brig-shim-protocol",
    "containerd-shim-brig-v1",
    "brig-runtime-cli",
    "embed-runtime",
    "sandbox",
    "unpack-layers",
    "two-namespaces",
];

/// Crates that may hold `unsafe` code in files that opt in (invariant 12).
const MAY_BE_UNSAFE: &[&str] = &["linux", "runtime"];

/// A feature that takes protections away, for tests that prove them, and the only crate that may know it.
const UNSAFE_FEATURE: (&str, &str) = ("unsafe-for-tests", "brig-runtime");

/// Checks every rule and reports all violations at once.
pub(crate) fn check() -> Result<()> {
    let graph = Graph::load()?;
    let mut broken = Vec::new();
    broken.extend(forbidden_imports(&graph));
    broken.extend(forbidden_tokio(&graph));
    broken.extend(enables_unsafe_feature(&graph));
    broken.extend(missing_forbid_unsafe()?);
    if !broken.is_empty() {
        bail!("the layers are broken (see ARCHITECTURE.md):\n  {}", broken.join("\n  "));
    }
    println!("layers: {} crates checked", MAY_IMPORT.len());
    Ok(())
}

fn forbidden_imports(graph: &Graph) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, allowed) in MAY_IMPORT {
        for import in graph.direct(name) {
            if graph.ours.contains(import) && !allowed.contains(&import.as_str()) {
                let invariant = match (*name, import.as_str()) {
                    ("brig-manager", "brig-runtime") => {
                        "invariant 3, the manager never links the runtime"
                    }
                    ("brig-images", "brig-storage") | ("brig-storage", "brig-images") => {
                        "invariant 2, images and storage do not know each other"
                    }
                    _ => "the crate table, arrows point down and siblings never import each other",
                };
                broken.push(format!("{name} imports {import}: {invariant}"));
            }
        }
    }
    broken
}

fn forbidden_tokio(graph: &Graph) -> Vec<String> {
    WITHOUT_TOKIO
        .iter()
        .filter_map(|name| {
            let path = graph.path_to(name, "tokio")?;
            Some(format!("{}: invariant 1, tokio stays above the line", path.join(" → ")))
        })
        .collect()
}

/// No crate of ours may enable the feature that tests switch protections off with, in any kind of dependency: cargo
/// unites features, so a program built together with such a crate would have it too.
fn enables_unsafe_feature(graph: &Graph) -> Vec<String> {
    let (feature, owner) = UNSAFE_FEATURE;
    let users = graph.features.iter().filter(|(_, words)| words.contains(feature));
    users
        .map(|(name, _)| {
            format!(
                "{name} enables {owner}/{feature}: only a test's command line may (CONTRIBUTING.md)"
            )
        })
        .collect()
}

fn missing_forbid_unsafe() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for entry in fs::read_dir(workspace().join("crates")).context("list crates")? {
        let directory = entry.context("list crates")?.path();
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let root = directory.join("src/lib.rs");
        let text = fs::read_to_string(&root).with_context(|| format!("read {}", root.display()))?;
        if !MAY_BE_UNSAFE.contains(&name.as_str()) && !text.contains("#![forbid(unsafe_code)]") {
            broken.push(format!(
                "crates/{name}/src/lib.rs lacks #![forbid(unsafe_code)]: invariant 12, unsafe code lives in linux and runtime"
            ));
        }
    }
    Ok(broken)
}

/// The resolved dependency graph without development dependencies.
struct Graph {
    ours: BTreeSet<String>,
    edges: BTreeMap<String, BTreeSet<String>>,
    /// By crate of ours: the features that it asks of its dependencies, or turns on through its own.
    features: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn load() -> Result<Self> {
        let text = output(cargo().args(["metadata", "--format-version", "1", "--locked"]))?;
        let metadata: Value = serde_json::from_str(&text).context("parse cargo metadata")?;
        let mut names = BTreeMap::new();
        for package in array(&metadata["packages"]) {
            names.insert(string(&package["id"]), string(&package["name"]));
        }
        let name_of = |id: &Value| names.get(&string(id)).cloned().unwrap_or_default();
        let ours: BTreeSet<String> =
            array(&metadata["workspace_members"]).iter().map(name_of).collect();
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in array(&metadata["resolve"]["nodes"]) {
            let targets = edges.entry(name_of(&node["id"])).or_default();
            for dependency in array(&node["deps"]) {
                // A dependency's kind is null when normal, else "dev" or "build".
                let real =
                    array(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
                if real {
                    targets.insert(name_of(&dependency["pkg"]));
                }
            }
        }
        let packages = array(&metadata["packages"]).iter();
        let features = packages
            .map(|package| (string(&package["name"]), features_used(package)))
            .filter(|(name, _)| ours.contains(name))
            .collect();
        Ok(Self { ours, edges, features })
    }

    fn direct(&self, name: &str) -> impl Iterator<Item = &String> {
        self.edges.get(name).into_iter().flatten()
    }

    /// The chain of imports from `from` to `wanted`, if there is one.
    fn path_to(&self, from: &str, wanted: &str) -> Option<Vec<String>> {
        let mut previous: BTreeMap<String, String> = BTreeMap::new();
        let mut queue = vec![from.to_owned()];
        while let Some(name) = queue.pop() {
            if name == wanted {
                let mut path = vec![name];
                while let Some(parent) = path.last().and_then(|last| previous.get(last)) {
                    path.push(parent.clone());
                }
                path.reverse();
                return Some(path);
            }
            for next in self.direct(&name) {
                if next != from && !previous.contains_key(next) {
                    previous.insert(next.clone(), name.clone());
                    queue.push(next.clone());
                }
            }
        }
        None
    }
}

/// What a package asks of its dependencies, and what each of its own features turns on, without the crate's name before it.
fn features_used(package: &Value) -> BTreeSet<String> {
    let asked = array(&package["dependencies"]).iter().flat_map(|it| array(&it["features"]));
    let own = package["features"].as_object().into_iter().flat_map(|features| features.values());
    let words = asked.chain(own.flat_map(array)).map(string);
    words.map(|word| word.rsplit('/').next().unwrap_or_default().to_owned()).collect()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
