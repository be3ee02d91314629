//! Every field of the runtime specification: applied and seen from inside a container, or refused by name, or, for what
//! hardly any kernel has, tested on a recorded tree. The table is in `conformance/rows.rs`; this writes
//! `docs/conformance.md` from it and fails when that was not up to date, when a test that the table names is gone, and when
//! the types have a field that the table has not.

mod populated;
mod rows;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use brig_runtime::ErrorKind;
use brig_runtime::pidfd::Exit;
use serde_json::Value;

use crate::support::Fixture;

/// What becomes of some fields.
pub(crate) struct Row {
    pub(crate) fields: &'static [&'static str],
    pub(crate) evidence: Evidence,
}

/// How it is shown.
pub(crate) enum Evidence {
    /// A container with this change prints this.
    Inside {
        patch: &'static [(&'static str, &'static str)],
        script: &'static str,
        prints: &'static str,
    },
    /// The same, on hosts where a v1 hierarchy has the controller.
    Legacy {
        controller: &'static str,
        patch: &'static [(&'static str, &'static str)],
        script: &'static str,
        prints: &'static str,
    },
    /// A test of its own looks from inside.
    Test(&'static str),
    /// A container with this change is refused with these words.
    Refused { patch: &'static [(&'static str, &'static str)], words: &'static str },
    /// A test on a recorded tree.
    Recorded(&'static str),
}

/// Maps whose keys are the user's.
const MAPS: [&str; 6] = [
    "annotations",
    "linux.netDevices",
    "linux.resources.rdma",
    "linux.resources.unified",
    "linux.sysctl",
    "linux.timeOffsets",
];
/// Whole parts of the document that are for other platforms.
const OTHER_PLATFORMS: [&str; 6] =
    ["solaris", "windows", "vm", "zos", "uidMappings", "gidMappings"];

fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = match key.as_str() {
                    _ if MAPS.contains(&path) => "*",
                    // The types spell these two otherwise than the specification.
                    "enableCmt" => "enableCMT",
                    "enableMbm" => "enableMBM",
                    key => key,
                };
                let below = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                fields(value, &below, found);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            list.iter().for_each(|value| fields(value, &format!("{path}[]"), found));
        }
        _ => drop(found.insert(path.to_owned())),
    }
}

#[test]
fn the_table_has_every_field_of_the_types() {
    let spec: oci_spec::runtime::Spec = serde_json::from_value(populated::spec()).unwrap();
    // A field that the document above does not set shows itself as None, by its name.
    let missing: Vec<String> = format!("{spec:#?}")
        .lines()
        .filter(|line| line.ends_with(": None,"))
        .map(|line| line.trim().to_owned())
        .collect();
    let platforms = ["solaris", "windows", "vm", "zos", "uid_mappings", "gid_mappings"];
    let expected: Vec<String> = platforms.iter().map(|name| format!("{name}: None,")).collect();
    assert_eq!(missing, expected, "set them in conformance/populated.rs and add rows");
    let mut wanted = BTreeSet::from(OTHER_PLATFORMS.map(str::to_owned));
    fields(&serde_json::to_value(&spec).unwrap(), "", &mut wanted);
    let listed: Vec<&str> = rows::ROWS.iter().flat_map(|row| row.fields).copied().collect();
    let set: BTreeSet<String> = listed.iter().map(ToString::to_string).collect();
    assert_eq!(set.len(), listed.len(), "a field is in two rows");
    let absent: Vec<_> = wanted.difference(&set).collect();
    let unknown: Vec<_> = set.difference(&wanted).collect();
    assert!(absent.is_empty() && unknown.is_empty(), "no row: {absent:?}; no field: {unknown:?}");
}

#[test]
fn every_test_that_the_table_names_exists() {
    let mut sources = Vec::new();
    collect(Path::new(env!("CARGO_MANIFEST_DIR")), &mut sources);
    for row in rows::ROWS {
        let (Evidence::Test(name) | Evidence::Recorded(name)) = &row.evidence else { continue };
        let function = format!("#[test]\nfn {name}()");
        let inner = format!("    #[test]\n    fn {name}()");
        let exists = sources.iter().any(|text| text.contains(&function) || text.contains(&inner));
        assert!(exists, "{name}, for {:?}", row.fields);
    }
}

fn collect(directory: &Path, sources: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(std::fs::read_to_string(path).unwrap());
        }
    }
}

fn changed(test: &str, patch: &[(&str, &str)]) -> Option<Fixture> {
    let mut fixture = Fixture::new(test)?;
    for (pointer, text) in patch {
        let value =
            serde_json::from_str(&expand(text)).unwrap_or_else(|error| panic!("{text}: {error}"));
        match pointer.strip_suffix("/-") {
            Some(list) => fixture.push(list, value),
            None => fixture.set(pointer, value),
        }
    }
    Some(fixture)
}

