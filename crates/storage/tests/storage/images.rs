//! Layers as EROFS images: mounted by the kernel they show what a directory shows, for every archive.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use brig_storage::{ErrorKind, Format, Storage, Tree};

use crate::support::{Archive, add_layer, key};

/// A storage whose layers are images, or why not.
fn image_storage(test: &str) -> Option<(tempfile::TempDir, Storage)> {
    let directory = tempfile::tempdir().unwrap();
    match Storage::open_with(directory.path().join("storage"), Format::Erofs) {
        Ok(storage) => Some((directory, storage)),
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            eprintln!("SKIPPED {test}: {error:?}");
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// Everything about the tree under a layer, one line a name, in order. Times that an archive did not give are "now".
fn show(storage: &Storage, layer: &str) -> Vec<String> {
    let mounts = storage.snapshots().view(&key(layer)).unwrap();
    let tree = Tree::of_snapshot(&mounts, Vec::new()).unwrap();
    let mut bytes = Vec::new();
    tree.export(&mut bytes).unwrap();
    let mut lines = Vec::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut records: Vec<String> = Vec::new();
        for record in entry.pax_extensions().unwrap().into_iter().flatten().flatten() {
            let (name, value) = (record.key().unwrap(), record.value_bytes().escape_ascii());
            records.push(format!("{name}={value}"));
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        let time = header.mtime().unwrap();
        let is_now = time > 1_600_000_000;
        records.retain(|record| !(is_now && record.starts_with("mtime=")));
        lines.push(format!(
            "{} {:?} {:o} {}:{} {} {:?} {:?} {} {records:?} {}",
            entry.path_bytes().escape_ascii(),
            header.entry_type(),
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            if is_now { "now".to_owned() } else { time.to_string() },
            entry.link_name_bytes().map(|name| name.escape_ascii().to_string()),
            (header.device_major().ok(), header.device_minor().ok()),
            content.len(),
            content.iter().fold(0_u64, |sum, &byte| sum.wrapping_mul(31) + u64::from(byte)),
        ));
    }
    lines
}

/// Applies a stack of archives in both forms: the same errors, and after each layer the same tree.
fn compare(case: &str, archives: &[Vec<u8>], test: &str) -> Option<()> {
    let (directory, images) = image_storage(test)?;
    let plain_directory = tempfile::tempdir().unwrap();
    let plain = Storage::open(plain_directory.path().join("storage")).unwrap();
    let mut parent: Option<String> = None;
    for (number, archive) in archives.iter().enumerate() {
        let name = format!("layer{number}");
        let expected = add_layer(&plain, &name, parent.as_deref(), archive);
        let found = add_layer(&images, &name, parent.as_deref(), archive);
        match (expected, found) {
            (Ok(()), Ok(())) => {}
            (Err(_), Err(_)) => return Some(()),
            (expected, found) => panic!("{case} {number}: {expected:?} {found:?}"),
        }
        let (expected, found) = (show(&plain, &name), show(&images, &name));
        for (expected, found) in expected.iter().zip(&found) {
            assert_eq!(found, expected, "{case} {number}");
        }
        assert_eq!(found.len(), expected.len(), "{case} {number}");
        parent = Some(name);
    }
    check(directory.path(), case);
    Some(())
}

/// Lets erofs-utils look at every image.
fn check(directory: &Path, case: &str) {
    let find = Command::new("find").arg(directory).args(["-name", "*.erofs"]).output().unwrap();
    for image in String::from_utf8(find.stdout).unwrap().lines() {
        match Command::new("fsck.erofs").arg(image).output() {
            Ok(output) => assert!(
                output.status.success(),
                "{case}: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
            Err(error) => eprintln!("SKIPPED fsck of EROFS images: {error}"),
        }
    }
}

fn everything() -> Vec<u8> {
    let long = "n".repeat(250);
    let many = (0..3000).fold(Archive::new().directory("many/", 0o755), |archive, number| {
        archive.file(&format!("many/{number:05}-{}", "x".repeat(number % 60)), "c")
    });
    many.directory("d/", 0o2775)
        .directory("d/empty/", 0o700)
        .file("d/!before-dot", "1")
        .file("empty", "")
        .file("tail", &"t".repeat(100))
        .file("block", &"b".repeat(4096))
        .file("nearly", &"b".repeat(4090))
        .file("blocks-and-tail", &"bt".repeat(100_000))
        .symlink("link", "d/empty")
        .symlink("dangling", &"../".repeat(30))
        .hard_link("hard", "blocks-and-tail")
        .hard_link("d/hard", "hard")
        .hard_link("link-to-link", "link")
        .device("null", b'3', (1, 3))
        .device("loop", b'4', (7, 300))
        .raw(b'6', "fifo", "", b"")
        .pax(&[("path", long.as_bytes()), ("mtime", b"12345.678901234"), ("uid", b"3000000")])
        .file("replaced", "long name, odd time")
        .pax(&[("mtime", b"-1.5"), ("SCHILY.xattr.user.key", b"va\nlue")])
        .file("old", "before 1970")
        .pax(&[(
            "SCHILY.xattr.security.capability",
            b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        )])
        .file("capable", "x")
        .pax(&[
            ("SCHILY.xattr.trusted.note", &[b'v'; 900]),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.more", &[b'w'; 1200]),
        ])
        .directory("attributes/", 0o755)
        .file("twice", "first")
        .file("twice", "second")
        .hard_link("once", "twice")
        .file("once", "no link any more")
        .file("becomes/directory", "x")
        .file("becomes", "file")
        .finish()
}

#[test]
fn an_image_shows_what_a_directory_shows() {
    let test = "an_image_shows_what_a_directory_shows";
    let top = Archive::new()
        .directory("./", 0o711)
        .file(".wh.empty", "")
        .file("d/.wh..wh..opq", "")
        .file("d/new", "n")
        .file(".wh.many", "")
        .file("many/again", "a")
        .file("link/through", "the link of the layer below")
        .hard_link("from-below", "d/hard")
        .hard_link("copied", "block")
        .hard_link("copied-link", "dangling")
        .file(".wh.attributes", "")
        .file(".wh.absent", "")
        .file(".wh..wh.plnk/1", "")
        .finish();
    let hidden = Archive::new().file("only", "this").file(".wh..wh..opq", "").finish();
    compare("everything", &[everything(), top, hidden], test);
}

#[test]
fn hostile_archives_end_the_same_in_both_forms() {
    let test = "hostile_archives_end_the_same_in_both_forms";
    let base = || {
        Archive::new()
            .directory("dir/", 0o755)
            .file("dir/file", "f")
            .symlink("up", "../../..")
            .symlink("loop", "loop")
            .symlink("to-dir", "dir")
            .symlink("abs", "/dir")
            .finish()
    };
    let archives = [
        Archive::new().file("../escape", "x").finish(),
        Archive::new().file("/absolute", "x").finish(),
        Archive::new().file("up/tmp/x", "x").finish(),
        Archive::new().file("loop/x", "x").finish(),
        Archive::new().file("to-dir/x", "x").file("abs/y", "y").finish(),
        Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", "x").finish(),
        Archive::new().symlink("s", "..").file("s/etc/x", "x").finish(),
        Archive::new().hard_link("h", "../../etc/passwd").finish(),
        Archive::new().hard_link("h", "absent").finish(),
        Archive::new().hard_link("h", "dir").finish(),
        Archive::new().hard_link("dir", "dir/file").finish(),
        Archive::new().file("x/f", "f").hard_link("x", "x/f").finish(),
        Archive::new().hard_link("dir/file", "dir/file").finish(),
        Archive::new().hard_link("up2", "up").finish(),
        Archive::new().symlink("./", "etc").finish(),
        Archive::new().file("./", "x").finish(),
        Archive::new().device("hide", b'3', (0, 0)).finish(),
        Archive::new().file(".wh..", "").finish(),
        Archive::new().file(".wh...", "").finish(),
        Archive::new().file("dir/.wh.", "").finish(),
        Archive::new().file("dir/file/below", "x").finish(),
        Archive::new().file("dir", "now a file").finish(),
        Archive::new().file("dir", "now a file").file("dir/x", "and again not").finish(),
        Archive::new().file(".wh.dir", "").file("dir/file", "back").finish(),
        Archive::new().file(".wh.dir", "").directory("dir/", 0o700).finish(),
        Archive::new().directory("dir/", 0o700).file(".wh.dir", "").finish(),
        Archive::new().file(".wh.to-dir", "").file("to-dir/x", "x").finish(),
        Archive::new().file("dir/.wh..wh..opq", "").hard_link("h", "dir/file").finish(),
        (0..1000).fold(Archive::new(), |a, _| a.file("dir/.wh..wh..opq", "")).finish(),
        Archive::new().lying("x", b"short", 5000).finish(),
        Archive::new().file("a", "x").cut(700),
        Archive::new().pax(&[("size", b"3")]).raw(b'0', "sized", "", b"abc").finish(),
    ];
    for (number, archive) in archives.into_iter().enumerate() {
        if compare(&format!("case {number}"), &[base(), archive], test).is_none() {
            return;
        }
    }
}

#[test]
fn a_real_tree_is_the_same_as_an_image() {
    let test = "a_real_tree_is_the_same_as_an_image";
    let tar = Command::new("tar")
        .args(["-C", "/", "--xattrs", "--xattrs-include=*", "--ignore-failed-read", "-cf", "-"])
        .args(["etc", "usr/share/zoneinfo", "usr/share/perl"])
        .stderr(std::process::Stdio::null())
        .output();
    compare("real", &[tar.unwrap().stdout], test);
}

#[test]
fn images_and_directories_stack_and_images_leave_no_mounts() {
    let test = "images_and_directories_stack_and_images_leave_no_mounts";
    let Some((directory, storage)) = image_storage(test) else { return };
    let base = Archive::new().file("etc/a", "1").file("etc/b", "2").finish();
    add_layer(&storage, "base", None, &base).unwrap();
    drop(storage);
    let path = directory.path().join("storage");
    let mounted =
        || fs::read_to_string("/proc/self/mountinfo").unwrap().contains(path.to_str().unwrap());
    // A directory on an image, and an image on that.
    let storage = Storage::open(&path).unwrap();
    add_layer(&storage, "middle", Some("base"), &Archive::new().file("etc/.wh.a", "").finish())
        .unwrap();
    assert!(mounted());
    drop(storage);
    assert!(!mounted());
    let storage = Storage::open_with(&path, Format::Erofs).unwrap();
    let top = Archive::new().hard_link("etc/c", "etc/b").finish();
    add_layer(&storage, "top", Some("middle"), &top).unwrap();
    storage.snapshots().prepare_container(&key("box"), Some(&key("top"))).unwrap();
    let mounts = storage.snapshots().mounts(&key("box")).unwrap();
    let tree = Tree::of_snapshot(&mounts, Vec::new()).unwrap();
    assert_eq!(tree.read_file("/etc/c", 10).unwrap(), b"2");
    assert!(tree.read_file("/etc/a", 10).is_err());
    assert_eq!(storage.snapshots().changes(&key("box"), &[]).unwrap(), []);
    // An image can go while a mount of its files is in use elsewhere; nothing of it stays.
    storage.snapshots().remove(&key("box")).unwrap();
    for layer in ["top", "middle", "base"] {
        storage.snapshots().remove(&key(layer)).unwrap();
    }
    assert_eq!(tree.read_file("/etc/c", 10).unwrap(), b"2");
    storage.snapshots().sweep().unwrap();
    assert!(!mounted());
    assert_eq!(fs::read_dir(path.join("snapshots")).unwrap().count(), 0);
}
