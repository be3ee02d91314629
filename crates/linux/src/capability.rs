//! Capability names and sets.

pub use rustix::thread::{CapabilitySet, CapabilitySets};
use rustix::thread::{
    capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set,
};

/// Kernel names of all capabilities known here, in the order of their numbers (capabilities(7), Linux 5.9).
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Numbers above this one do not exist in a 64-bit set.
const LAST_POSSIBLE: u32 = 63;

/// The set with this one capability, by its name with or without `CAP_`, in any case.
#[must_use]
pub fn parse(name: &str) -> Option<CapabilitySet> {
    let bare =
        name.get(..4).filter(|head| head.eq_ignore_ascii_case("CAP_")).map_or(name, |_| &name[4..]);
    let number = NAMES.iter().position(|known| known[4..].eq_ignore_ascii_case(bare))?;
    Some(CapabilitySet::from_bits_retain(1 << number))
}

/// Names in `set` that are known here.
pub fn names(set: CapabilitySet) -> impl Iterator<Item = &'static str> {
    NAMES
        .iter()
        .enumerate()
        .filter(move |(number, _)| set.bits() & (1 << number) != 0)
        .map(|(_, name)| *name)
}

/// What this process may use now.
///
/// # Errors
/// The system's; capget(2) does not fail for the calling thread.
pub fn effective() -> rustix::io::Result<CapabilitySet> {
    rustix::thread::capabilities(None).map(|sets| sets.effective)
}

/// Reduces the bounding set of this thread to `keep`. Child-safe.
///
/// # Errors
/// `EPERM` without CAP_SETPCAP.
pub fn limit_bounding_set(keep: CapabilitySet) -> rustix::io::Result<()> {
    for number in 0..=LAST_POSSIBLE {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The first number that this kernel does not know.
            Err(rustix::io::Errno::INVAL) => return Ok(()),
            // Without the right to drop anything, what is not there need not be dropped.
            Err(errno) if capability_is_in_bounding_set(one) != Ok(false) => return Err(errno),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Sets the permitted, effective and inheritable sets of this thread. Child-safe.
///
/// # Errors
/// `EPERM` when something is asked for that the thread does not have.
pub fn set(sets: CapabilitySets) -> rustix::io::Result<()> {
    rustix::thread::set_capabilities(None, sets)
}

/// Makes the ambient set of this thread exactly `wanted`. Child-safe.
///
/// # Errors
/// `EPERM` when one is not both permitted and inheritable.
pub fn set_ambient(wanted: CapabilitySet) -> rustix::io::Result<()> {
    clear_ambient_capability_set()?;
    for number in 0..=LAST_POSSIBLE {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if wanted.contains(one) {
            configure_capability_in_ambient_set(one, true)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_with_and_without_prefix() {
        assert_eq!(parse("CAP_CHOWN"), Some(CapabilitySet::CHOWN));
        assert_eq!(parse("net_raw"), Some(CapabilitySet::NET_RAW));
        assert_eq!(parse("CAP_NOPE"), None);
        assert_eq!(parse("é"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn every_name_goes_round() {
        for name in NAMES {
            let set = parse(name).unwrap();
            assert_eq!(names(set).collect::<Vec<_>>(), [name]);
        }
    }
}
