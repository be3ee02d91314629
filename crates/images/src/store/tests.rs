use std::time::Duration;

use super::*;
use crate::content::Acquired;
use crate::test_images::{image, index_of};

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    (directory, store)
}

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn collect(store: &Store) -> usize {
    store.collect_garbage(&[], Duration::ZERO).unwrap().blobs.len()
}

#[test]
fn an_image_is_found_by_every_word_for_it() {
    let (_directory, store) = store();
    let lease = store.lease().unwrap();
    let target = image(&lease, "linux/amd64", &[b"layer"]);
    store.tag(&name("app:1"), &target).unwrap();
    let id = store.image_id(&target).unwrap();
    let at_digest = format!("app@{}", target.digest);
    for word in
        ["app:1", "docker.io/library/app:1", &at_digest, id.hex(), id.short(), &id.to_string()]
    {
        assert_eq!(store.resolve(word).unwrap().target.digest, target.digest, "{word}");
    }
    for word in ["app", "app:2", "other", "ffffffffffff0000"] {
        assert_eq!(store.resolve(word).unwrap_err().kind(), ErrorKind::NotFound, "{word}");
    }
    assert_eq!(store.resolve("not a name").unwrap_err().kind(), ErrorKind::InvalidInput);
    let loaded = store.image(&target, &Platform::parse("linux/amd64").unwrap()).unwrap();
    assert_eq!(loaded.id, id);
    let mut tar = Vec::new();
    let mut reader = store.layer(&loaded.layers[0], &loaded.diff_ids[0]).unwrap();
    io::Read::read_to_end(&mut reader, &mut tar).unwrap();
    assert_eq!(tar, b"layer");
}

#[test]
fn an_ambiguous_prefix_is_a_conflict() {
    let (_directory, store) = store();
    let lease = store.lease().unwrap();
    // 17 images have two ids that start alike.
    for number in 0..17_u8 {
        store.keep(&image(&lease, "linux/amd64", &[&[number]])).unwrap();
    }
    let conflict = (0..16).map(|digit| store.resolve(&format!("{digit:x}")));
    assert!(conflict.filter_map(Result::err).any(|error| error.kind() == ErrorKind::Conflict));
}

