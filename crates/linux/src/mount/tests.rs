use std::path::PathBuf;

use super::*;

fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: not root");
    }
    root
}

#[test]
fn setting_an_access_time_clears_the_whole_field() {
    let attributes = MountAttributes::default().set(attribute::NO_ATIME);
    assert_eq!(attributes.clear, attribute::ACCESS_TIME);
    assert_eq!(attributes.set, attribute::NO_ATIME);
    let attributes = attributes.set(attribute::READ_ONLY).clear(attribute::READ_ONLY);
    assert_eq!(attributes.set, attribute::NO_ATIME);
    assert_eq!(attributes.clear, attribute::ACCESS_TIME | attribute::READ_ONLY);
}

#[test]
fn an_overlay_is_usable_without_being_attached() {
    if !is_root("an_overlay_is_usable_without_being_attached") {
        return;
    }
    // The directories of an overlay must not be on an overlay with the same limits, so use a tmpfs of our own.
    let tmpfs = filesystem("tmpfs", &[("size", Some("1m"))], 0).unwrap();
    let base = PathBuf::from(format!("/proc/self/fd/{}", tmpfs.as_raw_fd()));
    let layers: Vec<PathBuf> = ["a:b", "c\\d"].iter().map(|name| base.join(name)).collect();
    for (number, layer) in layers.iter().enumerate() {
        std::fs::create_dir(layer).unwrap();
        std::fs::write(layer.join(number.to_string()), "x").unwrap();
    }
    let (upper, work) = (base.join("upper"), base.join("work"));
    std::fs::create_dir(&upper).unwrap();
    std::fs::create_dir(&work).unwrap();
    let options = OverlayOptions {
        lower: &layers,
        upper: Some(&upper),
        work: Some(&work),
        ..OverlayOptions::default()
    };
    let overlay = overlay(&options).unwrap();
    let merged = PathBuf::from(format!("/proc/self/fd/{}", overlay.as_raw_fd()));
    let mut names: Vec<_> =
        std::fs::read_dir(&merged).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["0", "1"]);
    std::fs::write(merged.join("new"), "y").unwrap();
    assert_eq!(std::fs::read(upper.join("new")).unwrap(), b"y");
}

#[test]
fn a_rejected_option_is_reported_in_the_kernels_words() {
    if !is_root("a_rejected_option_is_reported_in_the_kernels_words") {
        return;
    }
    let error = filesystem("tmpfs", &[("nonsense", Some("1"))], 0).unwrap_err();
    assert!(error.to_string().contains("nonsense"), "{error}");
    let error = filesystem("no-such-filesystem", &[], 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn a_read_only_bind_refuses_writes() {
    if !is_root("a_read_only_bind_refuses_writes") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mount = bind(directory.path(), false).unwrap();
    let read_only = MountAttributes::default().set(attribute::READ_ONLY);
    set_attributes(&mount, &read_only, false).unwrap();
    let error = std::fs::write(format!("/proc/self/fd/{}/x", mount.as_raw_fd()), "").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}
