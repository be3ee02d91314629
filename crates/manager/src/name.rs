//! Identifiers and names: what they may look like, how they are made.

use rand::Rng;

use crate::error::{Error, Result};

/// The longest name that is accepted, in bytes. Docker has no limit; a name is also a DNS label and a file name here.
const NAME_BYTES_MAX: usize = 255;

/// A new identifier: 64 lower-case hexadecimal digits, not all digits in its short form (which would read as a number).
pub(crate) fn new_id() -> String {
    loop {
        let mut bytes = [0_u8; 32];
        rand::rng().fill(&mut bytes[..]);
        let id = hex(&bytes);
        if id[..12].bytes().any(|byte| !byte.is_ascii_digit()) {
            return id;
        }
    }
}

/// The short form of an identifier, as `ps` shows it.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
        .collect()
}

/// Checks a container or volume name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, a leading slash removed.
pub(crate) fn parse_container(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    if bare.len() >= 2 && is_plain(bare) {
        return Ok(bare);
    }
    Err(Error::invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

/// Checks a network name: as a container's, but one letter is enough and there is no slash to remove.
pub(crate) fn parse_network(name: &str) -> Option<&str> {
    is_plain(name).then_some(name)
}

fn is_plain(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        && name.len() <= NAME_BYTES_MAX
}

/// A name for a container that was given none: two words, and a digit when `taken` knows the pair.
pub(crate) fn generate(taken: impl Fn(&str) -> bool) -> String {
    let mut random = rand::rng();
    for attempt in 0_u32.. {
        let left = LEFT[random.random_range(0..LEFT.len())];
        let right = RIGHT[random.random_range(0..RIGHT.len())];
        let name = if attempt < 3 {
            format!("{left}_{right}")
        } else {
            format!("{left}_{right}{attempt}")
        };
        if !taken(&name) {
            return name;
        }
    }
    new_id()
}

const LEFT: &[&str] = &[
    "able",
    "amber",
    "ample",
    "apt",
    "azure",
    "bold",
    "brave",
    "breezy",
    "bright",
    "brisk",
    "calm",
    "candid",
    "cheery",
    "civil",
    "clear",
    "clever",
    "cosy",
    "crisp",
    "daring",
    "deft",
    "eager",
    "early",
    "even",
    "fair",
    "fleet",
    "fond",
    "frank",
    "fresh",
    "gentle",
    "glad",
    "golden",
    "good",
    "grand",
    "hale",
    "handy",
    "happy",
    "hardy",
    "hearty",
    "ideal",
    "jolly",
    "keen",
    "kind",
    "lively",
    "loyal",
    "lucid",
    "lucky",
    "merry",
    "mild",
    "modest",
    "neat",
    "nimble",
    "noble",
    "patient",
    "placid",
    "plucky",
    "prompt",
    "proud",
    "quick",
    "quiet",
    "ready",
    "robust",
    "seaworthy",
    "serene",
    "sharp",
    "silver",
    "sleek",
    "smart",
    "snug",
    "sober",
    "solid",
    "sound",
    "spry",
    "stable",
    "steady",
    "stout",
    "sunny",
    "swift",
    "tidy",
    "trim",
    "true",
    "upbeat",
    "valiant",
    "vivid",
    "warm",
    "wise",
    "witty",
    "young",
    "zesty",
];

const RIGHT: &[&str] = &[
    "anchor",
    "atoll",
    "bark",
    "barque",
    "bay",
    "beacon",
    "boom",
    "bosun",
    "bowsprit",
    "breeze",
    "brig",
    "buoy",
    "capstan",
    "captain",
    "cay",
    "clipper",
    "coast",
    "compass",
    "coral",
    "cove",
    "crew",
    "current",
    "cutter",
    "deck",
    "delta",
    "dinghy",
    "dock",
    "dolphin",
    "dory",
    "ferry",
    "fjord",
    "foresail",
    "frigate",
    "galleon",
    "galley",
    "gull",
    "gulf",
    "halyard",
    "harbour",
    "haven",
    "helm",
    "hull",
    "island",
    "jetty",
    "jib",
    "keel",
    "ketch",
    "knot",
    "lagoon",
    "lantern",
    "lighthouse",
    "lugger",
    "mainsail",
    "mariner",
    "mast",
    "mate",
    "mooring",
    "narwhal",
    "navigator",
    "oar",
    "osprey",
    "pelican",
    "pier",
    "pilot",
    "pinnace",
    "port",
    "prow",
    "puffin",
    "quay",
    "reef",
    "rigging",
    "rudder",
    "sail",
    "sailor",
    "schooner",
    "sextant",
    "shallop",
    "shoal",
    "sloop",
    "spar",
    "spinnaker",
    "stern",
    "strait",
    "surf",
    "tern",
    "tide",
    "tiller",
    "topsail",
    "trawler",
    "trysail",
    "wake",
    "wharf",
    "wherry",
    "yawl",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_pattern() {
        for good in ["ab", "a1", "A_b.c-d", "/web", "0x"] {
            assert!(parse_container(good).is_ok(), "{good}");
        }
        for bad in
            ["", "a", "/", "-ab", "_ab", ".ab", "a/b", "a b", "ä1", "a\n", "//ab", &"x".repeat(256)]
        {
            assert!(parse_container(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_container("/web").expect("a good name"), "web");
    }

    #[test]
    fn identifiers_are_64_hex_digits() {
        let id = new_id();
        assert_eq!(id.len(), 64);
        assert!(id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)));
        assert_ne!(id, new_id());
    }

    #[test]
    fn generated_names_are_valid_and_avoid_taken_ones() {
        let name = generate(|candidate| candidate.bytes().all(|byte| !byte.is_ascii_digit()));
        assert!(parse_container(&name).is_ok());
        assert!(name.bytes().any(|byte| byte.is_ascii_digit()));
    }
}
