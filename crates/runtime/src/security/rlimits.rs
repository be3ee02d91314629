//! Resource limits, set by the caller on the new process while it waits.

use std::collections::HashSet;

use oci_spec::runtime::{PosixRlimit, PosixRlimitType};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::error::{Error, ErrorKind, Result};

/// A checked limit.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    resource: Kind,
    name: String,
    soft: u64,
    hard: u64,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Known(Resource),
    RealTimeTime,
}

/// Checks the limits of a configuration.
///
/// # Errors
/// `InvalidInput` for one given twice, or with a soft limit above the hard one.
pub(crate) fn parse(limits: &[PosixRlimit]) -> Result<Vec<Limit>> {
    let mut seen = HashSet::new();
    limits
        .iter()
        .map(|limit| {
            let name = limit.typ().to_string();
            if !seen.insert(name.clone()) {
                let attempt = format!("process.rlimits has {name} twice");
                return Err(Error::new(ErrorKind::InvalidInput, attempt));
            }
            if limit.soft() > limit.hard() {
                let attempt = format!("process.rlimits {name}: soft limit above hard limit");
                return Err(Error::new(ErrorKind::InvalidInput, attempt));
            }
            let resource = kind(limit.typ());
            Ok(Limit { resource, name, soft: limit.soft(), hard: limit.hard() })
        })
        .collect()
}

/// Sets the limits on a process.
///
/// # Errors
/// `Denied` when a hard limit is raised without CAP_SYS_RESOURCE.
pub(crate) fn apply(pid: Pid, limits: &[Limit]) -> Result<()> {
    for limit in limits {
        let set = match limit.resource {
            Kind::Known(resource) => {
                let value = |value: u64| (value != u64::MAX).then_some(value);
                let wanted = Rlimit { current: value(limit.soft), maximum: value(limit.hard) };
                prlimit(Some(pid), resource, wanted).map(drop)
            }
            Kind::RealTimeTime => set_real_time(pid, limit.soft, limit.hard),
        };
        set.map_err(|errno| {
            let attempt = format!("set {} to soft {} hard {}", limit.name, limit.soft, limit.hard);
            let error = Error::system(attempt, errno);
            if errno == rustix::io::Errno::PERM {
                return error.with_advice(
                    "raising a hard limit needs CAP_SYS_RESOURCE; ask for at most the present one",
                );
            }
            error
        })?;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "rustix has no name for RLIMIT_RTTIME")]
fn set_real_time(pid: Pid, soft: u64, hard: u64) -> rustix::io::Result<()> {
    // RLIM_INFINITY is all ones, as in the configuration.
    let wanted = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let number = pid.as_raw_nonzero().get();
    // SAFETY: the kernel reads the structure, which is borrowed for the call, and is not asked for the old values.
    let answer = unsafe {
        libc::prlimit64(number, libc::RLIMIT_RTTIME, &raw const wanted, std::ptr::null_mut())
    };
    if answer == 0 { Ok(()) } else { Err(super::scheduling::last_errno()) }
}

fn kind(resource: PosixRlimitType) -> Kind {
    Kind::Known(match resource {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => return Kind::RealTimeTime,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_refused() {
        let limit = |soft: u64, hard: u64| -> PosixRlimit {
            serde_json::from_value(
                serde_json::json!({"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard}),
            )
            .unwrap()
        };
        assert!(parse(&[limit(1, 2)]).is_ok());
        assert!(parse(&[limit(2, 1)]).is_err());
        assert!(parse(&[limit(1, 2), limit(1, 2)]).is_err());
    }
}
