//! What this runtime can do, as the specification's features document says it (features.md, features-linux.md).
//!
//! Lists come from the tables that the parsers use, or from the types that configurations are read into, so that they
//! say neither more nor less than what is understood.

use oci_spec::runtime::{
    Arch, Hooks, LinuxNamespaceType, LinuxSeccompAction, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, MemoryPolicyFlagType, MemoryPolicyModeType,
};
use serde_json::{Value, json};

use crate::cgroup::systemd;
use crate::rootfs::options;
use crate::security::seccomp;
use crate::{CAPABILITIES, SPEC_VERSION, hooks};

const NAMESPACES: [LinuxNamespaceType; 8] = [
    LinuxNamespaceType::Cgroup,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Time,
    LinuxNamespaceType::User,
    LinuxNamespaceType::Uts,
];

const ACTIONS: [LinuxSeccompAction; 9] = [
    LinuxSeccompAction::ScmpActAllow,
    LinuxSeccompAction::ScmpActErrno,
    LinuxSeccompAction::ScmpActKill,
    LinuxSeccompAction::ScmpActKillProcess,
    LinuxSeccompAction::ScmpActKillThread,
    LinuxSeccompAction::ScmpActLog,
    LinuxSeccompAction::ScmpActNotify,
    LinuxSeccompAction::ScmpActTrace,
    LinuxSeccompAction::ScmpActTrap,
];

const OPERATORS: [LinuxSeccompOperator; 7] = [
    LinuxSeccompOperator::ScmpCmpEq,
    LinuxSeccompOperator::ScmpCmpGe,
    LinuxSeccompOperator::ScmpCmpGt,
    LinuxSeccompOperator::ScmpCmpLe,
    LinuxSeccompOperator::ScmpCmpLt,
    LinuxSeccompOperator::ScmpCmpMaskedEq,
    LinuxSeccompOperator::ScmpCmpNe,
];

/// Those whose code this machine cannot run are understood, and need no rules.
const ARCHITECTURES: [Arch; 24] = [
    Arch::ScmpArchAarch64,
    Arch::ScmpArchArm,
    Arch::ScmpArchLoongarch64,
    Arch::ScmpArchM68k,
    Arch::ScmpArchMips,
    Arch::ScmpArchMips64,
    Arch::ScmpArchMips64n32,
    Arch::ScmpArchMipsel,
    Arch::ScmpArchMipsel64,
    Arch::ScmpArchMipsel64n32,
    Arch::ScmpArchNative,
    Arch::ScmpArchParisc,
    Arch::ScmpArchParisc64,
    Arch::ScmpArchPpc,
    Arch::ScmpArchPpc64,
    Arch::ScmpArchPpc64le,
    Arch::ScmpArchRiscv64,
    Arch::ScmpArchS390,
    Arch::ScmpArchS390x,
    Arch::ScmpArchSh,
    Arch::ScmpArchSheb,
    Arch::ScmpArchX32,
    Arch::ScmpArchX86,
    Arch::ScmpArchX86_64,
];

const SECCOMP_FLAGS: [LinuxSeccompFilterFlag; 4] = [
    LinuxSeccompFilterFlag::SeccompFilterFlagLog,
    LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow,
    LinuxSeccompFilterFlag::SeccompFilterFlagTsync,
    LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv,
];

const MEMORY_MODES: [MemoryPolicyModeType; 7] = [
    MemoryPolicyModeType::MpolBind,
    MemoryPolicyModeType::MpolDefault,
    MemoryPolicyModeType::MpolInterleave,
    MemoryPolicyModeType::MpolLocal,
    MemoryPolicyModeType::MpolPreferred,
    MemoryPolicyModeType::MpolPreferredMany,
    MemoryPolicyModeType::MpolWeightedInterleave,
];

const MEMORY_FLAGS: [MemoryPolicyFlagType; 3] = [
    MemoryPolicyFlagType::MpolFNumaBalancing,
    MemoryPolicyFlagType::MpolFRelativeNodes,
    MemoryPolicyFlagType::MpolFStaticNodes,
];

