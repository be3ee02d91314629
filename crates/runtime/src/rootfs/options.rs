//! Mount options, as fstab(5) and the OCI runtime specification spell them.

use brig_linux::mount::{MountAttributes, attribute, propagation};

use crate::error::{Error, ErrorKind, Result};

/// The most options that one mount may have.
const OPTIONS_MAX: usize = 256;

/// The options of one mount, sorted by what they do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    pub(crate) bind: bool,
    /// `rbind`: take the mounts below along.
    pub(crate) recursive_bind: bool,
    pub(crate) remount: bool,
    /// Of this mount alone.
    pub(crate) attributes: MountAttributes,
    /// Of this mount and all below (`rro`, `rnosuid`, ...).
    pub(crate) recursive_attributes: MountAttributes,
    /// Propagation types in order, each with whether it is recursive.
    pub(crate) propagation: Vec<(u64, bool)>,
    /// Map owners by the mount's own or the container's id maps; recursively or not.
    pub(crate) id_map: Option<bool>,
    /// Start a tmpfs with what the image has at its place.
    pub(crate) copy_up: bool,
    /// A source that is a link is copied to the target instead of followed.
    pub(crate) copy_link: bool,
    /// A source that is a link is mounted itself.
    pub(crate) source_nofollow: bool,
    /// A target that is a link is mounted over instead of followed.
    pub(crate) target_nofollow: bool,
    /// What the filesystem itself understands.
    pub(crate) data: Vec<(String, Option<String>)>,
}

/// Sorts the options of a mount.
///
/// # Errors
/// `InvalidInput` for too many or a zero byte.
pub(crate) fn parse(options: &[String]) -> Result<MountOptions> {
    let invalid = |what: String| Error::new(ErrorKind::InvalidInput, what);
    if options.len() > OPTIONS_MAX {
        return Err(invalid(format!("a mount has more than {OPTIONS_MAX} options")));
    }
    let mut parsed = MountOptions::default();
    for option in options {
        if option.contains('\0') {
            return Err(invalid(format!("mount option {option:?} contains a zero byte")));
        }
        parse_one(option, &mut parsed);
    }
    Ok(parsed)
}

fn parse_one(option: &str, parsed: &mut MountOptions) {
    if let Some((bits, set)) = attribute_of(option) {
        parsed.attributes = change(parsed.attributes, bits, set);
        return;
    }
    let recursive = option.strip_prefix('r').and_then(attribute_of);
    if let Some((bits, set)) = recursive {
        parsed.recursive_attributes = change(parsed.recursive_attributes, bits, set);
        return;
    }
    if let Some(kind) = propagation_of(option) {
        parsed.propagation.push(kind);
        return;
    }
    if let Some((_, switch)) = SWITCHES.iter().find(|(name, _)| *name == option) {
        switch(parsed);
        return;
    }
    if option.is_empty() || DEFAULTS.contains(&option) {
        return;
    }
    parsed.data.push(match option.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (option.to_owned(), None),
    });
}

fn change(attributes: MountAttributes, bits: u64, set: bool) -> MountAttributes {
    if set { attributes.set(bits) } else { attributes.clear(bits) }
}

/// Options that are attributes of a mount: the kernel's bit, and whether it is set or cleared. Each has a recursive form
/// with an `r` in front.
const ATTRIBUTES: [(&str, u64, bool); 16] = [
    ("ro", attribute::READ_ONLY, true),
    ("rw", attribute::READ_ONLY, false),
    ("nosuid", attribute::NO_SUID, true),
    ("suid", attribute::NO_SUID, false),
    ("nodev", attribute::NO_DEV, true),
    ("dev", attribute::NO_DEV, false),
    ("noexec", attribute::NO_EXEC, true),
    ("exec", attribute::NO_EXEC, false),
    ("noatime", attribute::NO_ATIME, true),
    ("strictatime", attribute::STRICT_ATIME, true),
    ("atime", attribute::ACCESS_TIME, false),
    ("relatime", attribute::ACCESS_TIME, false),
    ("nodiratime", attribute::NO_DIRATIME, true),
    ("diratime", attribute::NO_DIRATIME, false),
    ("nosymfollow", attribute::NO_SYMFOLLOW, true),
    ("symfollow", attribute::NO_SYMFOLLOW, false),
];

