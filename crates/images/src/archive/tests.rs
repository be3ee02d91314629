use std::time::Duration;

use tar::{Builder, EntryType, Header};

use super::*;
use crate::manifest::media_type;
use crate::test_images::{image, index_of};
use crate::{Digest, ErrorKind, PlatformChoice, Reference, Store};

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    (directory, store)
}

fn append(archive: &mut Builder<Vec<u8>>, path: &str, data: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, path, data).unwrap();
}

fn config(layer: &[u8]) -> String {
    let diff = Digest::of(layer);
    format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff}"]}}}}"#
    )
}

/// The form that Docker wrote before version 25, with a link where it shared a layer.
fn legacy(layer: &[u8], stored: &[u8]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    append(&mut archive, "one/layer.tar", stored);
    let mut link = Header::new_gnu();
    link.set_entry_type(EntryType::Symlink);
    link.set_size(0);
    archive.append_link(&mut link, "two/layer.tar", "../one/layer.tar").unwrap();
    append(&mut archive, "config.json", config(layer).as_bytes());
    let manifest =
        r#"[{"Config":"config.json","RepoTags":["app:1","app:2"],"Layers":["two/layer.tar"]}]"#;
    append(&mut archive, "manifest.json", manifest.as_bytes());
    archive.into_inner().unwrap()
}

#[test]
fn archives_round_trip_with_names_and_platforms() {
    let (_a, from) = store();
    let lease = from.lease().unwrap();
    let one = image(&lease, "linux/amd64", &[b"shared", b"1"]);
    let arm = image(&lease, "linux/arm64", &[b"shared", b"2"]);
    let multi = index_of(&lease, &[one.clone(), arm.clone()]);
    let names =
        vec![Reference::parse("app:1").unwrap(), Reference::parse("localhost:5/b:2").unwrap()];
    let saved = SavedImage { target: multi.clone(), references: names.clone() };
    let mut all = Vec::new();
    save(&from, std::slice::from_ref(&saved), &PlatformChoice::All, &mut all).unwrap();
    let mut again = Vec::new();
    save(&from, std::slice::from_ref(&saved), &PlatformChoice::All, &mut again).unwrap();
    assert!(all == again, "saving is reproducible");
    for outer in [all.clone(), zstd::encode_all(&all[..], 1).unwrap()] {
        let (_b, to) = store();
        let loaded = load(&to, &outer[..]).unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!((&loaded[0].target.digest, &loaded[0].references), (&multi.digest, &names));
        assert_eq!(to.resolve("app:1").unwrap().target.digest, multi.digest);
        assert_eq!(to.manifests(&multi).unwrap().len(), 2);
        assert!(to.collect_garbage(&[], Duration::ZERO).unwrap().blobs.is_empty());
    }
    let mut single = Vec::new();
    let choice = PlatformChoice::Exactly(arm.platform.clone().unwrap());
    save(&from, &[saved], &choice, &mut single).unwrap();
    let (_c, to) = store();
    assert_eq!(load(&to, &single[..]).unwrap()[0].target.digest, arm.digest);
}

/// An image that is here already is loaded again, without a name, while its only name is removed and content collected.
#[test]
fn a_load_is_not_undone_by_a_removal_at_the_same_moment() {
    let (_a, from) = store();
    let target = image(&from.lease().unwrap(), "linux/amd64", &[b"1"]);
    let mut nameless = Vec::new();
    let saved = SavedImage { target: target.clone(), references: Vec::new() };
    save(&from, &[saved], &PlatformChoice::All, &mut nameless).unwrap();
    let (_b, to) = store();
    load(&to, &nameless[..]).unwrap();
    let name = Reference::parse("app:1").unwrap();
    to.tag(&name, &target).unwrap();
    let lease = to.lease().unwrap();
    let loaded = load_under(&lease, &nameless[..]).unwrap();
    to.untag(&name).unwrap();
    to.remove(&target.digest).unwrap();
    to.collect_garbage(&[], Duration::ZERO).unwrap();
    // What the loader does last.
    to.keep(&loaded[0].target).unwrap();
    drop(lease);
    to.collect_garbage(&[], Duration::ZERO).unwrap();
    let image = to.image(&target, &crate::Platform::parse("linux/amd64").unwrap()).unwrap();
    to.layer(&image.layers[0], &image.diff_ids[0]).unwrap().finish().unwrap();
}

