//! Entry points for fuzz targets and for replaying their corpora. Not a public interface.

use std::path::Path;

use brig_linux::path::Root;

use crate::layer::extract::extract;
use crate::layer::lower::LowerLayers;
use crate::layer::target::{LayerTarget, Target};
use crate::tarball::Limits;
use crate::tarball::reader::TarReader;

/// Extracts any bytes as a layer into a directory; whatever they are, nothing outside of it may change.
pub fn extract_layer(data: &[u8], directory: &Path) {
    let Ok(root) = Root::open(directory) else { return };
    let lower = LowerLayers::default();
    let mut target = Target::Layer(LayerTarget {
        root: &root,
        lower: &lower,
        root_is_opaque: false,
        root_described: false,
        copied: Vec::new(),
    });
    let limits = Limits { entries_max: 1000, stream_bytes_max: 1 << 20, ..Limits::default() };
    let mut stream = data;
    drop(extract(&mut stream, &mut target, &limits));
}

/// Reads any bytes as an archive without writing anything.
pub fn read_archive(data: &[u8]) {
    let mut reader = TarReader::new(data, &Limits::default());
    while let Ok(Some(_)) = reader.next() {}
}
