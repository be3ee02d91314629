//! Applies layers, makes a container on top of them, changes its files through a detached mount, and prints the difference.
//!
//! ```text
//! cargo run -p unpack-layers -- LAYER.tar...
//! ```
//!
//! As root; everything is in a temporary directory.

#![expect(clippy::print_stdout, reason = "a program's output")]

use std::fs::File;
use std::io::BufReader;

use brig_storage::{ApplyOptions, Durability, SnapshotKey, Storage, Tree, WriteOptions};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let storage = Storage::open(directory.path())?;
    let snapshots = storage.snapshots();

    let mut layers = Vec::new();
    for (number, path) in std::env::args_os().skip(1).enumerate() {
        let layer = SnapshotKey::parse(format!("layer-{number}"))?;
        let mut archive = BufReader::new(File::open(path)?);
        let mut writer = snapshots.prepare_layer(&layer, layers.last())?;
        let applied = writer.apply(&mut archive, &ApplyOptions::default())?;
        writer.commit(Durability::Now)?;
        println!("{layer}: {} entries, {} bytes", applied.entries, applied.size);
        layers.push(layer);
    }

    let container = SnapshotKey::parse("a-container")?;
    snapshots.prepare_container(&container, layers.last())?;
    let mounts = snapshots.mounts(&container)?;
    for mount in &mounts {
        println!("mount -t {} -o {}", mount.fstype, mount.options.join(","));
    }

    let tree = Tree::of_snapshot(&mounts, Vec::new())?;
    tree.write_tar(
        "/",
        &mut archive("hello", "from outside\n")?.as_slice(),
        &WriteOptions::default(),
    )?;
    println!("/hello: {}", String::from_utf8(tree.read_file("/hello", 4096)?)?.trim());
    for change in snapshots.changes(&container, &[])? {
        println!("{:?} {}", change.kind, change.path.display());
    }

    drop(tree);
    snapshots.remove(&container)?;
    for layer in layers.iter().rev() {
        snapshots.remove(layer)?;
    }
    snapshots.sweep()?;
    Ok(())
}

/// An archive with one file.
fn archive(path: &str, content: &str) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(u64::try_from(content.len())?);
    header.set_mode(0o644);
    builder.append_data(&mut header, path, content.as_bytes())?;
    Ok(builder.into_inner()?)
}
