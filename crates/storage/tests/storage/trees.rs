//! Copying into and out of containers, stopped, running and hostile.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use brig_storage::{Attachment, ErrorKind, Storage, Tree, WriteOptions};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};

use crate::layers::storage;
use crate::support::{Archive, add_layer, key};

fn container(storage: &Storage) -> Tree {
    container_with(storage, Vec::new())
}

fn container_with(storage: &Storage, attachments: Vec<Attachment>) -> Tree {
    if !storage.snapshots().exists(&key("c")) {
        let archive = Archive::new()
            .directory("etc/", 0o755)
            .file("etc/passwd", "root:x:0:0")
            .symlink("etc/link", "../data/file")
            .symlink("abs", "/etc")
            .file("data/file", "content")
            .symlink("volume-link", "vol")
            .directory("vol/", 0o755)
            .finish();
        add_layer(storage, "base", None, &archive).unwrap();
        storage.snapshots().prepare_container(&key("c"), Some(&key("base"))).unwrap();
    }
    let mounts = storage.snapshots().mounts(&key("c")).unwrap();
    Tree::of_snapshot(&mounts, attachments).unwrap()
}

fn open(path: &Path) -> OwnedFd {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn tar_names(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap();
    entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
}

fn read(tree: &Tree, path: &str) -> Vec<String> {
    let mut bytes = Vec::new();
    tree.read_tar(path, &mut bytes).unwrap();
    tar_names(&bytes)
}

#[test]
fn stat_tells_links_and_where_they_lead() {
    let (_directory, storage) = storage();
    let tree = container(&storage);
    let link = tree.stat("/etc/link").unwrap();
    assert_eq!(
        (link.name.as_str(), link.link_target.as_deref()),
        ("link", Some(Path::new("/data/file")))
    );
    assert_eq!(link.go_file_mode() >> 27, 1);
    let through = tree.stat("/abs/passwd").unwrap();
    assert_eq!((through.size, through.link_target, through.mode), (10, None, 0o100_644));
    assert_eq!(tree.stat("/abs").unwrap().link_target.as_deref(), Some(Path::new("/etc")));
    assert_eq!(tree.stat("/abs/").unwrap().go_file_mode(), (1 << 31) | 0o755);
    assert_eq!(tree.stat("/").unwrap().name, "/");
    assert_eq!(tree.stat("/nothing").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn archives_are_named_as_docker_cp_expects() {
    let (_directory, storage) = storage();
    let tree = container(&storage);
    assert_eq!(read(&tree, "/etc"), ["etc/", "etc/link", "etc/passwd"]);
    assert_eq!(read(&tree, "/etc/."), ["./", "link", "passwd"]);
    assert_eq!(read(&tree, "/abs"), ["abs"]);
    assert_eq!(read(&tree, "/abs/"), ["abs/", "abs/link", "abs/passwd"]);
    assert_eq!(read(&tree, "/data/file"), ["file"]);
    assert_eq!(tree.read_file("/etc/link", 100).unwrap(), b"content");
    assert_eq!(tree.read_file("/etc/link", 6).unwrap_err().kind(), ErrorKind::Exhausted);
    assert_eq!(tree.read_file("/etc", 6).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn writing_follows_links_of_the_container_inside_it() {
    let (directory, storage) = storage();
    let tree = container(&storage);
    let archive = Archive::new()
        .file("new", "1")
        .file(".wh.passwd", "an ordinary name here")
        .symlink("out", directory.path().to_str().unwrap())
        .file("out/escaped", "2")
        .finish();
    let options = WriteOptions::default();
    tree.write_tar("/abs", &mut archive.as_slice(), &options).unwrap();
    assert_eq!(tree.read_file("/etc/new", 10).unwrap(), b"1");
    assert_eq!(tree.read_file("/etc/passwd", 100).unwrap(), b"root:x:0:0");
    assert!(!directory.path().join("escaped").exists());
    let missing = tree.write_tar("/nowhere", &mut archive.as_slice(), &options).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let file = tree.write_tar("/data/file", &mut archive.as_slice(), &options).unwrap_err();
    assert_eq!(file.kind(), ErrorKind::InvalidInput);
}

#[test]
fn kinds_are_kept_and_owners_given_on_demand() {
    let (directory, storage) = storage();
    let tree = container(&storage);
    let mut options = WriteOptions::default();
    options.keep_kind = true;
    options.owner = Some((1000, 2000));
    for archive in [Archive::new().file("etc", "x"), Archive::new().directory("data/file/", 0o755)]
    {
        let error = tree.write_tar("/", &mut archive.finish().as_slice(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    tree.write_tar("/", &mut Archive::new().file("owned", "").finish().as_slice(), &options)
        .unwrap();
    drop(tree);
    let owned = fs::metadata(directory.path().join("storage/snapshots/1/fs/owned")).unwrap();
    assert_eq!((owned.uid(), owned.gid()), (1000, 2000));
    options.keep_kind = false;
    let tree = container(&storage);
    tree.write_tar("/", &mut Archive::new().file("etc", "x").finish().as_slice(), &options)
        .unwrap();
    assert_eq!(tree.read_file("/etc", 10).unwrap(), b"x");
}

#[test]
fn volumes_are_part_of_a_stopped_tree() {
    let (directory, storage) = storage();
    let volume = directory.path().join("volume");
    fs::create_dir_all(volume.join("sub")).unwrap();
    fs::write(volume.join("in"), "volume").unwrap();
    symlink("/etc/passwd", volume.join("back")).unwrap();
    fs::write(directory.path().join("hosts"), "127.0.0.1").unwrap();
    let attach = |read_only| {
        vec![
            Attachment { path: "/vol/".into(), source: open(&volume), read_only },
            Attachment {
                path: "/abs/passwd".into(),
                source: open(&directory.path().join("hosts")),
                read_only: false,
            },
        ]
    };
    let tree = container_with(&storage, attach(false));
    assert_eq!(tree.read_file("/volume-link/in", 100).unwrap(), b"volume");
    // A link inside the volume is relative to the container, where a file is mounted.
    assert_eq!(tree.read_file("/vol/back", 100).unwrap(), b"127.0.0.1");
    assert_eq!(read(&tree, "/vol"), ["vol/", "vol/back", "vol/in", "vol/sub/"]);
    let archive = Archive::new().file("sub/written", "w").finish();
    let options = WriteOptions::default();
    tree.write_tar("/volume-link", &mut archive.as_slice(), &options).unwrap();
    assert_eq!(fs::read(volume.join("sub/written")).unwrap(), b"w");
    let mut exported = Vec::new();
    tree.export(&mut exported).unwrap();
    assert!(!tar_names(&exported).contains(&"vol/in".to_owned()));
    drop(tree);
    let tree = container_with(&storage, attach(true));
    for (place, archive) in [("/vol", &archive), ("/", &Archive::new().file("vol/x", "").finish())]
    {
        let error = tree.write_tar(place, &mut archive.as_slice(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{place}");
    }
}

#[test]
fn a_running_process_root_is_opened_only_while_it_runs() {
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pidfd = brig_linux::pidfd::open(i32::try_from(child.id()).unwrap()).unwrap();
    let tree = Tree::of_process(child.id(), pidfd.as_fd()).unwrap();
    assert!(tree.stat("/etc").is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
    let error = Tree::of_process(child.id(), pidfd.as_fd()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn what_is_mounted_into_a_container_is_not_replaced() {
    let (directory, storage) = storage();
    let (file, volume) = (directory.path().join("bound"), directory.path().join("volume"));
    fs::write(&file, "bound").unwrap();
    fs::create_dir(&volume).unwrap();
    let attach = |path: &str, source: &Path| Attachment {
        path: path.into(),
        source: open(source),
        read_only: false,
    };
    let attachments = vec![attach("/etc/passwd", &file), attach("/vol", &volume)];
    let tree = container_with(&storage, attachments);
    let options = WriteOptions::default();
    for archive in [
        Archive::new().file("etc/passwd", "x"),
        Archive::new().symlink("etc/passwd", "x"),
        Archive::new().file("abs/passwd", "x"),
        Archive::new().hard_link("etc/passwd", "data/file"),
        Archive::new().file("vol", "x"),
    ] {
        let error = tree.write_tar("/", &mut archive.finish().as_slice(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    }
    let beside = Archive::new().directory("vol/", 0o755).file("vol/passwd", "x").finish();
    tree.write_tar("/", &mut beside.as_slice(), &options).unwrap();
    assert_eq!(fs::read(volume.join("passwd")).unwrap(), b"x");
    assert_eq!(fs::read(&file).unwrap(), b"bound");
}

#[test]
fn what_a_running_container_has_mounted_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir_all(path("root/volume")).unwrap();
    for name in ["root/file", "root/volume/kept"] {
        fs::write(path(name), "beneath").unwrap();
    }
    // What chroot(8) needs is not in the tree: the shell itself waits, with its root as it is.
    let script = "mount --bind root/file root/file && mount --bind root/volume root/volume && echo && read x";
    let mut shell = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .current_dir(directory.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(shell.id()).unwrap()).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let tree = Tree::of_process(shell.id(), pidfd.as_fd()).unwrap();
    let base = path("root");
    let options = WriteOptions::default();
    for name in ["file", "volume"] {
        let archive = Archive::new().file(name, "x").finish();
        let error = tree.write_tar(&base, &mut archive.as_slice(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    }
    let other = Archive::new().file("other", "x").file("volume/new", "y").finish();
    tree.write_tar(&base, &mut other.as_slice(), &options).unwrap();
    assert_eq!(fs::read(path("root/volume/new")).unwrap(), b"y");
    assert_eq!(fs::read(path("root/volume/kept")).unwrap(), b"beneath");
    drop(shell.stdin.take());
    shell.wait().unwrap();
    assert_eq!(fs::read(path("root/file")).unwrap(), b"beneath");
}

/// D1 of the regression catalogue: copies in and out race with a container that swaps a directory and a link.
#[test]
fn copies_racing_with_a_hostile_container_stay_inside() {
    let directory = tempfile::tempdir().unwrap();
    let outside = directory.path().join("outside");
    fs::create_dir_all(outside.join("d")).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::write(outside.join("d/secret"), "secret").unwrap();
    let storage = Storage::open(directory.path().join("storage")).unwrap();
    storage.snapshots().prepare_container(&key("c"), None).unwrap();
    let mounts = storage.snapshots().mounts(&key("c")).unwrap();
    let inside = mounts[0].source.clone();
    fs::create_dir_all(inside.join("a/d")).unwrap();
    symlink(&outside, inside.join("b")).unwrap();
    let tree = Tree::of_snapshot(&mounts, Vec::new()).unwrap();
    let archive = Archive::new()
        .file("written", "x")
        .directory("d/", 0o777)
        .file("d/written", "y")
        .symlink("d/secret", "replaced")
        .hard_link("hard", "secret")
        .finish();
    let into_parent = Archive::new().file("a/written", "x").file("a/d/secret", "x").finish();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let root = open(&inside);
            while !stop.load(Ordering::Relaxed) {
                // Fails while an archive has replaced either.
                let _failed =
                    rustix::fs::renameat_with(&root, "a", &root, "b", RenameFlags::EXCHANGE);
            }
        });
        for _ in 0..2500 {
            let options = WriteOptions::default();
            drop(tree.write_tar("/a", &mut archive.as_slice(), &options));
            drop(tree.write_tar("/", &mut into_parent.as_slice(), &options));
            drop(tree.stat("/a/secret"));
            let mut bytes = Vec::new();
            drop(tree.read_tar("/a/", &mut bytes));
            assert!(
                !bytes.windows(6).any(|window| window == b"secret") || !contains_content(&bytes)
            );
        }
        stop.store(true, Ordering::Relaxed);
    });
    let names = |path: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|name| name.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&outside), ["d", "secret"]);
    assert_eq!(names(&outside.join("d")), ["secret"]);
    assert_eq!(fs::read(outside.join("d/secret")).unwrap(), b"secret");
    assert_eq!(fs::metadata(outside.join("secret")).unwrap().nlink(), 1);
    assert_eq!(fs::metadata(outside.join("d")).unwrap().mode() & 0o777, 0o755);
}

/// Whether the secret's content, rather than its name, is in an archive.
fn contains_content(bytes: &[u8]) -> bool {
    let mut archive = tar::Archive::new(bytes);
    let Ok(entries) = archive.entries() else { return false };
    entries.filter_map(Result::ok).any(|mut entry| {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut text).is_ok() && text == b"secret"
    })
}