/// `@MAJOR` and `@MINOR` are those of a block device of this machine.
fn expand(text: &str) -> String {
    if !text.contains('@') {
        return text.to_owned();
    }
    let (major, minor) = block_device().unwrap_or_else(|| ("0".to_owned(), "0".to_owned()));
    text.replace("@MAJOR", &major).replace("@MINOR", &minor)
}

fn block_device() -> Option<(String, String)> {
    let mut disks: Vec<PathBuf> =
        std::fs::read_dir("/sys/block").ok()?.map(|entry| entry.unwrap().path()).collect();
    // Disks with a queue of their own before loop and memory devices.
    disks.sort_by_key(|path| !path.join("device").exists());
    let numbers = std::fs::read_to_string(disks.first()?.join("dev")).ok()?;
    let (major, minor) = numbers.trim().split_once(':')?;
    Some((major.to_owned(), minor.to_owned()))
}

#[test]
fn fields_are_applied_as_the_table_says() {
    for row in rows::ROWS {
        let (patch, script, prints) = match &row.evidence {
            Evidence::Inside { patch, script, prints } => (patch, script, prints),
            Evidence::Legacy { controller, patch, script, prints } => {
                if !Path::new("/sys/fs/cgroup").join(controller).join("cgroup.procs").exists() {
                    eprintln!("SKIPPED {:?}: no v1 hierarchy of {controller}", row.fields);
                    continue;
                }
                (patch, script, prints)
            }
            _ => continue,
        };
        let Some(mut fixture) = changed("fields_are_applied_as_the_table_says", patch) else {
            return;
        };
        if script.contains("/sys/fs/cgroup") {
            fixture.push(
                "/mounts",
                serde_json::json!({"destination": "/sys/fs/cgroup", "type": "cgroup",
                    "source": "cgroup", "options": ["ro"]}),
            );
        }
        fixture.script(script);
        let output = fixture.run().unwrap_or_else(|error| panic!("{:?}: {error:?}", row.fields));
        assert_eq!(output.exit, Exit::Code(0), "{:?}: {output:?}", row.fields);
        assert_eq!(output.stdout.trim_end(), expand(prints), "{:?}: {output:?}", row.fields);
    }
}

#[test]
fn fields_are_refused_as_the_table_says() {
    for row in rows::ROWS {
        let Evidence::Refused { patch, words } = &row.evidence else { continue };
        let Some(fixture) = changed("fields_are_refused_as_the_table_says", patch) else { return };
        let Err(error) = fixture.run() else { panic!("{:?} is not refused", row.fields) };
        let chain = error.chain();
        assert!(chain.contains(words), "{:?}: {chain}", row.fields);
        let refusal = matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput);
        assert!(refusal, "{:?}: {chain}", row.fields);
        assert!(fixture.runtime.container(&fixture.id).is_err(), "{:?} left something", row.fields);
    }
}

#[test]
fn the_document_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conformance.md");
    let text = document();
    if std::fs::read_to_string(&path).unwrap_or_default() == text {
        return;
    }
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    panic!("docs/conformance.md was not up to date; it is now: commit it");
}

fn document() -> String {
    let mut text = "\
# Conformance to the OCI runtime specification 1.3

Every field of `config.json` for Linux, and what becomes of it. Generated by `crates/runtime/tests/containers/conformance.rs`
from the table beside it, which fails when a field is missing, when a named test is gone or when this page is old.

- **applied**: a container is made with the field, and what it changes is seen from inside (or, where no container can see
  it, in the kernel's files of it), by the named test; without a name by the table's own script.
- **refused**: a configuration with the field is refused by name; the test checks the refusal.
- **recorded**: the kernels at hand lack it. It is built from the documents and tested on a recorded or made-up tree.

| field | | shown by |
|---|---|---|
"
    .to_owned();
    let mut lines = Vec::new();
    for row in rows::ROWS {
        let (verdict, shown) = match &row.evidence {
            Evidence::Inside { .. } => {
                ("applied", "`fields_are_applied_as_the_table_says`".to_owned())
            }
            Evidence::Legacy { controller, .. } => {
                ("applied", format!("`fields_are_applied_as_the_table_says` (v1 `{controller}`)"))
            }
            Evidence::Test(name) => ("applied", format!("`{name}`")),
            Evidence::Refused { words, .. } => ("refused", format!("\"{words}\"")),
            Evidence::Recorded(name) => ("recorded", format!("`{name}`")),
        };
        lines.extend(row.fields.iter().map(|field| format!("| `{field}` | {verdict} | {shown} |")));
    }
    lines.sort();
    for line in lines {
        writeln!(text, "{line}").unwrap();
    }
    text
}
