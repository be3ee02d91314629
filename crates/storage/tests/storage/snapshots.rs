//! The life of snapshots, and how they differ.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use brig_storage::{ApplyOptions, ChangeKind, Durability, ErrorKind, Storage, Tree, Usage};

use crate::layers::{names, storage};
use crate::support::{Archive, add_layer, describe, key};

/// Runs a script in a container snapshot mounted at `merged/`, in a mount namespace of its own.
fn change(storage: &Storage, container: &str, script: &str) {
    let mounts = storage.snapshots().mounts(&key(container)).unwrap();
    let [mount] = mounts.as_slice() else { panic!("one mount") };
    let options = mount.options.join(",");
    let place = tempfile::tempdir().unwrap();
    let command = format!(
        "set -e; mount -t {} {} {} -o '{options}'; cd {}; {script}",
        if mount.fstype == "bind" { "none" } else { "overlay" },
        mount.source.display(),
        place.path().display(),
        place.path().display(),
    );
    let status = Command::new("unshare").args(["-m", "sh", "-c", &command]).status().unwrap();
    assert!(status.success(), "{script}");
}

/// What a runtime makes.
const MOUNT_POINTS: &[&str] = &["/proc", "/dev", "/etc/hosts", "/run/lock/host", "/srv"];

fn changes(storage: &Storage, container: &str) -> Vec<String> {
    let changes = storage.snapshots().changes(&key(container), MOUNT_POINTS).unwrap();
    let letter = |kind| match kind {
        ChangeKind::Added => 'A',
        ChangeKind::Modified => 'C',
        ChangeKind::Deleted => 'D',
    };
    changes
        .iter()
        .map(|change| format!("{} {}", letter(change.kind), change.path.display()))
        .collect()
}

fn base() -> Vec<u8> {
    Archive::new()
        .directory("etc/", 0o755)
        .file("etc/passwd", "root")
        .file("etc/group", "root")
        .directory("var/lib/", 0o755)
        .file("var/lib/data", "d")
        .file("var/lib/more", "m")
        .file("swap", "file")
        .finish()
}

#[test]
fn a_layer_is_there_after_commit_and_not_before() {
    let (directory, storage) = storage();
    let snapshots = storage.snapshots();
    let mut writer = snapshots.prepare_layer(&key("a"), None).unwrap();
    let applied = writer.apply(&mut base().as_slice(), &ApplyOptions::default()).unwrap();
    assert_eq!((applied.size, applied.entries), (14, 7));
    assert!(!snapshots.exists(&key("a")));
    let busy = snapshots.prepare_layer(&key("a"), None).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Conflict);
    writer.commit(Durability::Now).unwrap();
    assert!(snapshots.exists(&key("a")));
    assert_eq!(snapshots.usage(&key("a")).unwrap().bytes, 14);
    let twice = snapshots.prepare_layer(&key("a"), None).unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::AlreadyExists);
    drop(snapshots.prepare_layer(&key("b"), Some(&key("a"))).unwrap());
    assert!(!snapshots.exists(&key("b")));
    // Nothing is left of the dropped one, and all of it survives a restart.
    let listed = fs::read_dir(directory.path().join("storage/snapshots")).unwrap().count();
    assert_eq!(listed, 1);
    drop(storage);
    let storage = Storage::open(directory.path().join("storage")).unwrap();
    assert_eq!(storage.snapshots().list().len(), 1);
    assert_eq!(storage.snapshots().usage(&key("a")).unwrap().bytes, 14);
}

