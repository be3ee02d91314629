//! Makes a layer, a container on top of it, changes a file through a detached mount, and prints the difference.
//!
//! `cargo run -p brig-storage --example snapshot` as root; everything is in a temporary directory.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use brig_storage::{ApplyOptions, Durability, SnapshotKey, Storage, Tree, WriteOptions};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let storage = Storage::open(directory.path())?;
    let snapshots = storage.snapshots();

    let layer = SnapshotKey::parse("an-image-layer")?;
    let archive = archive(&[("etc/hostname", "image"), ("etc/motd", "hello")])?;
    let mut writer = snapshots.prepare_layer(&layer, None)?;
    let applied = writer.apply(&mut archive.as_slice(), &ApplyOptions::default())?;
    writer.commit(Durability::Now)?;
    println!("committed a layer of {} entries, {} bytes", applied.entries, applied.size);

    let container = SnapshotKey::parse("a-container")?;
    snapshots.prepare_container(&container, Some(&layer))?;
    let mounts = snapshots.mounts(&container)?;
    for mount in &mounts {
        println!("mount -t {} -o {}", mount.fstype, mount.options.join(","));
    }

    let tree = Tree::of_snapshot(&mounts, Vec::new())?;
    let copied = self::archive(&[("hostname", "container"), ("new", "file")])?;
    tree.write_tar("/etc", &mut copied.as_slice(), &WriteOptions::default())?;
    println!("/etc/hostname: {}", String::from_utf8(tree.read_file("/etc/hostname", 4096)?)?);
    for change in snapshots.changes(&container)? {
        println!("{:?} {}", change.kind, change.path.display());
    }

    drop(tree);
    snapshots.remove(&container)?;
    snapshots.remove(&layer)?;
    snapshots.sweep()?;
    Ok(())
}

fn archive(files: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(u64::try_from(content.len())?);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, content.as_bytes())?;
    }
    Ok(builder.into_inner()?)
}