#[test]
fn the_old_docker_form_is_understood() {
    for stored in [b"layer".to_vec(), zstd::encode_all(&b"layer"[..], 1).unwrap()] {
        let (_directory, store) = store();
        let loaded = load(&store, &legacy(b"layer", &stored)[..]).unwrap();
        assert_eq!(loaded[0].references.len(), 2);
        let target = store.resolve("app:2").unwrap().target;
        let image = store.image(&target, &crate::Platform::parse("linux/amd64").unwrap()).unwrap();
        assert_eq!(image.id, Digest::of(config(b"layer").as_bytes()));
        store.layer(&image.layers[0], &image.diff_ids[0]).unwrap().finish().unwrap();
    }
}

fn raw_entry(path: &[u8], kind: EntryType, link: &[u8], size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn hostile_archives_are_refused_and_leave_no_name() {
    let pax = |record: &str| {
        let mut bytes = raw_entry(b"pax", EntryType::XHeader, b"", record.len() as u64);
        bytes.extend(record.as_bytes());
        bytes.resize(1024, 0);
        bytes
    };
    let two_sizes =
        [pax("12 size=512\n"), raw_entry(b"a", EntryType::Regular, b"", 3), vec![0; 1024]];
    for (what, bytes) in [
        ("climbs", raw_entry(b"../../etc/passwd", EntryType::Regular, b"", 0)),
        ("absolute", raw_entry(b"/etc/passwd", EntryType::Regular, b"", 0)),
        ("climbing link", raw_entry(b"a/layer.tar", EntryType::Symlink, b"../../x", 0)),
        ("absolute link", raw_entry(b"a/layer.tar", EntryType::Symlink, b"/etc/shadow", 0)),
        ("device", raw_entry(b"a", EntryType::Block, b"", 0)),
        ("huge extension", raw_entry(b"a", EntryType::XHeader, b"", 1 << 40)),
        ("huge name", raw_entry(b"a", EntryType::GNULongName, b"", 1 << 30)),
        ("cut short", raw_entry(b"a", EntryType::Regular, b"", 1 << 40)),
        ("two sizes", two_sizes.concat()),
        (
            "size overflow",
            [pax("28 size=18446744073709551615\n"), raw_entry(b"a", EntryType::Regular, b"", 0)]
                .concat(),
        ),
        ("two indexes", {
            let mut archive = Builder::new(Vec::new());
            append(&mut archive, "index.json", br#"{"manifests":[]}"#);
            append(&mut archive, "./index.json", br#"{"manifests":[]}"#);
            archive.into_inner().unwrap()
        }),
        ("no tar", b"hello, world ".repeat(100)),
        ("empty", Vec::new()),
        ("wrong layer", legacy(b"layer", b"other")),
    ] {
        let (_directory, store) = store();
        let error = load(&store, &bytes[..]).unwrap_err();
        let kinds = [ErrorKind::InvalidInput, ErrorKind::Integrity];
        assert!(kinds.contains(&error.kind()), "{what}: {error}");
        assert!(store.images().unwrap().is_empty(), "{what}");
        store.collect_garbage(&[], Duration::ZERO).unwrap();
        assert!(store.blobs().list().unwrap().is_empty(), "{what}");
        assert_eq!(std::fs::read_dir(store.root().join("ingest")).unwrap().count(), 0, "{what}");
    }
}

#[test]
fn a_blob_that_is_not_its_name_is_refused() {
    let (_directory, store) = store();
    let mut archive = Builder::new(Vec::new());
    let digest = Digest::of(b"good");
    append(&mut archive, &format!("blobs/sha256/{}", digest.hex()), b"evil");
    let entry = crate::Descriptor::new(media_type::OCI_MANIFEST, digest.clone(), 4);
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] });
    append(&mut archive, "index.json", index.to_string().as_bytes());
    let error = load(&store, &archive.into_inner().unwrap()[..]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    assert!(!store.blobs().contains(&digest));
}
