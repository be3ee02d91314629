//! Named volumes: names, options, copy-up.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use brig_storage::{ErrorKind, Storage, Tree, VolumeRequest};

use crate::layers::storage;
use crate::support::{Archive, add_layer, key};

fn request(name: &str, options: &[(&str, &str)]) -> VolumeRequest {
    let map = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect::<BTreeMap<_, _>>()
    };
    VolumeRequest { name: name.into(), options: map(options), labels: map(&[("a", "b")]) }
}

#[test]
fn volumes_are_created_once_listed_and_survive_a_restart() {
    let (directory, storage) = storage();
    let created = storage.volumes().create(&request("web.data-1_x", &[])).unwrap();
    assert_eq!(created.labels["a"], "b");
    assert!(created.mountpoint.ends_with("volumes/web.data-1_x/_data"));
    assert!(created.mountpoint.is_dir());
    assert_eq!(storage.volumes().create(&request("web.data-1_x", &[])).unwrap(), created);
    let other = request("web.data-1_x", &[("type", "tmpfs"), ("device", "tmpfs")]);
    assert_eq!(storage.volumes().create(&other).unwrap_err().kind(), ErrorKind::Conflict);
    drop(storage);
    let storage = Storage::open(directory.path().join("storage")).unwrap();
    assert_eq!(storage.volumes().list().unwrap(), [created]);
    storage.volumes().remove("web.data-1_x").unwrap();
    assert_eq!(storage.volumes().inspect("web.data-1_x").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::read_dir(directory.path().join("storage/volumes")).unwrap().count(), 0);
}