/// The document. What it says holds for the runtime; whether the host has it too is said for `supportedFlags` alone, as
/// the specification wants it.
#[must_use]
pub fn document() -> Value {
    let hook_names = hooks::kinds(&Hooks::default()).map(|(name, _)| name);
    let supported: Vec<_> =
        SECCOMP_FLAGS.into_iter().filter(|flag| seccomp::supports(*flag)).collect();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": hook_names,
        "mountOptions": options::names(),
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": CAPABILITIES.as_slice(),
            "cgroup": {
                "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true
            },
            "seccomp": {
                "enabled": true,
                "actions": ACTIONS,
                "operators": OPERATORS,
                "archs": ARCHITECTURES,
                "knownFlags": SECCOMP_FLAGS,
                "supportedFlags": supported
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "memoryPolicy": {"modes": MEMORY_MODES, "flags": MEMORY_FLAGS},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true}
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "false"
        },
        "potentiallyUnsafeConfigAnnotations": [systemd::ANNOTATION_PREFIX]
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Names that serde gives for a wrong one are those that it would take.
    fn understood<T: serde::de::DeserializeOwned>() -> BTreeSet<String> {
        let Err(error) = serde_json::from_value::<T>(json!("wrong")) else { panic!("taken") };
        let text = error.to_string();
        text.split('`').skip(3).step_by(2).map(ToOwned::to_owned).collect()
    }

    fn listed(path: &str) -> BTreeSet<String> {
        serde_json::from_value(document().pointer(path).unwrap().clone()).unwrap()
    }

    #[test]
    fn lists_have_exactly_what_configurations_may_say() {
        for (path, understood) in [
            ("/linux/namespaces", understood::<LinuxNamespaceType>()),
            ("/linux/seccomp/actions", understood::<LinuxSeccompAction>()),
            ("/linux/seccomp/operators", understood::<LinuxSeccompOperator>()),
            ("/linux/seccomp/archs", understood::<Arch>()),
            ("/linux/seccomp/knownFlags", understood::<LinuxSeccompFilterFlag>()),
            ("/linux/memoryPolicy/modes", understood::<MemoryPolicyModeType>()),
            ("/linux/memoryPolicy/flags", understood::<MemoryPolicyFlagType>()),
        ] {
            assert_eq!(listed(path), understood, "{path}");
        }
        for name in listed("/linux/capabilities") {
            let known = serde_json::from_value::<oci_spec::runtime::Capability>(json!(name));
            assert!(known.is_ok_and(|known| known.to_string() == name.trim_start_matches("CAP_")));
        }
        let hooks: Vec<_> = hooks::kinds(&Hooks::default()).map(|(name, _)| name).to_vec();
        for name in hooks {
            let text = json!({name: [{"path": "/hook"}]});
            let hooks: Hooks = serde_json::from_value(text).unwrap();
            let found = hooks::kinds(&hooks).into_iter().find(|(_, hooks)| !hooks.is_empty());
            assert_eq!(found.map(|(name, _)| name), Some(name));
        }
    }

    #[test]
    fn the_document_is_the_specifications() {
        let parsed: oci_spec::runtime::Features = serde_json::from_value(document()).unwrap();
        let again = serde_json::to_value(&parsed).unwrap();
        let keys = |value: &Value| -> BTreeSet<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        // Nothing is said that the specification's type does not have, and nothing of it is left unsaid.
        assert_eq!(keys(&document()), keys(&again));
        assert_eq!(keys(&document()["linux"]), keys(&again["linux"]));
        for part in ["cgroup", "seccomp", "intelRdt", "memoryPolicy"] {
            assert_eq!(keys(&document()["linux"][part]), keys(&again["linux"][part]), "{part}");
        }
    }

    /// Every flag that the kernel of these tests lacks is named here.
    #[test]
    fn supported_flags_are_asked_of_the_kernel() {
        let (known, supported) =
            (listed("/linux/seccomp/knownFlags"), listed("/linux/seccomp/supportedFlags"));
        assert!(supported.is_subset(&known) && supported.contains("SECCOMP_FILTER_FLAG_LOG"));
    }
}
