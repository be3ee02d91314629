//! What v1's cpuset hierarchy says of a cgroup.

use serde::Serialize;

use super::super::directory::Directory;
use super::super::failure::Result;
use crate::ranges;

/// More processors or nodes than any machine has.
const NUMBERS_MAX: usize = 8192;

/// Processors and memory nodes, and how tasks use them (cpuset(7)).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpusetStats {
    /// Numbers of the processors.
    pub cpus: Vec<u16>,
    /// Numbers of the memory nodes.
    pub mems: Vec<u16>,
    /// `cpuset.cpu_exclusive`
    pub cpu_exclusive: u64,
    /// `cpuset.mem_hardwall`
    pub mem_hardwall: u64,
    /// `cpuset.mem_exclusive`
    pub mem_exclusive: u64,
    /// `cpuset.memory_migrate`
    pub memory_migrate: u64,
    /// `cpuset.memory_spread_page`
    pub memory_spread_page: u64,
    /// `cpuset.memory_spread_slab`
    pub memory_spread_slab: u64,
    /// `cpuset.memory_pressure`
    pub memory_pressure: u64,
    /// `cpuset.sched_load_balance`
    pub sched_load_balance: u64,
    /// `cpuset.sched_relax_domain_level`, -1 by default.
    pub sched_relax_domain_level: i64,
}

pub(super) fn read(directory: &Directory) -> Result<CpusetStats> {
    let list = |file: &str| -> Result<Vec<u16>> {
        Ok(numbers(directory.read_optional(file)?.unwrap_or_default().trim()))
    };
    let number = |file: &str| -> Result<u64> {
        Ok(directory.read_number(&format!("cpuset.{file}"))?.unwrap_or(0))
    };
    let level = directory.read_optional("cpuset.sched_relax_domain_level")?;
    Ok(CpusetStats {
        cpus: list("cpuset.cpus")?,
        mems: list("cpuset.mems")?,
        cpu_exclusive: number("cpu_exclusive")?,
        mem_hardwall: number("mem_hardwall")?,
        mem_exclusive: number("mem_exclusive")?,
        memory_migrate: number("memory_migrate")?,
        memory_spread_page: number("memory_spread_page")?,
        memory_spread_slab: number("memory_spread_slab")?,
        memory_pressure: number("memory_pressure")?,
        sched_load_balance: number("sched_load_balance")?,
        sched_relax_domain_level: level.and_then(|text| text.trim().parse().ok()).unwrap_or(-1),
    })
}

/// The members of a list such as `0-3,8`.
fn numbers(list: &str) -> Vec<u16> {
    let bits = ranges::bitmap(list, NUMBERS_MAX).unwrap_or_default();
    let set = |number: &usize| bits[number / 8] & (1 << (number % 8)) != 0;
    (0..bits.len() * 8).filter(set).filter_map(|number| u16::try_from(number).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_numbers() {
        assert_eq!(numbers("0-2,8"), [0, 1, 2, 8]);
        assert!(numbers("").is_empty());
    }
}
