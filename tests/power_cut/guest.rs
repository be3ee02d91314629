//! What runs in the guest whose power is cut: checks the disk that the last cut left, then pulls, unpacks and removes an
//! image again and again, telling after each step what it has done.
//!
//! ```text
//! guest pack ARCHIVE             write the image, in the form of `docker save`
//! guest work REFERENCE DISK      check, then work until the power is cut
//! guest heal REFERENCE DISK      check, pull, and find everything there
//! ```
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's program: it fails, and it tells"
)]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use brig_images::registry::{Client, Config, Progress, PullOptions};
use brig_images::{Image, Platform, Reference, Store};
use brig_storage::{ApplyOptions, Durability, LayerWriter, SnapshotKey, Storage, Tree};
use sha2::Digest as _;
use support::engine::pack_image;

const LAYERS: usize = 5;
const FILES: usize = 60;
const FILE_BYTES: usize = 20_000;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["pack", archive] => pack_image(Path::new(archive), "guest", &layers()),
        ["work", reference, disk] => {
            let disk = Disk::check(Path::new(disk));
            loop {
                disk.pull(reference);
                disk.remove(reference);
            }
        }
        ["heal", reference, disk] => {
            let disk = Disk::check(Path::new(disk));
            disk.pull(reference);
            assert_eq!(disk.storage.snapshots().list().len(), LAYERS);
            drop(disk);
            let _ = Disk::check(Path::new(words[2]));
            tell("healed");
        }
        _ => panic!("guest pack|work|heal"),
    }
}

/// One line for the host, at once.
fn tell(what: &str) {
    println!("guest: {what}");
}

fn content(layer: usize, file: usize) -> Vec<u8> {
    let mut state = (layer * FILES + file) as u64 + 1;
    let next = || {
        // xorshift: nothing for gzip to take away.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).take(FILE_BYTES / 8).flatten().collect()
}

fn layers() -> Vec<Vec<u8>> {
    let layer = |number| {
        let mut layer = tar::Builder::new(Vec::new());
        for file in 0..FILES {
            let data = content(number, file);
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(data.len() as u64);
            layer.append_data(&mut header, format!("{number}/{file}"), data.as_slice()).unwrap();
        }
        layer.into_inner().unwrap()
    };
    (0..LAYERS).map(layer).collect()
}

fn sha256(data: &[u8]) -> String {
    sha2::Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Disk {
    store: Store,
    storage: Storage,
}

impl Disk {
    /// Opens what is there, which must all be whole.
    fn check(path: &Path) -> Self {
        let store = Store::open(path.join("content")).unwrap();
        let storage = Storage::open(path.join("storage")).unwrap();
        storage.snapshots().sweep().unwrap();
        let disk = Self { store, storage };
        let (blobs, layers, images) =
            (disk.check_blobs(), disk.check_layers(), disk.store.images().unwrap().len());
        tell(&format!("checked {blobs} blobs, {layers} layers, {images} images"));
        disk
    }

    fn check_blobs(&self) -> usize {
        let blobs = self.store.blobs().list().unwrap();
        for digest in &blobs {
            let mut data = Vec::new();
            self.store.blobs().open(digest).unwrap().read_to_end(&mut data).unwrap();
            assert_eq!(sha256(&data), digest.hex(), "a blob is damaged");
        }
        for record in self.store.images().unwrap() {
            let image = self.store.image(&record.target, &Platform::host()).unwrap();
            assert!(image.layers.iter().all(|layer| self.store.blobs().contains(&layer.digest)));
        }
        blobs.len()
    }

    fn check_layers(&self) -> usize {
        let mut keys: Vec<(SnapshotKey, usize)> = Vec::new();
        let mut chain = String::new();
        for (number, layer) in layers().iter().enumerate() {
            let diff_id = format!("sha256:{}", sha256(layer));
            let next = format!("sha256:{}", sha256(format!("{chain} {diff_id}").as_bytes()));
            chain = if number == 0 { diff_id } else { next };
            keys.push((SnapshotKey::parse(chain.clone()).unwrap(), number));
        }
        let snapshots = self.storage.snapshots();
        let present = snapshots.list();
        for info in &present {
            let (key, number) = keys.iter().find(|(key, _)| *key == info.key).unwrap();
            let tree = Tree::of_snapshot(&snapshots.view(key).unwrap(), Vec::new()).unwrap();
            check_tree(&tree, *number);
        }
        present.len()
    }

    fn pull(&self, reference: &str) {
        let reference = Reference::parse(reference).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let observer = |progress: Progress| {
            if let Progress::Blob(_) = progress {
                tell("a blob comes");
            }
        };
        let client = Client::new(Config::default());
        let options = PullOptions::default();
        let pulled = runtime.block_on(client.pull(&reference, &options, &self.store, &observer));
        let image = self.store.image(&pulled.unwrap().target, &Platform::host()).unwrap();
        tell("pulled");
        self.unpack(&image);
        self.storage.snapshots().settle().unwrap();
        tell("settled");
    }

    /// All layers at the same time, as the engine does.
    fn unpack(&self, image: &Image) {
        let snapshots = self.storage.snapshots();
        let chain: Vec<SnapshotKey> = image
            .chain_ids()
            .iter()
            .map(|id| SnapshotKey::parse(id.to_string()).unwrap())
            .collect();
        std::thread::scope(|scope| {
            for (number, key) in chain.iter().enumerate() {
                if snapshots.exists(key) {
                    continue;
                }
                let parent = number.checked_sub(1).map(|below| &chain[below]);
                let writer = snapshots.prepare_layer(key, parent).unwrap();
                scope.spawn(move || self.unpack_layer(image, number, writer));
            }
        });
    }

    fn unpack_layer(&self, image: &Image, number: usize, mut writer: LayerWriter) {
        let (blob, diff_id) = (&image.layers[number], &image.diff_ids[number]);
        let mut reader = self.store.layer(blob, diff_id).unwrap();
        let _ = writer.apply(&mut reader, &ApplyOptions::for_compressed_size(blob.size)).unwrap();
        reader.finish().unwrap();
        writer.commit(Durability::Later).unwrap();
        tell("a layer is there");
    }

    fn remove(&self, reference: &str) {
        tell("removing");
        self.store.untag(&Reference::parse(reference).unwrap()).unwrap();
        for record in self.store.images().unwrap() {
            self.store.remove(&record.target.digest).unwrap();
        }
        let snapshots = self.storage.snapshots();
        let mut present = snapshots.list();
        // One that another stands on is refused until that has gone.
        while !present.is_empty() {
            let removed = |info: &brig_storage::SnapshotInfo| snapshots.remove(&info.key).is_ok();
            present.retain(|info| !removed(info));
        }
        snapshots.sweep().unwrap();
        let _ = self.store.collect_garbage(&[], Duration::ZERO).unwrap();
        tell("removed");
    }
}

/// The files of a layer and of all below it, every byte.
fn check_tree(tree: &Tree, top: usize) {
    let mut bytes = Vec::new();
    tree.export(&mut bytes).unwrap();
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            found.insert(entry.path().unwrap().display().to_string(), data);
        }
    }
    assert_eq!(found.len(), (top + 1) * FILES, "files are missing in layer {top}");
    for layer in 0..=top {
        for file in 0..FILES {
            let path = format!("{layer}/{file}");
            assert!(found[&path] == content(layer, file), "{path} is damaged");
        }
    }
}
