//! Scheduler, I/O priority and personality of a process.

use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxPersonality, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, Scheduler,
};

use crate::error::{Error, ErrorKind, Result};

/// `struct sched_attr` of sched_setattr(2), version 1: its clamps of utilisation are always 0, as the specification has
/// the flags for them but no values.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct SchedulerAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    utilisation: [u32; 2],
}

/// Checks a scheduler configuration.
pub(crate) fn scheduler(wanted: &Scheduler) -> Result<SchedulerAttributes> {
    let policy = match wanted.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flag = |flag: &LinuxSchedulerFlag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    check_scheduler(wanted)?;
    let priority = u32::try_from(wanted.priority().unwrap_or(0)).map_err(|_| {
        Error::new(ErrorKind::InvalidInput, "process.scheduler.priority is negative")
    })?;
    Ok(SchedulerAttributes {
        // SCHED_ATTR_SIZE_VER1
        size: 56,
        policy,
        flags: wanted.flags().iter().flatten().map(flag).fold(0, |all, one| all | one),
        nice: wanted.nice().unwrap_or(0),
        priority,
        runtime: wanted.runtime().unwrap_or(0),
        deadline: wanted.deadline().unwrap_or(0),
        period: wanted.period().unwrap_or(0),
        utilisation: [0, 0],
    })
}

/// Values that belong to another policy would be refused by the kernel without a word, or ignored.
fn check_scheduler(wanted: &Scheduler) -> Result<()> {
    use LinuxSchedulerPolicy::{SchedDeadline, SchedFifo, SchedRr};
    let invalid =
        |what: &str| Err(Error::new(ErrorKind::InvalidInput, format!("process.scheduler.{what}")));
    let given = |value: &Option<u64>| value.is_some_and(|value| value != 0);
    let policy = wanted.policy();
    if !(-20..=19).contains(&wanted.nice().unwrap_or(0)) {
        return invalid("nice is not -20 to 19");
    }
    let real_time = matches!(policy, SchedFifo | SchedRr);
    if wanted.priority().is_some_and(|priority| priority != 0) && !real_time {
        return invalid("priority is only for SCHED_FIFO and SCHED_RR");
    }
    let timed = given(wanted.runtime()) || given(wanted.deadline()) || given(wanted.period());
    if timed && *policy != SchedDeadline {
        return invalid("runtime, deadline and period are only for SCHED_DEADLINE");
    }
    Ok(())
}

impl SchedulerAttributes {
    /// Applies it to this process. Child-safe.
    #[expect(unsafe_code, reason = "sched_setattr is in neither rustix nor nix")]
    pub(crate) fn apply(&self) -> rustix::io::Result<()> {
        // SAFETY: the kernel reads `size` bytes of a structure of exactly that size.
        let answer =
            unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(self), 0) };
        if answer == 0 { Ok(()) } else { Err(last_errno()) }
    }
}

/// The number that ioprio_set(2) takes.
pub(crate) fn io_priority(wanted: &LinuxIOPriority) -> Result<libc::c_int> {
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match i32::try_from(wanted.priority()) {
        Ok(priority @ 0..=7) => Ok((class << 13) | priority),
        _ => Err(Error::new(ErrorKind::InvalidInput, "process.ioPriority.priority is not 0 to 7")),
    }
}

/// Sets the I/O priority of this process. Child-safe.
#[expect(unsafe_code, reason = "ioprio_set is in neither rustix nor nix")]
pub(crate) fn set_io_priority(priority: libc::c_int) -> rustix::io::Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: the call takes three integers.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, priority) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

/// The execution domain that personality(2) takes.
pub(crate) fn personality(wanted: &LinuxPersonality) -> Result<libc::c_ulong> {
    if wanted.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        let text = "linux.personality.flags: the specification defines no flags";
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => Ok(0x0000),
        LinuxPersonalityDomain::PerLinux32 => Ok(0x0008),
    }
}

/// Sets the execution domain of this process. Child-safe.
#[expect(unsafe_code, reason = "personality is in neither rustix nor a child-safe nix function")]
pub(crate) fn set_personality(domain: libc::c_ulong) -> rustix::io::Result<()> {
    // SAFETY: the call takes one integer.
    let answer = unsafe { libc::personality(domain) };
    if answer >= 0 { Ok(()) } else { Err(last_errno()) }
}

pub(crate) fn last_errno() -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&std::io::Error::last_os_error())
        .unwrap_or(rustix::io::Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_another_policy_are_refused_by_name() {
        let parse = |text: &str| scheduler(&serde_json::from_str(text).unwrap());
        assert!(parse(r#"{"policy":"SCHED_BATCH","nice":19}"#).is_ok());
        assert!(
            parse(r#"{"policy":"SCHED_DEADLINE","runtime":1,"deadline":2,"period":3}"#).is_ok()
        );
        for (text, field) in [
            (r#"{"policy":"SCHED_OTHER","nice":20}"#, "scheduler.nice"),
            (r#"{"policy":"SCHED_OTHER","priority":1}"#, "scheduler.priority"),
            (r#"{"policy":"SCHED_FIFO","priority":-1}"#, "scheduler.priority"),
            (r#"{"policy":"SCHED_FIFO","runtime":1}"#, "scheduler.runtime"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