#[test]
fn bad_names_and_options_are_refused() {
    let (_directory, storage) = storage();
    let long = "x".repeat(256);
    for name in ["", ".", "..", ".new-0", "a/b", "-a", "a b", "a\n", "é", &long] {
        let error = storage.volumes().create(&request(name, &[])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}");
        assert_eq!(storage.volumes().inspect(name).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(storage.volumes().remove(name).unwrap_err().kind(), ErrorKind::NotFound);
    }
    for options in [
        &[("size", "1g")][..],
        &[("type", "tmpfs")],
        &[("device", "/x")],
        &[("device", "relative"), ("o", "bind")],
    ] {
        let error = storage.volumes().create(&request("v", options)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{options:?}");
    }
}

#[test]
fn an_empty_volume_takes_over_the_image_directory_and_a_full_one_does_not() {
    let (_directory, storage) = storage();
    let archive = Archive::new()
        .directory("srv/", 0o2750)
        .directory("srv/deep/", 0o700)
        .file("srv/deep/file", "content")
        .symlink("srv/link", "deep/file")
        .symlink("alias", "srv")
        .file("plain", "")
        .finish();
    add_layer(&storage, "image", None, &archive).unwrap();
    let tree =
        Tree::of_snapshot(&storage.snapshots().view(&key("image")).unwrap(), Vec::new()).unwrap();
    let volumes = storage.volumes();
    let data = volumes.create(&request("v", &[])).unwrap().mountpoint;
    assert!(!volumes.populate("v", &tree, "/absent").unwrap());
    assert!(!volumes.populate("v", &tree, "/plain").unwrap());
    assert!(volumes.populate("v", &tree, "/alias").unwrap());
    assert_eq!(fs::read(data.join("link")).unwrap(), b"content");
    let modes =
        (fs::metadata(&data).unwrap().mode(), fs::metadata(data.join("deep")).unwrap().mode());
    assert_eq!(modes, (0o42750, 0o40700));
    assert_eq!(fs::metadata(&data).unwrap().mtime(), 1_000_000_000);
    fs::write(data.join("deep/file"), "changed").unwrap();
    assert!(!volumes.populate("v", &tree, "/srv").unwrap());
    assert_eq!(fs::read(data.join("deep/file")).unwrap(), b"changed");
}

/// Mounts on the host, so a mount namespace of its own is needed: the test runs itself there.
#[test]
fn options_are_mounted_while_in_use() {
    const INSIDE: &str = "BRIG_STORAGE_TEST_NAMESPACE";
    if std::env::var_os(INSIDE).is_none() {
        let status = std::process::Command::new("unshare")
            .args(["-m", "--propagation", "private"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "volumes::options_are_mounted_while_in_use"])
            .env(INSIDE, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let (directory, storage) = storage();
    let volumes = storage.volumes();
    let tmpfs = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,mode=0711,nosuid")];
    let data = volumes.create(&request("t", &tmpfs)).unwrap().mountpoint;
    assert_eq!(volumes.mount("t").unwrap(), data);
    fs::write(data.join("x"), "1").unwrap();
    // Mounted once, however many use it.
    volumes.mount("t").unwrap();
    assert_eq!(fs::read(data.join("x")).unwrap(), b"1");
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o711);
    assert_eq!(volumes.remove("t").unwrap_err().kind(), ErrorKind::Conflict);
    volumes.unmount("t").unwrap();
    volumes.unmount("t").unwrap();
    assert!(!data.join("x").exists());
    volumes.remove("t").unwrap();

    let source = directory.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("kept"), "k").unwrap();
    let bind = [("type", "none"), ("device", source.to_str().unwrap()), ("o", "bind,ro")];
    let data = volumes.create(&request("b", &bind)).unwrap().mountpoint;
    volumes.mount("b").unwrap();
    assert_eq!(fs::read(data.join("kept")).unwrap(), b"k");
    assert!(fs::write(data.join("new"), "").is_err());
    volumes.unmount("b").unwrap();
    volumes.remove("b").unwrap();
    assert!(source.join("kept").exists());
}

#[test]
fn a_part_of_a_volume_stays_inside_and_is_withdrawn_without_a_scratch() {
    let (directory, storage) = storage();
    let volume = storage.volumes().create(&request("v", &[])).unwrap();
    let outside = directory.path().join("outside");
    fs::create_dir_all(volume.mountpoint.join("a/b")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(volume.mountpoint.join("a/b/file"), "kept").unwrap();
    std::os::unix::fs::symlink(&outside, volume.mountpoint.join("out")).unwrap();
    std::os::unix::fs::symlink("a/b", volume.mountpoint.join("link")).unwrap();
    let place = directory.path().join("place");
    let present = |subpath: &str| storage.volumes().present("v", subpath.as_ref(), &place);
    for (subpath, kind) in [
        ("../..", ErrorKind::InvalidInput),
        ("/a", ErrorKind::InvalidInput),
        ("absent", ErrorKind::NotFound),
        // Beneath the volume there is no such path.
        ("out", ErrorKind::NotFound),
    ] {
        assert_eq!(present(subpath).unwrap_err().kind(), kind, "{subpath}");
        assert!(!place.exists());
    }
    for (subpath, file) in [("a/b", "file"), ("link", "file"), ("a", "b/file"), (".", "a/b/file")] {
        present(subpath).unwrap();
        assert_eq!(fs::read(place.join(file)).unwrap(), b"kept", "{subpath}");
    }
    // What is at the name later is not what is bound.
    present("a/b").unwrap();
    fs::rename(volume.mountpoint.join("a"), volume.mountpoint.join("moved")).unwrap();
    assert_eq!(fs::read(place.join("file")).unwrap(), b"kept");
    present("moved/b/file").unwrap();
    assert_eq!(fs::read(&place).unwrap(), b"kept");
    for _ in 0..2 {
        brig_storage::withdraw(&place).unwrap();
        assert!(!place.exists());
    }
    assert_eq!(fs::read(volume.mountpoint.join("moved/b/file")).unwrap(), b"kept");
    // Something else at the place is not removed with what is in it.
    fs::create_dir(&place).unwrap();
    fs::write(place.join("x"), "").unwrap();
    assert!(brig_storage::withdraw(&place).is_err());
    assert!(place.join("x").exists());
}

#[test]
fn a_volume_is_archived_and_filled_from_archives() {
    let (_directory, storage) = storage();
    for (name, options) in
        [("plain", &[][..]), ("other", &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")])]
    {
        storage.volumes().create(&request(name, options)).unwrap();
        let tree = storage.volumes().tree(name).unwrap();
        let archive = Archive::new().directory("d/", 0o750).file("d/f", "x").finish();
        tree.write_tar("/", &mut archive.as_slice(), &brig_storage::WriteOptions::default())
            .unwrap();
        let mut bytes = Vec::new();
        tree.export(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap().map(|entry| entry.unwrap());
        let names: Vec<String> =
            entries.map(|entry| entry.path().unwrap().display().to_string()).collect();
        assert!(names.contains(&"d/f".to_owned()), "{name}: {names:?}");
        storage.volumes().remove(name).unwrap();
    }
}