#[test]
fn moving_a_name_leaves_the_old_image_dangling() {
    let (_directory, store) = store();
    let lease = store.lease().unwrap();
    let (old, new) = (image(&lease, "linux/amd64", &[b"1"]), image(&lease, "linux/amd64", &[b"2"]));
    store.tag(&name("app"), &old).unwrap();
    store.tag(&name("app"), &new).unwrap();
    let names: Vec<_> =
        store.images().unwrap().into_iter().map(|r| (r.reference, r.target)).collect();
    assert_eq!(names, [(None, old.clone()), (Some(name("app")), new.clone())]);
    // A name for the dangling one replaces the dangling entry.
    store.tag(&name("app:old"), &old).unwrap();
    assert_eq!(store.images().unwrap().len(), 2);
    assert_eq!(store.untag(&name("app:old")).unwrap(), old);
    assert_eq!(store.untag(&name("app:old")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.remove(&old.digest).unwrap(), []);
    assert_eq!(store.remove(&new.digest).unwrap(), [name("app")]);
    assert!(store.images().unwrap().is_empty());
}

#[test]
fn names_survive_reopening_and_are_readable_by_others() {
    let (directory, store) = store();
    let target = image(&store.lease().unwrap(), "linux/amd64", &[b"layer"]);
    store.tag(&name("localhost:5000/app:1"), &target).unwrap();
    let again = Store::open(directory.path()).unwrap();
    assert_eq!(again.resolve("localhost:5000/app:1").unwrap().target, target);
    let text = fs::read_to_string(directory.path().join("index.json")).unwrap();
    assert!(
        text.contains(r#""org.opencontainers.image.ref.name":"localhost:5000/app:1""#),
        "{text}"
    );
}

#[test]
fn an_index_gives_what_is_present_and_suits() {
    let (_directory, store) = store();
    let lease = store.lease().unwrap();
    let amd64 = image(&lease, "linux/amd64", &[b"amd64"]);
    let arm64 = image(&lease, "linux/arm64", &[b"arm64"]);
    let absent = Descriptor {
        platform: Some(Platform::parse("linux/s390x").unwrap()),
        ..Descriptor::of(media_type::OCI_MANIFEST, b"elsewhere")
    };
    let target = index_of(&lease, &[amd64.clone(), arm64.clone(), absent]);
    store.tag(&name("multi"), &target).unwrap();
    let load = |platform| store.image(&target, &Platform::parse(platform).unwrap());
    assert_eq!(load("linux/arm64").unwrap().target.digest, arm64.digest);
    assert_eq!(load("linux/s390x").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.manifests(&target).unwrap().len(), 2);
    // The id of one platform selects it, whatever the host is.
    let id = store.image_id(&arm64).unwrap();
    let resolved = store.resolve(id.hex()).unwrap();
    assert_eq!((resolved.target.clone(), &resolved.selected().digest), (target, &arm64.digest));
}

#[test]
fn garbage_is_what_nothing_reaches() {
    let (_directory, store) = store();
    let lease = store.lease().unwrap();
    let (kept, held, lost) = (
        image(&lease, "linux/amd64", &[b"shared", b"1"]),
        image(&lease, "linux/amd64", &[b"shared", b"2"]),
        image(&lease, "linux/amd64", &[b"shared", b"3"]),
    );
    store.tag(&name("kept"), &kept).unwrap();
    assert_eq!(collect(&store), 0, "the lease holds all");
    drop(lease);
    let roots = [held.digest.clone()];
    let collected = store.collect_garbage(&roots, Duration::ZERO).unwrap();
    assert_eq!(collected.blobs.len(), 3, "manifest, configuration and top layer of one image");
    assert!(!store.blobs().contains(&lost.digest));
    assert!(store.image(&held, &Platform::parse("linux/amd64").unwrap()).is_ok());
    assert_eq!(collect(&store), 3);
    assert!(store.image(&kept, &Platform::parse("linux/amd64").unwrap()).is_ok());
}

#[test]
fn a_lease_holds_what_is_not_here_yet() {
    let (_directory, store) = store();
    let lease = store.lease().unwrap();
    let target = Descriptor::of(media_type::OCI_LAYER, b"late");
    lease.protect([&target.digest]).unwrap();
    let Acquired::Writer(mut writer) = lease.writer(&target).unwrap() else { panic!() };
    writer.append(b"late").unwrap();
    writer.commit().unwrap();
    assert_eq!(collect(&store), 0);
    drop(lease);
    assert_eq!(collect(&store), 1);
}

#[test]
fn one_writer_a_blob_and_the_next_continues() {
    let (_directory, store) = store();
    let lease = store.lease().unwrap();
    let target = Descriptor::of(media_type::OCI_LAYER, b"content");
    let Acquired::Writer(mut first) = lease.writer(&target).unwrap() else { panic!() };
    assert!(matches!(lease.writer(&target).unwrap(), Acquired::Busy));
    first.append(b"cont").unwrap();
    drop(first);
    let Acquired::Writer(mut second) = lease.writer(&target).unwrap() else { panic!() };
    assert_eq!(second.written(), 4);
    second.append(b"ent").unwrap();
    second.commit().unwrap();
    assert!(matches!(lease.writer(&target).unwrap(), Acquired::Exists));
    assert_eq!(store.blobs().read(&target.digest, 100).unwrap(), b"content");
}

#[test]
fn wrong_bytes_are_never_stored() {
    let (_directory, store) = store();
    let lease = store.lease().unwrap();
    let target = Descriptor::of(media_type::OCI_LAYER, b"content");
    let writer = || match lease.writer(&target).unwrap() {
        Acquired::Writer(writer) => writer,
        other => panic!("{other:?}"),
    };
    let mut wrong = writer();
    wrong.append(b"CONTENT").unwrap();
    assert_eq!(wrong.commit().unwrap_err().kind(), ErrorKind::Integrity);
    assert_eq!(writer().written(), 0, "wrong content is not continued");
    let mut long = writer();
    assert_eq!(long.append(b"content and more").unwrap_err().kind(), ErrorKind::Integrity);
    drop(long);
    let mut short = writer();
    short.append(b"cont").unwrap();
    assert_eq!(short.commit().unwrap_err().kind(), ErrorKind::Integrity);
    assert!(!store.blobs().contains(&target.digest));
}

#[test]
fn damage_on_disk_is_noticed() {
    let (_directory, store) = store();
    let target = image(&store.lease().unwrap(), "linux/amd64", &[b"layer"]);
    let path = store.blobs().path(&target.digest);
    let bytes = fs::read_to_string(&path).unwrap().replace("layers", "Layers");
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    assert_eq!(store.manifest(&target).unwrap_err().kind(), ErrorKind::Integrity);
}

#[test]
fn dead_leases_and_partials_are_swept() {
    let (directory, store) = store();
    fs::write(directory.path().join("leases/lease-dead"), Digest::of(b"x").to_string()).unwrap();
    fs::write(directory.path().join("ingest/new-dead"), b"123").unwrap();
    let partial = format!("ingest/sha256-{}", Digest::of(b"x").hex());
    fs::write(directory.path().join(&partial), b"12345").unwrap();
    let collected = store.collect_garbage(&[], Duration::from_secs(3600)).unwrap();
    assert_eq!(collected.bytes, 3, "a young partial download stays");
    assert!(!directory.path().join("leases/lease-dead").exists());
    assert_eq!(store.collect_garbage(&[], Duration::ZERO).unwrap().bytes, 5);
}

#[test]
fn many_threads_tag_without_losing_a_name() {
    let (directory, store) = store();
    let target = image(&store.lease().unwrap(), "linux/amd64", &[b"layer"]);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (path, target) = (directory.path(), &target);
            scope.spawn(move || {
                let store = Store::open(path).unwrap();
                for number in 0..5 {
                    store.tag(&name(&format!("app:{thread}-{number}")), target).unwrap();
                }
            });
        }
    });
    assert_eq!(store.images().unwrap().len(), 40);
}
