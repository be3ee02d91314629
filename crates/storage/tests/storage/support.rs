//! What the integration tests share: archives made in memory, and a storage in a temporary directory.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use brig_storage::{ApplyOptions, Durability, SnapshotKey, Storage};

/// An archive under construction.
pub(crate) struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Adds an entry exactly as told, without any check of its path.
    pub(crate) fn raw(mut self, kind: u8, path: &str, link: &str, content: &[u8]) -> Self {
        self.push(kind, path, link, content, content.len() as u64, 0o644, (0, 0));
        self
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        self.raw(b'0', path, "", content.as_bytes())
    }

    pub(crate) fn directory(mut self, path: &str, mode: u32) -> Self {
        self.push(b'5', path, "", b"", 0, mode, (0, 0));
        self
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(b'2', path, target, b"")
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.raw(b'1', path, target, b"")
    }

    pub(crate) fn device(mut self, path: &str, kind: u8, device: (u32, u32)) -> Self {
        self.push(kind, path, "", b"", 0, 0o600, device);
        self
    }

    /// A header that states another size than what follows.
    pub(crate) fn lying(mut self, path: &str, content: &[u8], stated: u64) -> Self {
        self.push(b'0', path, "", content, stated, 0o644, (0, 0));
        self
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length = rest + length.to_string().len();
            }
            write!(data, "{length} {key}=").unwrap();
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.raw(b'x', "pax", "", &data)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a header")]
    fn push(
        &mut self,
        kind: u8,
        path: &str,
        link: &str,
        content: &[u8],
        size: u64,
        mode: u32,
        device: (u32, u32),
    ) {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(size);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_device_major(device.0).unwrap();
        header.set_device_minor(device.1).unwrap();
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        let padding = (512 - content.len() % 512) % 512;
        self.bytes.extend(std::iter::repeat_n(0, padding));
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }

    /// Without the end marker.
    pub(crate) fn cut(self, length: usize) -> Vec<u8> {
        self.bytes[..length].to_vec()
    }
}

pub(crate) fn key(text: &str) -> SnapshotKey {
    SnapshotKey::parse(text).unwrap()
}

/// Applies and commits a layer.
pub(crate) fn add_layer(
    storage: &Storage,
    name: &str,
    parent: Option<&str>,
    archive: &[u8],
) -> brig_storage::Result<()> {
    let parent = parent.map(key);
    let mut writer = storage.snapshots().prepare_layer(&key(name), parent.as_ref())?;
    writer.apply(&mut &archive[..], &ApplyOptions::default())?;
    writer.commit(Durability::Now)
}

/// Everything about a tree that tar can carry, one line a file, by find(1) and getfattr-like reads.
pub(crate) fn describe(directory: &Path) -> String {
    let output = Command::new("find")
        .current_dir(directory)
        .args([".", "-printf", "%P %y %m %U:%G %s %l %T@ %n\n"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> = text
        .lines()
        // A directory's size and link count are the filesystem's business.
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            if fields.get(1) == Some(&"d") {
                format!("{} d {} {} {}", fields[0], fields[2], fields[3], fields[6])
            } else {
                line.to_owned()
            }
        })
        .collect();
    lines.sort();
    lines.join("\n")
}
