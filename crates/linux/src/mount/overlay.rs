//! Overlay mounts.
//!
//! `lowerdir+`, a layer a call without a limit on all of them together, is in Linux 6.5. Older kernels take any option and
//! complain about it in the end; they get one `lowerdir` list, which fsconfig(2) limits to 255 bytes: of paths where they
//! fit, else of descriptors beneath `/proc/self/fd`, of which about fifteen fit.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags};

use super::{attribute_flags, kernel_words};
use crate::{Error, ErrorKind, Result};

/// The longest value of fsconfig(2), without the end.
const VALUE_BYTES_MAX: usize = 255;

/// What an overlay is made of.
#[derive(Clone, Debug, Default)]
pub struct OverlayOptions<'a> {
    /// Read-only layers, topmost first; at least one.
    pub lower: &'a [PathBuf],
    /// The writable layer; without it the overlay is read-only.
    pub upper: Option<&'a Path>,
    /// The work directory on the same filesystem as `upper`; both or neither.
    pub work: Option<&'a Path>,
    /// Further options, such as `("metacopy", Some("on"))`.
    pub extra: &'a [(&'a str, Option<&'a str>)],
    /// [`super::attribute`] bits of the mount.
    pub attributes: u64,
}

/// A detached overlay mount.
///
/// # Errors
/// `InvalidInput` with the kernel's words; `Unsupported` for more layers than an old kernel takes.
pub fn overlay(options: &OverlayOptions<'_>) -> Result<OwnedFd> {
    let attempt = |errno: Errno, words: String| {
        let what = match options.upper {
            Some(upper) => format!("mount overlay with upper layer {}", upper.display()),
            None => format!("mount overlay of {} layers", options.lower.len()),
        };
        Error::system(if words.is_empty() { what } else { format!("{what} ({words})") }, errno)
    };
    match mount(options, &Lower::Each(options.lower)) {
        Err((Errno::INVAL, _)) => {
            let (list, _open) = list(options.lower)?;
            mount(options, &Lower::List(&list)).map_err(|(errno, words)| attempt(errno, words))
        }
        other => other.map_err(|(errno, words)| attempt(errno, words)),
    }
}

/// How the layers are told to the kernel.
enum Lower<'a> {
    Each(&'a [PathBuf]),
    List(&'a [u8]),
}

/// On failure the error number and the kernel's words.
fn mount(
    options: &OverlayOptions<'_>,
    lower: &Lower<'_>,
) -> std::result::Result<OwnedFd, (Errno, String)> {
    let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|errno| (errno, String::new()))?;
    let configure = || -> rustix::io::Result<OwnedFd> {
        rustix::mount::fsconfig_set_string(&context, "source", "overlay")?;
        match lower {
            Lower::Each(layers) => {
                for layer in *layers {
                    rustix::mount::fsconfig_set_string(&context, "lowerdir+", layer.as_path())?;
                }
            }
            Lower::List(list) => {
                rustix::mount::fsconfig_set_string(&context, "lowerdir", *list)?;
            }
        }
        for (key, path) in [("upperdir", options.upper), ("workdir", options.work)] {
            if let Some(path) = path {
                rustix::mount::fsconfig_set_string(&context, key, path)?;
            }
        }
        for (key, value) in options.extra {
            match value {
                Some(value) => rustix::mount::fsconfig_set_string(&context, *key, *value)?,
                None => rustix::mount::fsconfig_set_flag(&context, *key)?,
            }
        }
        rustix::mount::fsconfig_create(&context)?;
        let flags = attribute_flags(options.attributes);
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)
    };
    configure().map_err(|errno| (errno, kernel_words(&context)))
}

/// The layers as one value, with the descriptors that must stay open until it is used.
fn list(lower: &[PathBuf]) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    let paths = joined(lower.iter().map(|path| path.as_os_str().as_bytes()));
    if paths.len() <= VALUE_BYTES_MAX {
        return Ok((paths, Vec::new()));
    }
    let mut open = Vec::new();
    for layer in lower {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(CWD, layer.as_path(), flags, Mode::empty());
        open.push(opened.map_err(|errno| {
            Error::system(format!("open layer {} of an overlay", layer.display()), errno)
        })?);
    }
    let names: Vec<String> =
        open.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
    let short = joined(names.iter().map(String::as_bytes));
    if short.len() > VALUE_BYTES_MAX {
        let count = lower.len();
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "mount overlay of {count} layers: so many need Linux 6.5; use an image with fewer"
            ),
        ));
    }
    Ok((short, open))
}

/// Separated by colons; `:` and `\` inside are escaped, as overlayfs asks.
fn joined<'a>(layers: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut list = Vec::new();
    for layer in layers {
        if !list.is_empty() {
            list.push(b':');
        }
        for byte in layer {
            if matches!(byte, b':' | b'\\') {
                list.push(b'\\');
            }
            list.push(*byte);
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What kernels before 6.5 get works on newer ones, too.
    #[test]
    fn old_kernels_get_one_list_of_paths_or_descriptors() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED old_kernels_get_one_list_of_paths_or_descriptors: needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        for count in [2, 12] {
            let layers: Vec<PathBuf> = (0..count)
                .map(|number| directory.path().join(format!("{number}:a-rather-long-name\\")))
                .collect();
            for (number, layer) in layers.iter().enumerate() {
                std::fs::create_dir_all(layer).unwrap();
                std::fs::write(layer.join(number.to_string()), "").unwrap();
            }
            let options = OverlayOptions { lower: &layers, ..OverlayOptions::default() };
            let (list, open) = list(&layers).unwrap();
            assert_eq!(open.is_empty(), count == 2);
            let mounted = mount(&options, &Lower::List(&list)).unwrap();
            let names = std::fs::read_dir(format!("/proc/self/fd/{}", mounted.as_raw_fd()));
            assert_eq!(names.unwrap().count(), count);
        }
        let many = vec![PathBuf::from("/usr/share/doc"); 40];
        assert_eq!(list(&many).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