/// Propagation types: the kernel's bit, and whether it is for all mounts below too.
const PROPAGATION: [(&str, u64, bool); 8] = [
    ("private", propagation::PRIVATE, false),
    ("rprivate", propagation::PRIVATE, true),
    ("slave", propagation::SLAVE, false),
    ("rslave", propagation::SLAVE, true),
    ("shared", propagation::SHARED, false),
    ("rshared", propagation::SHARED, true),
    ("unbindable", propagation::UNBINDABLE, false),
    ("runbindable", propagation::UNBINDABLE, true),
];

type Switch = fn(&mut MountOptions);

/// What else an option does.
const SWITCHES: [(&str, Switch); 9] = [
    ("bind", |parsed| parsed.bind = true),
    ("rbind", |parsed| (parsed.bind, parsed.recursive_bind) = (true, true)),
    ("remount", |parsed| parsed.remount = true),
    ("idmap", |parsed| parsed.id_map = Some(false)),
    ("ridmap", |parsed| parsed.id_map = Some(true)),
    ("tmpcopyup", |parsed| parsed.copy_up = true),
    ("copy-symlink", |parsed| parsed.copy_link = true),
    ("src-nofollow", |parsed| parsed.source_nofollow = true),
    ("dest-nofollow", |parsed| parsed.target_nofollow = true),
];

/// Options that say what holds anyway.
const DEFAULTS: [&str; 10] = [
    "defaults",
    "async",
    "loud",
    "silent",
    "nomand",
    "nolazytime",
    "norelatime",
    "rnorelatime",
    "nostrictatime",
    "rnostrictatime",
];

/// Options that the kernel takes for every filesystem (`vfs_parse_sb_flag`), and so are handed on as the filesystem's own.
const EVERY_FILESYSTEM: [&str; 4] = ["dirsync", "lazytime", "mand", "sync"];

fn attribute_of(option: &str) -> Option<(u64, bool)> {
    let found = ATTRIBUTES.iter().find(|(name, ..)| *name == option);
    found.map(|(_, bits, set)| (*bits, *set))
}

/// A propagation type of the configuration: the kernel's bit, and whether it is for all mounts below too.
pub(crate) fn propagation_of(option: &str) -> Option<(u64, bool)> {
    let found = PROPAGATION.iter().find(|(name, ..)| *name == option);
    found.map(|(_, bits, recursive)| (*bits, *recursive))
}

/// All options that do not belong to one filesystem, sorted.
pub(crate) fn names() -> Vec<String> {
    let attributes =
        ATTRIBUTES.iter().flat_map(|(name, ..)| [(*name).to_owned(), format!("r{name}")]);
    let others = PROPAGATION.iter().map(|(name, ..)| *name);
    let others = others.chain(SWITCHES.iter().map(|(name, _)| *name));
    let others = others.chain(DEFAULTS).chain(EVERY_FILESYSTEM);
    let mut names: Vec<String> = attributes.chain(others.map(ToOwned::to_owned)).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[&str]) -> MountOptions {
        parse(&list.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn options_are_sorted_by_what_they_do() {
        let parsed = options(&["rbind", "ro", "rnosuid", "rslave", "size=64m", "noatime", "x"]);
        assert!(parsed.bind && parsed.recursive_bind);
        let wanted = MountAttributes::default().set(attribute::READ_ONLY).set(attribute::NO_ATIME);
        assert_eq!(parsed.attributes, wanted);
        let wanted = MountAttributes::default().set(attribute::NO_SUID);
        assert_eq!(parsed.recursive_attributes, wanted);
        assert_eq!(parsed.propagation, [(propagation::SLAVE, true)]);
        let data = [("size".to_owned(), Some("64m".to_owned())), ("x".to_owned(), None)];
        assert_eq!(parsed.data, data);
    }

    #[test]
    fn relatime_is_not_a_recursive_option() {
        assert_eq!(options(&["relatime"]).recursive_attributes, MountAttributes::default());
        assert_eq!(options(&["rw"]).recursive_attributes, MountAttributes::default());
    }

    #[test]
    fn every_name_is_understood_here_or_by_every_filesystem() {
        let names = names();
        assert!(names.is_sorted() && names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        for name in &names {
            let data = parse(std::slice::from_ref(name)).unwrap().data;
            assert_eq!(data.is_empty(), !EVERY_FILESYSTEM.contains(&name.as_str()), "{name}");
        }
    }

    #[test]
    fn malformed_options_are_refused() {
        assert!(parse(&["a\0b".to_owned()]).is_err());
        assert!(parse(&vec!["ro".to_owned(); 1000]).is_err());
    }
}
