//! Whom the kernel killed for want of memory, from its own log: nothing else names the process.
//!
//! ```text
//! 6,1234,30210347473,-;oom-kill:constraint=CONSTRAINT_MEMCG,…,oom_memcg=/a/ID,task_memcg=/a/ID,task=sh,pid=21545,uid=0
//! ```

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use brig_shim_protocol::OomVictim;
use rustix::fs::OFlags;

/// Longest record (the kernel's `CONSOLE_EXT_LOG_MAX`).
const RECORD_LENGTH_MAX: usize = 8 << 10;
/// More than the kernel's buffer holds.
const RECORDS_MAX: usize = 1 << 17;

/// The last process of a container that the kernel killed for want of memory; `None` where the log may not be read or
/// does not reach back so far. A container's cgroup is found by its id, which no other's path has in it.
pub(crate) fn oom_victim(id: &str) -> Option<OomVictim> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).ok()?;
    let mut log = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg").ok()?;
    last_victim(&mut log, id)
}

fn last_victim(log: &mut File, id: &str) -> Option<OomVictim> {
    let mut buffer = vec![0; RECORD_LENGTH_MAX];
    let mut found = None;
    // Each read is one record.
    for _ in 0..RECORDS_MAX {
        match log.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => found = parse(&String::from_utf8_lossy(&buffer[..count]), id).or(found),
            // EPIPE: records were overwritten meanwhile, and reading goes on after them.
            Err(error)
                if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::Interrupted) => {}
            Err(_no_more) => break,
        }
    }
    found
}

fn parse(record: &str, id: &str) -> Option<OomVictim> {
    let (prefix, message) = record.split_once(';')?;
    // Facility 0 is the kernel; others are programs that wrote to the log.
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    let details = message.lines().next()?.strip_prefix("oom-kill:").filter(|_| priority < 8)?;
    let (_, rest) = details.split_once(",task_memcg=")?;
    let (cgroup, rest) = rest.split_once(",task=")?;
    if !cgroup.contains(id) {
        return None;
    }
    // The name may have commas in it, what follows may not.
    let (rest, _uid) = rest.rsplit_once(",uid=")?;
    let (name, pid) = rest.rsplit_once(",pid=")?;
    Some(OomVictim { name: name.to_owned(), pid: pid.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_victim_is_read_from_the_kernel_s_record_of_its_cgroup_alone() {
        let record = |facility: u32, name: &str| {
            format!(
                "{},1234,30210347473,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=abc,mems_allowed=0,\
                 oom_memcg=/p/abc,task_memcg=/p/abc/sub,task={name},pid=21545,uid=0\n SUBSYSTEM=x\n",
                facility * 8 + 6
            )
        };
        let victim = |name: &str| Some(OomVictim { name: name.to_owned(), pid: 21545 });
        assert_eq!(parse(&record(0, "sh"), "abc"), victim("sh"));
        assert_eq!(parse(&record(0, "a,pid=1,uid=0"), "abc"), victim("a,pid=1,uid=0"));
        assert_eq!(parse(&record(1, "sh"), "abc"), None);
        assert_eq!(parse(&record(0, "sh"), "other"), None);
        assert_eq!(parse("6,1,2,-;something else", "abc"), None);
        assert_eq!(parse("garbage", ""), None);
    }
}
