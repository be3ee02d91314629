//! Which processors and which memory nodes a process uses.

use oci_spec::runtime::{
    ExecCPUAffinity, LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType,
};
use rustix::thread::CpuSet;

use super::scheduling::last_errno;
use crate::error::{Error, ErrorKind, Result};
use crate::ranges;

/// Most memory nodes of a mask: the kernel's own limit is `CONFIG_NODES_SHIFT` of 10.
const NODES_MAX: usize = 1024;

/// `process.execCPUAffinity` of a further process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Affinity {
    /// Until it is in the container's cgroup.
    pub(crate) initial: Option<CpuSet>,
    /// From then on.
    pub(crate) last: Option<CpuSet>,
}

/// Reads the processors of a further process.
///
/// # Errors
/// `InvalidInput` for what is no list of processors.
pub(crate) fn affinity(wanted: &ExecCPUAffinity) -> Result<Affinity> {
    let set = |list: &Option<String>, field: &str| {
        list.as_deref().filter(|list| !list.is_empty()).map(|list| processors(list, field))
    };
    Ok(Affinity {
        initial: set(wanted.initial(), "initial").transpose()?,
        last: set(wanted.cpu_affinity_final(), "final").transpose()?,
    })
}

fn processors(list: &str, field: &str) -> Result<CpuSet> {
    let bits = ranges::bitmap(list, CpuSet::MAX_CPU).ok_or_else(|| {
        let text = format!("process.execCPUAffinity.{field} {list:?} is not a list such as 0-3,8");
        Error::new(ErrorKind::InvalidInput, text)
    })?;
    let mut set = CpuSet::new();
    for number in 0..bits.len() * 8 {
        if bits[number / 8] & (1 << (number % 8)) != 0 {
            set.set(number);
        }
    }
    Ok(set)
}

/// Binds this process to processors. Child-safe.
pub(crate) fn set_affinity(processors: &CpuSet) -> rustix::io::Result<()> {
    rustix::thread::sched_setaffinity(None, processors)
}

/// What set_mempolicy(2) takes.
#[derive(Clone, Debug)]
pub(crate) struct MemoryPolicy {
    mode: libc::c_int,
    nodes: Vec<libc::c_ulong>,
}

/// Reads `linux.memoryPolicy`.
///
/// # Errors
/// `InvalidInput` for combinations that the kernel refuses without saying why.
pub(crate) fn memory_policy(wanted: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    let invalid = |what: String| Err(Error::new(ErrorKind::InvalidInput, what));
    let (mode, takes_nodes, needs_nodes) = match wanted.mode() {
        MemoryPolicyModeType::MpolDefault => (0, false, false),
        MemoryPolicyModeType::MpolPreferred => (1, true, false),
        MemoryPolicyModeType::MpolBind => (2, true, true),
        MemoryPolicyModeType::MpolInterleave => (3, true, true),
        MemoryPolicyModeType::MpolLocal => (4, false, false),
        MemoryPolicyModeType::MpolPreferredMany => (5, true, true),
        MemoryPolicyModeType::MpolWeightedInterleave => (6, true, true),
    };
    let mut flags = 0;
    for flag in wanted.flags().iter().flatten() {
        flags |= match flag {
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        };
    }
    let name = wanted.mode();
    if flags & (3 << 14) == 3 << 14 {
        return invalid("linux.memoryPolicy has both static and relative nodes".to_owned());
    }
    let list = wanted.nodes().as_deref().unwrap_or_default();
    match (list.is_empty(), takes_nodes, needs_nodes) {
        (true, _, true) => return invalid(format!("linux.memoryPolicy {name} without nodes")),
        (false, false, _) => return invalid(format!("linux.memoryPolicy {name} takes no nodes")),
        (true, ..) if flags != 0 => {
            return invalid(format!("linux.memoryPolicy {name} without nodes takes no flags"));
        }
        _ => {}
    }
    let mut nodes = Vec::new();
    if !list.is_empty() {
        let Some(bits) = ranges::bitmap(list, NODES_MAX) else {
            return invalid(format!("linux.memoryPolicy.nodes {list:?} is not a list such as 0-3"));
        };
        nodes.extend(bits.chunks(8).map(|bytes| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            libc::c_ulong::from_le_bytes(word)
        }));
    }
    Ok(MemoryPolicy { mode: mode | flags, nodes })
}

impl MemoryPolicy {
    /// Applies it to this thread; programs inherit it. Child-safe.
    #[expect(unsafe_code, reason = "set_mempolicy is in neither rustix nor nix")]
    pub(crate) fn apply(&self) -> rustix::io::Result<()> {
        let pointer = if self.nodes.is_empty() { std::ptr::null() } else { self.nodes.as_ptr() };
        // The kernel reads one bit less than it is told.
        let bits = if self.nodes.is_empty() { 0 } else { self.nodes.len() * 64 + 1 };
        // SAFETY: the kernel reads `bits - 1` bits of the mask, which the vector has, and writes nothing.
        let answer = unsafe { libc::syscall(libc::SYS_set_mempolicy, self.mode, pointer, bits) };
        if answer == 0 { Ok(()) } else { Err(last_errno()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_that_the_kernel_would_refuse_are_named() {
        let parse = |text: &str| memory_policy(&serde_json::from_str(text).unwrap());
        let policy =
            parse(r#"{"mode":"MPOL_BIND","nodes":"0,65","flags":["MPOL_F_STATIC_NODES"]}"#);
        let policy = policy.unwrap();
        assert_eq!((policy.mode, policy.nodes), (2 | 1 << 15, vec![1, 2]));
        for text in [
            r#"{"mode":"MPOL_BIND"}"#,
            r#"{"mode":"MPOL_LOCAL","nodes":"0"}"#,
            r#"{"mode":"MPOL_BIND","nodes":"x"}"#,
            r#"{"mode":"MPOL_PREFERRED","flags":["MPOL_F_STATIC_NODES"]}"#,
            r#"{"mode":"MPOL_BIND","nodes":"0",
                "flags":["MPOL_F_STATIC_NODES","MPOL_F_RELATIVE_NODES"]}"#,
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains("linux.memoryPolicy"), "{error}");
        }
    }

    #[test]
    fn processors_are_lists() {
        let wanted = serde_json::from_str(r#"{"initial":"0","final":"0-1,3"}"#).unwrap();
        let affinity = affinity(&wanted).unwrap();
        assert!(affinity.initial.unwrap().is_set(0));
        let last = affinity.last.unwrap();
        assert!(last.is_set(1) && !last.is_set(2) && last.is_set(3));
    }
}