#[test]
fn the_root_is_private_and_used_once() {
    let (directory, storage) = storage();
    let root = directory.path().join("storage");
    assert_eq!(Storage::open(&root).unwrap_err().kind(), ErrorKind::Conflict);
    for path in ["", "snapshots", "volumes"] {
        let mode = fs::metadata(root.join(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{path}");
    }
    drop(storage);
    Storage::open(&root).unwrap();
}

#[test]
fn what_a_crash_leaves_is_swept() {
    let (directory, storage) = storage();
    add_layer(&storage, "a", None, &base()).unwrap();
    let writer = storage.snapshots().prepare_layer(&key("b"), Some(&key("a"))).unwrap();
    // As a crash: neither committed nor dropped.
    std::mem::forget(writer);
    storage.snapshots().prepare_container(&key("c"), Some(&key("a"))).unwrap();
    storage.snapshots().remove(&key("c")).unwrap();
    let snapshots = directory.path().join("storage/snapshots");
    assert_eq!(fs::read_dir(&snapshots).unwrap().count(), 3);
    // The forgotten writer still holds handles of the storage, but not its lock.
    drop(storage);
    let storage = Storage::open(directory.path().join("storage")).unwrap();
    storage.snapshots().sweep().unwrap();
    let left: Vec<_> =
        fs::read_dir(&snapshots).unwrap().map(|name| name.unwrap().file_name()).collect();
    assert_eq!(left, ["0"]);
    add_layer(&storage, "b", Some("a"), &base()).unwrap();
}

#[test]
fn parents_cannot_be_removed_before_their_children() {
    let (_directory, storage) = storage();
    let snapshots = storage.snapshots();
    add_layer(&storage, "a", None, &base()).unwrap();
    snapshots.prepare_container(&key("c"), Some(&key("a"))).unwrap();
    assert_eq!(snapshots.remove(&key("a")).unwrap_err().kind(), ErrorKind::Conflict);
    snapshots.remove(&key("c")).unwrap();
    let writer = snapshots.prepare_layer(&key("b"), Some(&key("a"))).unwrap();
    assert_eq!(snapshots.remove(&key("a")).unwrap_err().kind(), ErrorKind::Conflict);
    drop(writer);
    snapshots.remove(&key("a")).unwrap();
    assert_eq!(snapshots.remove(&key("a")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(snapshots.mounts(&key("c")).unwrap_err().kind(), ErrorKind::NotFound);
    snapshots.sweep().unwrap();
}

#[test]
fn a_sweep_goes_on_past_what_it_cannot_delete_and_tells_how_much_is_left() {
    let (directory, storage) = storage();
    let snapshots = storage.snapshots();
    for number in 0..8 {
        let name = number.to_string();
        add_layer(&storage, &name, None, &base()).unwrap();
        snapshots.remove(&key(&name)).unwrap();
    }
    // Not what a removal leaves: a file has no place where something could be mounted, so looking there fails.
    let place = directory.path().join("storage/snapshots");
    for number in 100..108 {
        fs::write(place.join(format!("removing-{number}")), "").unwrap();
    }
    let error = snapshots.sweep().unwrap_err();
    assert!(error.to_string().contains("7 more failures"), "{error:?}");
    assert_eq!(fs::read_dir(&place).unwrap().count(), 8);
    assert_eq!(snapshots.removing(), Usage::default());
}

#[test]
fn changes_are_told_as_docker_diff_tells_them() {
    let (_directory, storage) = storage();
    add_layer(&storage, "base", None, &base()).unwrap();
    storage.snapshots().prepare_container(&key("c"), Some(&key("base"))).unwrap();
    assert_eq!(changes(&storage, "c"), Vec::<String>::new());
    change(
        &storage,
        "c",
        "echo x > etc/passwd; rm etc/group; rm -r var/lib; mkdir -p var/lib/new; mkdir -p a/b; \
         echo y > a/b/c; rm swap; mkdir swap; echo z > swap/in; touch etc/added; rm etc/added",
    );
    assert_eq!(
        changes(&storage, "c"),
        [
            "A /a",
            "A /a/b",
            "A /a/b/c",
            "C /etc",
            "D /etc/group",
            "C /etc/passwd",
            "C /swap",
            "A /swap/in",
            "C /var",
            "C /var/lib",
            "D /var/lib/data",
            "D /var/lib/more",
            "A /var/lib/new",
        ]
    );
    // Counting sees the container's files too.
    assert!(storage.snapshots().usage(&key("c")).unwrap().inodes >= 10);
}

#[test]
fn a_diff_applied_elsewhere_gives_the_same_tree_and_the_same_bytes() {
    let (directory, storage) = storage();
    add_layer(&storage, "base", None, &base()).unwrap();
    storage.snapshots().prepare_container(&key("c"), Some(&key("base"))).unwrap();
    change(
        &storage,
        "c",
        "rm -r var/lib; mkdir var/lib; echo n > var/lib/n; ln var/lib/n hard; ln -s etc link; \
         chmod 4711 etc/passwd; mkfifo fifo; chown 70000:3000000 etc/group; rm swap; \
         echo 1 > $(printf 'n%.0s' $(seq 120)); setfattr -n user.a -v b etc 2>/dev/null || true; \
         touch -d '2001-02-03 04:05:06.789 UTC' hard",
    );
    let diff = || {
        let mut bytes = Vec::new();
        storage.snapshots().diff_tar(&key("c"), MOUNT_POINTS, &mut bytes).unwrap();
        bytes
    };
    assert!(diff() == diff(), "the same files gave different bytes");
    add_layer(&storage, "commit", Some("base"), &diff()).unwrap();
    let extract = |mounts: &[brig_storage::Mount], name: &str| {
        let tree = Tree::of_snapshot(mounts, Vec::new()).unwrap();
        let mut bytes = Vec::new();
        tree.export(&mut bytes).unwrap();
        let place = directory.path().join(name);
        fs::create_dir(&place).unwrap();
        fs::write(directory.path().join("x.tar"), bytes).unwrap();
        let status = Command::new("tar")
            .args(["--numeric-owner", "-xpf"])
            .arg(directory.path().join("x.tar"))
            .arg("-C")
            .arg(&place)
            .status()
            .unwrap();
        assert!(status.success());
        describe(&place)
    };
    let container = extract(&storage.snapshots().view(&key("c")).unwrap(), "container");
    let commit = extract(&storage.snapshots().view(&key("commit")).unwrap(), "commit");
    // The root's own time changes when names are made in it, and no diff carries it.
    let without_root = |text: &str| text.lines().skip(1).collect::<Vec<_>>().join("\n");
    assert_eq!(without_root(&commit), without_root(&container));
    let hard = directory.path().join("commit/hard");
    assert_eq!(fs::metadata(hard).unwrap().nlink(), 2);
}

#[test]
fn a_container_without_parent_is_a_plain_directory() {
    let (_directory, storage) = storage();
    storage.snapshots().prepare_container(&key("scratch"), None).unwrap();
    let mounts = storage.snapshots().mounts(&key("scratch")).unwrap();
    assert_eq!(mounts[0].fstype, "bind");
    assert!(Path::new(&mounts[0].source).is_dir());
    assert_eq!(changes(&storage, "scratch"), Vec::<String>::new());
}

#[test]
fn a_hundred_layers_mount() {
    let (_directory, storage) = storage();
    let mut parent: Option<String> = None;
    for number in 0..100 {
        let name = format!("layer-{number}");
        let archive = Archive::new().file(&format!("f{number:03}"), "x").finish();
        add_layer(&storage, &name, parent.as_deref(), &archive).unwrap();
        parent = Some(name);
    }
    assert_eq!(names(&storage, "layer-99").len(), 100);
}

#[test]
fn layers_of_one_image_are_written_at_the_same_time() {
    let (_directory, storage) = storage();
    let snapshots = storage.snapshots();
    let mut lower = snapshots.prepare_layer(&key("a"), None).unwrap();
    let upper = snapshots.prepare_layer(&key("b"), Some(&key("a"))).unwrap();
    let early = snapshots.prepare_container(&key("c"), Some(&key("b"))).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::NotFound);
    // The upper archive speaks of files below, which are not there yet when it starts.
    let top = Archive::new().file("new", "n").file("etc/.wh.group", "").finish();
    std::thread::scope(|scope| {
        let above = scope.spawn(|| {
            let mut upper = upper;
            upper.apply(&mut top.as_slice(), &ApplyOptions::default()).unwrap();
            upper.commit(Durability::Later).unwrap();
        });
        lower.apply(&mut base().as_slice(), &ApplyOptions::default()).unwrap();
        assert!(!snapshots.exists(&key("b")));
        lower.commit(Durability::Later).unwrap();
        above.join().unwrap();
    });
    let names = names(&storage, "b");
    assert!(names.contains(&"etc/passwd".to_owned()) && names.contains(&"new".to_owned()));
    assert!(!names.contains(&"etc/group".to_owned()));
}

#[test]
fn a_layer_whose_parent_fails_fails_too() {
    let (directory, storage) = storage();
    let snapshots = storage.snapshots();
    let lower = snapshots.prepare_layer(&key("a"), None).unwrap();
    let upper = snapshots.prepare_layer(&key("b"), Some(&key("a"))).unwrap();
    std::thread::scope(|scope| {
        let above = scope.spawn(|| upper.commit(Durability::Later).unwrap_err());
        drop(lower);
        assert_eq!(above.join().unwrap().kind(), ErrorKind::NotFound);
    });
    assert_eq!(fs::read_dir(directory.path().join("storage/snapshots")).unwrap().count(), 0);
}

/// Makes an unsettled layer look as if it had been written before the machine was last started.
fn forget_boot(directory: &tempfile::TempDir, number: u64) {
    let path = directory.path().join(format!("storage/snapshots/{number}/unsettled.json"));
    let mut mark: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    mark["boot"] = "another".into();
    fs::write(&path, mark.to_string()).unwrap();
}

#[test]
fn unsettled_layers_survive_a_restart_but_not_a_power_cut() {
    let (directory, storage) = storage();
    let path = directory.path().join("storage");
    let add = |storage: &Storage, name: &str, parent: Option<&str>| {
        let parent = parent.map(key);
        let mut writer = storage.snapshots().prepare_layer(&key(name), parent.as_ref()).unwrap();
        writer.apply(&mut base().as_slice(), &ApplyOptions::default()).unwrap();
        writer.commit(Durability::Later).unwrap();
    };
    add(&storage, "a", None);
    storage.snapshots().settle().unwrap();
    add(&storage, "b", Some("a"));
    add(&storage, "c", Some("b"));
    storage.snapshots().prepare_container(&key("box"), Some(&key("c"))).unwrap();
    drop(storage);
    let storage = Storage::open(&path).unwrap();
    assert_eq!(storage.snapshots().list().len(), 4);
    drop(storage);
    // The middle layer is lost, and what stands on it with it. The container waits for both to be made again.
    forget_boot(&directory, 1);
    let storage = Storage::open(&path).unwrap();
    let snapshots = storage.snapshots();
    assert!(snapshots.exists(&key("a")) && snapshots.exists(&key("box")));
    assert!(!snapshots.exists(&key("b")) && !snapshots.exists(&key("c")));
    assert_eq!(snapshots.mounts(&key("box")).unwrap_err().kind(), ErrorKind::NotFound);
    add(&storage, "b", Some("a"));
    add(&storage, "c", Some("b"));
    snapshots.settle().unwrap();
    snapshots.mounts(&key("box")).unwrap();
    snapshots.sweep().unwrap();
    let unsettled = Command::new("find").arg(&path).args(["-name", "unsettled.json"]).output();
    assert!(unsettled.unwrap().stdout.is_empty(), "settled layers are marked unsettled");
}

#[test]
fn what_was_made_to_be_mounted_on_is_neither_told_nor_archived() {
    let (_directory, storage) = storage();
    add_layer(&storage, "base", None, &base()).unwrap();
    storage.snapshots().prepare_container(&key("c"), Some(&key("base"))).unwrap();
    let names = |bytes: &[u8]| {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap();
        let name = |entry: tar::Entry<'_, &[u8]>| entry.path().unwrap().display().to_string();
        entries.map(|entry| name(entry.unwrap())).collect::<Vec<_>>()
    };
    let archived = || {
        let mut bytes = Vec::new();
        storage.snapshots().diff_tar(&key("c"), MOUNT_POINTS, &mut bytes).unwrap();
        names(&bytes)
    };
    change(&storage, "c", "mkdir -p proc dev run/lock; touch etc/hosts run/lock/host");
    assert_eq!(changes(&storage, "c"), Vec::<String>::new());
    assert_eq!(archived(), Vec::<String>::new());
    // What has something in it, or is of another kind, is somebody's.
    change(&storage, "c", "touch dev/null run/lock/mine; echo 127.0.0.1 > etc/hosts; ln -s x srv");
    let told = [
        "A /dev",
        "A /dev/null",
        "C /etc",
        "A /etc/hosts",
        "A /run",
        "A /run/lock",
        "A /run/lock/mine",
        "A /srv",
    ];
    assert_eq!(changes(&storage, "c"), told);
    assert_eq!(archived().len(), told.len());
}
