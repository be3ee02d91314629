//! The capability sets of a configuration.

use brig_linux::capability::{self, CapabilitySet};
use oci_spec::runtime::{Capabilities as Names, LinuxCapabilities};

use crate::process::plan::Capabilities;

/// The five sets; without a configuration the process has none.
pub(crate) fn parse(configured: Option<&LinuxCapabilities>) -> Capabilities {
    let set = |names: Option<&Names>| {
        let names = names.into_iter().flatten();
        names
            .filter_map(|name| capability::parse(&name.to_string()))
            .fold(CapabilitySet::empty(), CapabilitySet::union)
    };
    let Some(configured) = configured else {
        let none = CapabilitySet::empty();
        return Capabilities {
            bounding: none,
            effective: none,
            inheritable: none,
            permitted: none,
            ambient: none,
        };
    };
    let inheritable = set(configured.inheritable().as_ref());
    let permitted = set(configured.permitted().as_ref());
    Capabilities {
        bounding: set(configured.bounding().as_ref()),
        effective: set(configured.effective().as_ref()),
        inheritable,
        permitted,
        // The kernel only lets capabilities be ambient that are both permitted and inheritable. runc goes on without
        // the others, and configurations that it wrote before 1.2 name such.
        ambient: set(configured.ambient().as_ref()) & inheritable & permitted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_bits_and_absence_means_none() {
        let configured: LinuxCapabilities =
            serde_json::from_str(r#"{"bounding":["CAP_CHOWN","CAP_KILL"]}"#).unwrap();
        let sets = parse(Some(&configured));
        assert_eq!(sets.bounding, CapabilitySet::CHOWN | CapabilitySet::KILL);
        assert_eq!(sets.effective, CapabilitySet::empty());
        assert_eq!(parse(None).bounding, CapabilitySet::empty());
    }

    #[test]
    fn what_cannot_be_ambient_is_left_out() {
        let configured: LinuxCapabilities = serde_json::from_str(
            r#"{"permitted":["CAP_KILL","CAP_CHOWN"],"inheritable":["CAP_KILL"],
                "ambient":["CAP_KILL","CAP_CHOWN"]}"#,
        )
        .unwrap();
        assert_eq!(parse(Some(&configured)).ambient, CapabilitySet::KILL);
    }
}
