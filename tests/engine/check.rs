//! `brig system check`: damage is found, told, and healed from the registry the image names.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::engine::{Engine, Registry, busybox_layer, eventually, pack_image};

/// Blobs of the engine, largest first.
fn blobs(engine: &Engine) -> Vec<PathBuf> {
    let entries = fs::read_dir(engine.path("root/content/blobs/sha256")).unwrap();
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    found
}

fn name(blob: &Path) -> String {
    blob.file_name().unwrap().to_string_lossy().into_owned()
}

fn flip_a_byte(blob: &Path) {
    let mut bytes = fs::read(blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(blob).unwrap();
    fs::write(blob, bytes).unwrap();
}

/// The exit code, and what of the report is no repair or space.
fn check(engine: &Engine, options: &[&str]) -> (Option<i32>, Vec<Value>) {
    let outcome = engine.brig(&[&["system", "check", "--format=json"], options].concat());
    let report: Value = serde_json::from_str(&outcome.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", outcome.stdout, outcome.stderr));
    (outcome.code, report["Findings"].as_array().unwrap().clone())
}

#[test]
fn damaged_missing_and_truncated_content_is_healed_from_the_registry() {
    let test = "check-heal";
    let Some(engine) = Engine::start(test) else { return };
    let Some(registry) = Registry::start(&engine, test) else { return };
    let (archive, image) = (engine.path("image.tar"), registry.image("checked"));
    let second = {
        let mut layer = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(5);
        layer.append_data(&mut header, "greeting", &b"hello"[..]).unwrap();
        layer.into_inner().unwrap()
    };
    pack_image(&archive, &image, &[busybox_layer(), second]);
    let _ = engine.docker(&["load", "-i", &archive.to_string_lossy()]).success();
    let _ = engine.docker(&["push", &image]).success();
    assert_eq!(check(&engine, &[]), (Some(0), Vec::new()));
    // Two layers, a configuration and a manifest, each damaged in another way.
    let whole = blobs(&engine);
    assert_eq!(whole.len(), 4, "{whole:?}");
    flip_a_byte(&whole[0]);
    fs::remove_file(&whole[1]).unwrap();
    let (code, findings) = check(&engine, &[]);
    assert_eq!((code, findings.len()), (Some(1), 2), "{findings:?}");
    let told = findings.iter().map(Value::to_string).collect::<String>();
    for blob in &whole[..2] {
        assert!(told.contains(&name(blob)) && told.contains(&image), "{told}");
    }
    // Beneath the manifest, which is healed first, there is more.
    let manifest = whole.iter().find(|blob| {
        fs::read(blob).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains("\"layers\":["))
    });
    let manifest = manifest.unwrap();
    let cut = fs::read(manifest).unwrap();
    fs::remove_file(manifest).unwrap();
    fs::write(manifest, &cut[..cut.len() / 2]).unwrap();
    let (code, findings) = check(&engine, &["--repair"]);
    assert!(findings.iter().all(|finding| finding["Repaired"] == true), "{findings:?}");
    assert_eq!((code, findings.len()), (Some(0), 3));
    assert_eq!(check(&engine, &[]), (Some(0), Vec::new()));
    assert_eq!(engine.docker(&["run", "--rm", &image, "cat", "greeting"]).success(), "hello");
    // A layer that lost its files is unpacked again from its content.
    let find = "rm -r $(dirname $(find \"$0\" -path '*/fs/greeting'))";
    let snapshots = engine.path("root/storage/snapshots");
    eventually("the layer to be found", || {
        let words = ["sh", "-c", find, &snapshots.to_string_lossy()];
        (engine.on_host(&words).code == Some(0)).then_some(())
    });
    let (code, findings) = check(&engine, &["--repair"]);
    assert_eq!((code, findings.len()), (Some(0), 1), "{findings:?}");
    assert_eq!(engine.docker(&["run", "--rm", &image, "cat", "greeting"]).success(), "hello");
}

#[test]
fn what_came_from_an_archive_cannot_be_healed_and_is_told() {
    let Some(engine) = Engine::start("check-archive") else { return };
    engine.load_busybox();
    let layer = blobs(&engine).remove(0);
    flip_a_byte(&layer);
    fs::write(engine.path("root/content/blobs/sha256/notes"), "mine").unwrap();
    let (code, findings) = check(&engine, &["--repair"]);
    assert_eq!(code, Some(1));
    let [damaged, stranger] = findings.as_slice() else { panic!("{findings:?}") };
    let text = damaged.to_string();
    for part in ["image busybox:latest", &name(&layer), "cannot be healed", "brig load"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(stranger["Object"].as_str().unwrap().ends_with("/notes"), "{stranger}");
    fs::remove_file(engine.path("root/content/blobs/sha256/notes")).unwrap();
    // Loading it once more is the remedy that was told.
    let shown = engine.brig(&["system", "check"]);
    assert_eq!(shown.code, Some(1));
    assert!(shown.stdout.contains("is damaged: its "), "{}", shown.stdout);
    engine.load_busybox();
    assert_eq!(check(&engine, &[]), (Some(0), Vec::new()));
}

#[test]
fn every_byte_beneath_the_root_has_a_holder_and_they_sum_up() {
    let Some(engine) = Engine::start("explain") else { return };
    engine.load_busybox();
    let write = "head -c 3000000 /dev/urandom > /data; head -c 200000 /dev/urandom > /v/file; \
                 ln /data /again; seq 20000";
    let run = ["run", "--name", "writer", "-v", "kept:/v", "busybox", "sh", "-c", write];
    let _ = engine.docker(&run).success();
    let _ = engine.docker(&["volume", "create", "loose"]).success();
    let _ = engine.docker(&["tag", "busybox", "busybox:second"]).success();
    let ingest = engine.path("root/content/ingest");
    fs::write(ingest.join(format!("sha256-{}", "0".repeat(64))), vec![7; 50_000]).unwrap();
    fs::write(engine.path("root/content/blobs/sha256").join("1".repeat(64)), "loose").unwrap();
    let root = engine.path("root").to_string_lossy().into_owned();
    let walked = || {
        let du = engine.on_host(&["du", "-s", "--block-size=1", &root]).success();
        du.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let explained = || -> Vec<Value> {
        let json = engine.brig(&["system", "df", "--explain", "--format=json"]).success();
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let bytes = |row: &Value| row["Bytes"].as_str().unwrap().parse::<u64>().unwrap();
    // The layers may be on their way to disk just now.
    let rows = eventually("the sums to be equal", || {
        let rows = explained();
        (rows.iter().map(bytes).sum::<u64>() == walked()).then_some(rows)
    });
    let of = |kind: &str, name: &str| {
        let mut found = rows
            .iter()
            .filter(|row| row["Type"] == kind && row["Name"].as_str().unwrap().contains(name));
        let row = found.next().unwrap_or_else(|| panic!("{kind} {name} in {rows:?}"));
        (bytes(row), row["HeldBy"].as_str().unwrap().to_owned())
    };
    let id = engine.inspect("writer", "{{.Id}}");
    let (size, holders) = of("container", &id);
    assert!((3_000_000..4_000_000).contains(&size) && holders == "container writer", "{size}");
    assert!(of("log", &id).0 > 100_000);
    assert!(of("volume", "kept").1.contains("container writer"));
    assert_eq!(of("volume", "loose").1, "volume loose");
    assert!(of("transfer", "sha256-000").0 >= 50_000);
    assert_eq!(of("blob", &format!("sha256:{}", "1".repeat(64))).1, "");
    let (_, holders) = of("layer", "");
    for holder in ["busybox:latest", "busybox:second", "container writer"] {
        assert!(holders.contains(holder), "{holders}");
    }
    let table = engine.brig(&["system", "df", "--explain"]).success();
    assert!(table.starts_with("TYPE") && table.contains("\nTotal: "), "{table}");
}
