//! Layers on real overlayfs: whiteouts, links, attributes, and archives that mean harm. Needs root.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use crate::support::{Archive, add_layer, describe, key};
use brig_storage::{ApplyOptions, ErrorKind, Limits, Storage, Tree};

/// Shows a layer through real overlayfs: the sorted names of all its files.
pub(crate) fn names(storage: &Storage, layer: &str) -> Vec<String> {
    let mounts = storage.snapshots().view(&key(layer)).unwrap();
    let tree = Tree::of_snapshot(&mounts, Vec::new()).unwrap();
    let mut bytes = Vec::new();
    tree.export(&mut bytes).unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .filter(|name| name != "./" && !name.is_empty())
        .collect();
    names.sort();
    names
}

pub(crate) fn storage() -> (tempfile::TempDir, Storage) {
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::open(directory.path().join("storage")).unwrap();
    (directory, storage)
}

/// The `fs` directory of the only snapshot.
fn only_files(directory: &tempfile::TempDir) -> std::path::PathBuf {
    directory.path().join("storage/snapshots/0/fs")
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_of_the_same_layer() {
    let (_directory, storage) = storage();
    let base = Archive::new()
        .file("kept", "k")
        .file("gone", "g")
        .directory("d/", 0o755)
        .file("d/old", "o")
        .directory("e/", 0o755)
        .file("e/old", "o")
        .file("was-directory/inside", "i")
        .finish();
    add_layer(&storage, "base", None, &base).unwrap();
    let top = Archive::new()
        .file(".wh.gone", "")
        .file("d/new", "n")
        .file("d/.wh..wh..opq", "")
        // After a whiteout, a new directory of that name must not show the old content.
        .file(".wh.e", "")
        .file("e/new", "n")
        // The other way round: the whiteout only speaks of the layers below.
        .file("was-directory/other", "o")
        .file(".wh.was-directory", "")
        .file(".wh.absent", "")
        .file(".wh..wh.plnk/1.2", "")
        .finish();
    add_layer(&storage, "top", Some("base"), &top).unwrap();
    assert_eq!(
        names(&storage, "top"),
        ["d/", "d/new", "e/", "e/new", "kept", "was-directory/", "was-directory/other"]
    );
    // A third layer brings a name back.
    add_layer(&storage, "third", Some("top"), &Archive::new().file("gone", "x").finish()).unwrap();
    assert!(names(&storage, "third").contains(&"gone".to_owned()));
}

#[test]
fn an_opaque_root_hides_every_name_below() {
    let (_directory, storage) = storage();
    let base = Archive::new().file("a", "").file("b/c", "").file("d/e", "").finish();
    add_layer(&storage, "base", None, &base).unwrap();
    let top = Archive::new().file("b/new", "").file(".wh..wh..opq", "").finish();
    add_layer(&storage, "top", Some("base"), &top).unwrap();
    assert_eq!(names(&storage, "top"), ["b/", "b/new"]);
}

#[test]
fn implied_parents_take_after_the_layers_below() {
    let (directory, storage) = storage();
    let base = Archive::new()
        .directory("private/", 0o1710)
        .directory("usr/bin/", 0o755)
        .symlink("bin", "usr/bin")
        .symlink("lib", "/usr/lib")
        .finish();
    add_layer(&storage, "base", None, &base).unwrap();
    let top = Archive::new().file("private/x", "").file("bin/tool", "").file("lib/l", "").finish();
    add_layer(&storage, "top", Some("base"), &top).unwrap();
    let names = names(&storage, "top");
    for name in ["private/x", "usr/bin/tool", "usr/lib/l", "bin", "lib"] {
        assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
    }
    let files = directory.path().join("storage/snapshots/1/fs");
    let private = fs::metadata(files.join("private")).unwrap();
    assert_eq!(private.mode() & 0o7777, 0o1710);
    assert_eq!(private.mtime(), 1_000_000_000);
}

#[test]
fn hard_links_to_the_layer_below_bring_the_file_up() {
    let (directory, storage) = storage();
    add_layer(&storage, "base", None, &Archive::new().file("a/f", "text").finish()).unwrap();
    let top = Archive::new().hard_link("b/g", "a/f").finish();
    add_layer(&storage, "top", Some("base"), &top).unwrap();
    let files = directory.path().join("storage/snapshots/1/fs");
    assert_eq!(fs::read(files.join("b/g")).unwrap(), b"text");
    let inode = |path: &str| fs::metadata(files.join(path)).unwrap().ino();
    assert_eq!(inode("a/f"), inode("b/g"));
}

#[test]
fn later_entries_replace_earlier_ones_of_any_kind() {
    let (directory, storage) = storage();
    let archive = Archive::new()
        .file("x", "file")
        .directory("x/", 0o755)
        .file("x/inside", "i")
        .file("y/deep/er", "1")
        .file("y", "file over directory")
        .file("z", "first")
        .file("z", "second")
        .symlink("l", "/etc")
        .file("l", "no longer a link")
        .finish();
    add_layer(&storage, "layer", None, &archive).unwrap();
    let files = only_files(&directory);
    assert!(files.join("x/inside").is_file());
    assert_eq!(fs::read(files.join("y")).unwrap(), b"file over directory");
    assert_eq!(fs::read(files.join("z")).unwrap(), b"second");
    assert_eq!(fs::read(files.join("l")).unwrap(), b"no longer a link");
}

#[test]
fn attributes_arrive_whole() {
    let (directory, storage) = storage();
    // A version 2 capability (cap_net_raw=ep) whose bytes hold a newline in the unused part.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let archive = Archive::new()
        .pax(&[
            ("mtime", b"1234567890.123456789"),
            ("uid", b"3000000"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.note", b"line\nline"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("size", b"4"),
        ])
        .lying("tool", b"text", 0)
        .directory("d/", 0o2755)
        .file("d/file", "f")
        .device("d/null", b'3', (1, 3))
        .device("d/fifo", b'6', (0, 0))
        .finish();
    add_layer(&storage, "layer", None, &archive).unwrap();
    let files = only_files(&directory);
    let tool = fs::metadata(files.join("tool")).unwrap();
    assert_eq!(
        (tool.mtime(), tool.mtime_nsec(), tool.uid()),
        (1_234_567_890, 123_456_789, 3_000_000)
    );
    assert_eq!(fs::read(files.join("tool")).unwrap(), b"text");
    let mut value = [0_u8; 64];
    let read =
        |name: &str, value: &mut [u8]| rustix::fs::lgetxattr(files.join("tool"), name, value);
    let length = read("user.note", &mut value).unwrap();
    assert_eq!(&value[..length], b"line\nline");
    let length = read("security.capability", &mut value).unwrap();
    assert_eq!(&value[..length], &capability);
    assert!(read("trusted.overlay.opaque", &mut value).is_err());
    let d = fs::metadata(files.join("d")).unwrap();
    assert_eq!((d.mode() & 0o7777, d.mtime()), (0o2755, 1_000_000_000));
    let null = fs::metadata(files.join("d/null")).unwrap();
    assert!(null.file_type().is_char_device() && null.rdev() == 0x103);
    assert!(fs::metadata(files.join("d/fifo")).unwrap().file_type().is_fifo());
}

/// C3 of the robustness catalogue: each archive is an error or stays inside.
#[test]
#[expect(clippy::too_many_lines, reason = "a table of archives")]
fn hostile_archives_are_refused_or_confined() {
    let directory = tempfile::tempdir().unwrap();
    let canary = directory.path().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("file"), "untouched").unwrap();
    let outside = canary.to_str().unwrap().to_owned();
    let file = format!("{outside}/file");
    let many_opaque = || {
        (0..2000).fold(Archive::new().directory("d/", 0o755), |archive, _| {
            archive.file("d/.wh..wh..opq", "")
        })
    };
    let cases: Vec<(&str, Vec<u8>, bool)> = vec![
        ("dot dot", Archive::new().file("../../../../canary/new", "x").finish(), false),
        ("dot dot inside", Archive::new().file("a/../../x", "x").finish(), false),
        ("absolute", Archive::new().file(&file, "overwritten").finish(), true),
        (
            "link then write",
            Archive::new().symlink("l", &outside).file("l/file", "x").finish(),
            true,
        ),
        (
            "climbing link then write",
            Archive::new().symlink("l", "../../../../canary").file("l/file", "x").finish(),
            true,
        ),
        (
            "chain of links",
            Archive::new().symlink("a", "b").symlink("b", &outside).file("a/file", "x").finish(),
            true,
        ),
        (
            "link loop",
            Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", "").finish(),
            false,
        ),
        ("hard link outside", Archive::new().hard_link("h", &file).file("h", "x").finish(), false),
        (
            "hard link climbing",
            Archive::new().hard_link("h", "../../../../canary/file").finish(),
            false,
        ),
        (
            "hard link through link",
            Archive::new().symlink("l", &outside).hard_link("h", "l/file").finish(),
            false,
        ),
        (
            "hard link to directory",
            Archive::new().directory("d/", 0o755).hard_link("h", "d").finish(),
            false,
        ),
        ("hard link to the root", Archive::new().hard_link("h", "/").finish(), false),
        (
            "root is a link",
            Archive::new().symlink("./", &outside).file("file", "x").finish(),
            false,
        ),
        ("root is a file", Archive::new().raw(b'0', ".", "", b"").finish(), false),
        ("whiteout of dot dot", Archive::new().file(".wh...", "").finish(), false),
        ("whiteout of dot", Archive::new().file(".wh..", "").finish(), false),
        ("whiteout of nothing", Archive::new().file(".wh.", "").finish(), false),
        (
            "whiteout through link",
            Archive::new().symlink("l", &outside).file("l/.wh.file", "").finish(),
            true,
        ),
        (
            "opaque through link",
            Archive::new().symlink("l", &outside).file("l/.wh..wh..opq", "").finish(),
            true,
        ),
        ("overlay device", Archive::new().device("x", b'3', (0, 0)).finish(), false),
        ("opaque many times", many_opaque().finish(), true),
        ("cut in content", Archive::new().file("x", &"y".repeat(2000)).cut(1500), false),
        ("cut in header", Archive::new().file("x", "y").file("z", "").cut(1200), false),
        (
            "wrong checksum",
            {
                let mut b = Archive::new().file("x", "").finish();
                b[0] ^= 1;
                b
            },
            false,
        ),
        ("unknown type", Archive::new().raw(b'Z', "x", "", b"").finish(), false),
        ("content behind a link", Archive::new().raw(b'2', "x", "y", &[0; 512]).finish(), false),
        (
            "no such user",
            Archive::new().pax(&[("uid", b"4294967295")]).file("x", "").finish(),
            false,
        ),
        ("NUL in a path", Archive::new().pax(&[("path", b"a\0b")]).file("x", "").finish(), false),
        (
            "huge size",
            Archive::new().pax(&[("size", b"18446744073709551615")]).file("x", "").finish(),
            false,
        ),
        (
            "bad sparse map",
            Archive::new()
                .pax(&[("GNU.sparse.map", b"5,1,0,1"), ("GNU.sparse.size", b"9")])
                .file("x", "ab")
                .finish(),
            false,
        ),
    ];
    for (number, (name, archive, accepted)) in cases.into_iter().enumerate() {
        let root = directory.path().join(number.to_string());
        let storage = Storage::open(&root).unwrap();
        let result = add_layer(&storage, "layer", None, &archive);
        assert_eq!(result.is_ok(), accepted, "{name}: {result:?}");
        if let Err(error) = result {
            let expected = [
                ErrorKind::Integrity,
                ErrorKind::Exhausted,
                ErrorKind::NotFound,
                ErrorKind::InvalidInput,
            ];
            assert!(expected.contains(&error.kind()), "{name}: {error:?}");
            assert!(!storage.snapshots().exists(&key("layer")));
            assert_eq!(fs::read_dir(root.join("snapshots")).unwrap().count(), 0, "{name}");
        }
        assert_eq!(fs::read_dir(&canary).unwrap().count(), 1, "{name}");
        assert_eq!(fs::read(canary.join("file")).unwrap(), b"untouched", "{name}");
        let stat = fs::metadata(canary.join("file")).unwrap();
        assert_eq!(stat.nlink(), 1, "{name}");
    }
}

#[test]
fn limits_are_enforced() {
    let (_directory, storage) = storage();
    let apply = |archive: Vec<u8>, change: &dyn Fn(&mut Limits)| {
        let mut writer = storage.snapshots().prepare_layer(&key("layer"), None).unwrap();
        let mut options = ApplyOptions::default();
        change(&mut options.limits);
        writer.apply(&mut archive.as_slice(), &options).map_err(|error| error.kind())
    };
    let two = || Archive::new().file("a", "1").file("b", "2").finish();
    assert!(apply(two(), &|limits| limits.entries_max = 2).is_ok());
    let exhausted = Err(ErrorKind::Exhausted);
    let nothing = |result: Result<_, ErrorKind>| result.map(|_| ());
    assert_eq!(nothing(apply(two(), &|limits| limits.entries_max = 1)), exhausted);
    assert_eq!(nothing(apply(two(), &|limits| limits.stream_bytes_max = 1024)), exhausted);
    let long = || Archive::new().pax(&[("path", &[b'a'; 200])]).file("x", "").finish();
    assert_eq!(nothing(apply(long(), &|limits| limits.path_bytes_max = 100)), exhausted);
    assert_eq!(nothing(apply(long(), &|limits| limits.header_bytes_max = 100)), exhausted);
    let attribute =
        || Archive::new().pax(&[("SCHILY.xattr.user.a", &[b'a'; 200])]).file("x", "").finish();
    assert_eq!(nothing(apply(attribute(), &|limits| limits.xattr_bytes_max = 100)), exhausted);
}

#[test]
fn the_reader_is_read_to_its_own_end() {
    let (_directory, storage) = storage();
    let mut bytes = Archive::new().file("a", "1").finish();
    bytes.extend([0; 9000]);
    let mut writer = storage.snapshots().prepare_layer(&key("layer"), None).unwrap();
    let mut reader = bytes.as_slice();
    writer.apply(&mut reader, &ApplyOptions::default()).unwrap();
    assert!(reader.is_empty());
}

/// I2: what GNU tar extracts is what we extract, names, bytes, times, sparse files and all.
#[test]
fn gnu_tar_extracts_the_same() {
    if Command::new("tar").arg("--version").output().is_err() {
        eprintln!("SKIPPED gnu_tar_extracts_the_same: no tar program");
        return;
    }
    let source = tempfile::tempdir().unwrap();
    let script = r#"
        set -e
        mkdir -p d/e sticky; chmod 1777 sticky
        echo hello > d/e/file; ln d/e/file d/hard; ln -s ../file d/e/link
        printf 'x' > "$(printf 'n%.0s' $(seq 150))"
        mkdir -p "$(printf 'long%.0s' $(seq 50))/$(printf 'dir%.0s' $(seq 60))"
        ln -s "$(printf 't%.0s' $(seq 180))" longlink
        echo utf > 'naïve file
with newline'
        truncate -s 1M sparse; printf data | dd of=sparse bs=1 seek=500000 conv=notrunc status=none
        printf tail | dd of=sparse bs=1 seek=1048572 conv=notrunc status=none
        truncate -s 40000 hole
        mkfifo fifo; mknod dev c 1 3; chmod 4755 d/e/file; chown 1000:2000 d
        touch -d '1969-12-31 23:59:58.25 UTC' old; touch -d '2020-01-02 03:04:05.678901234 UTC' d/e
    "#;
    assert!(
        Command::new("sh").args(["-c", script]).current_dir(&source).status().unwrap().success()
    );
    for format in [
        &["--format=gnu"][..],
        &["--format=gnu", "-S"],
        &["--format=posix"],
        &["--format=posix", "-S", "--sparse-version=1.0"],
        &["--format=posix", "-S", "--sparse-version=0.1"],
        &["--format=posix", "-S", "--sparse-version=0.0"],
    ] {
        let (directory, storage) = storage();
        let archive = directory.path().join("archive.tar");
        let made = Command::new("tar")
            .args(format)
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(source.path())
            .arg(".")
            .status()
            .unwrap();
        assert!(made.success());
        let theirs = directory.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        let extracted = Command::new("tar")
            .args(["--numeric-owner", "-xpf"])
            .arg(&archive)
            .arg("-C")
            .arg(&theirs)
            .status()
            .unwrap();
        assert!(extracted.success());
        add_layer(&storage, "layer", None, &fs::read(&archive).unwrap()).unwrap();
        let ours = only_files(&directory);
        assert_eq!(describe(&ours), describe(&theirs), "{format:?}");
        assert_same_bytes(&ours, &theirs);
        let blocks = fs::metadata(ours.join("sparse")).unwrap().blocks();
        assert!(!format.contains(&"-S") || blocks < 100, "{format:?}: {blocks} blocks");
    }
}

/// A header and its pax record disagree about the size: GNU tar's entry list is the reference.
#[test]
fn a_pax_size_overrides_the_header_as_in_gnu_tar() {
    let directory = tempfile::tempdir().unwrap();
    let hidden = Archive::new().file("smuggled", "evil").finish();
    let hidden = &hidden[..1024];
    // An attribute with a newline comes before the size, as a parser that splits at newlines trips over it.
    let archive = Archive::new()
        .pax(&[("SCHILY.xattr.user.a", b"1\n2"), ("size", b"1024")])
        .lying("carrier", hidden, 0)
        .file("after", "x")
        .finish();
    fs::write(directory.path().join("a.tar"), &archive).unwrap();
    let listed =
        Command::new("tar").arg("-tf").arg(directory.path().join("a.tar")).output().unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap(), "carrier\nafter\n");
    let storage = Storage::open(directory.path().join("storage")).unwrap();
    add_layer(&storage, "layer", None, &archive).unwrap();
    assert_eq!(names(&storage, "layer"), ["after", "carrier"]);
}

fn assert_same_bytes(ours: &Path, theirs: &Path) {
    let output = Command::new("diff")
        .args(["-r", "--no-dereference", "-x", "fifo", "-x", "dev"])
        .arg(ours)
        .arg(theirs)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn arbitrary_bytes_never_panic_or_escape() {
    let directory = tempfile::tempdir().unwrap();
    let base = Archive::new()
        .pax(&[("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b")])
        .file("a/b", "content")
        .symlink("l", "a")
        .hard_link("h", "a/b")
        .finish();
    // A small deterministic mutator: each byte of the interesting part, three ways.
    for at in 0..base.len().min(4096) {
        for change in [0xff, 0x01, 0x20] {
            let mut bytes = base.clone();
            bytes[at] ^= change;
            let target = directory.path().join("t");
            fs::create_dir(&target).unwrap();
            brig_storage::fuzzing::extract_layer(&bytes, &target);
            fs::remove_dir_all(&target).unwrap();
            if at % 64 != 0 {
                break;
            }
        }
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
