//! A profile resolved to numbers: for every architecture, which verdict each system call gets.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::table::TABLE;
use crate::error::{Error, ErrorKind, Result};
use crate::protection::{Protection, on};

/// `MAX_ERRNO`: the kernel caps what a filter returns.
const ERRNO_LIMIT: u32 = 4095;
/// The bit that marks x32 calls (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;
/// Where arm's private calls begin; they are not "newer" than anything.
pub(super) const ARM_PRIVATE: u32 = 0x000f_0000;

const RET_KILL_THREAD: u32 = 0;
pub(super) const RET_KILL_PROCESS: u32 = 0x8000_0000;
pub(super) const RET_TRAP: u32 = 0x0003_0000;
pub(super) const RET_ERRNO: u32 = 0x0005_0000;
const RET_NOTIFY: u32 = 0x7fc0_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
pub(super) const RET_ALLOW: u32 = 0x7fff_0000;

/// An instruction set that can run on the machine; the order is that of the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Architecture {
    X86_64,
    I386,
    X32,
    Aarch64,
    Arm,
}

impl Architecture {
    /// What this program was built for.
    pub(super) fn native() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "x86" => Some(Self::I386),
            "aarch64" => Some(Self::Aarch64),
            "arm" => Some(Self::Arm),
            _ => None,
        }
    }

    /// `AUDIT_ARCH_*`, as seccomp reports it. x32 is x86-64 with a bit in the number.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Architectures whose code this kernel cannot run need no rules.
    fn parse(arch: Arch, native: Self) -> Option<Self> {
        match arch {
            Arch::ScmpArchNative => Some(native),
            Arch::ScmpArchX86 => Some(Self::I386),
            Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX32 => Some(Self::X32),
            Arch::ScmpArchAarch64 => Some(Self::Aarch64),
            Arch::ScmpArchArm => Some(Self::Arm),
            _ => None,
        }
    }

    fn column(self) -> usize {
        match self {
            Self::X86_64 => 0,
            Self::I386 => 1,
            Self::X32 => 2,
            Self::Aarch64 => 3,
            Self::Arm => 4,
        }
    }

    /// The number that seccomp sees for a row of the table.
    fn number(self, numbers: &[i32]) -> Option<u32> {
        let number = u32::try_from(*numbers.get(self.column())?).ok()?;
        Some(if self == Self::X32 { number | X32_BIT } else { number })
    }
}

/// What happens to one system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Always the same.
    Always(u32),
    /// The first rule whose conditions hold; the default action otherwise.
    Conditional(Vec<(SeccompRule, u32)>),
}

/// All verdicts.
#[derive(Debug)]
pub(super) struct Ruleset {
    default: u32,
    architectures: BTreeMap<Architecture, Calls>,
    notifies: bool,
    unknown_names: Vec<String>,
}

/// The verdicts of one architecture.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) verdicts: BTreeMap<u32, Verdict>,
    /// The highest number that the profile names.
    pub(super) highest: Option<u32>,
}

impl Ruleset {
    pub(super) fn parse(profile: &LinuxSeccomp, native: Architecture) -> Result<Self> {
        let default_action = profile.default_action();
        if default_action == LinuxSeccompAction::ScmpActNotify {
            return Err(invalid("SCMP_ACT_NOTIFY cannot be the default action"));
        }
        // Outside the action's own errnoRet, EPERM (1) is what runc returns.
        let default = return_value(default_action, profile.default_errno_ret(), "the default")?;
        let listed = profile.architectures().iter().flatten();
        let architectures: BTreeSet<Architecture> =
            listed.filter_map(|arch| Architecture::parse(*arch, native)).chain([native]).collect();
        let mut rules = Self {
            default,
            architectures: architectures.into_iter().map(|arch| (arch, Calls::default())).collect(),
            notifies: false,
            unknown_names: Vec::new(),
        };
        for syscall in profile.syscalls().iter().flatten() {
            rules.add(syscall)?;
        }
        Ok(rules)
    }

    /// The verdict on calls without a rule.
    pub(super) fn default(&self) -> u32 {
        self.default
    }

    /// The verdict on numbers above the highest named one: a permissive default stays, a denying one would make programs
    /// believe that a call of a newer kernel is forbidden.
    pub(super) fn beyond(&self) -> u32 {
        match self.default {
            RET_ALLOW | RET_LOG => self.default,
            _ => RET_ERRNO | libc::ENOSYS.unsigned_abs(),
        }
    }

    pub(super) fn architectures(&self) -> impl Iterator<Item = (Architecture, &Calls)> {
        self.architectures.iter().map(|(architecture, calls)| (*architecture, calls))
    }

    /// Whether some rule hands calls to a supervisor.
    pub(super) fn notifies(&self) -> bool {
        self.notifies
    }

    pub(super) fn into_unknown_names(self) -> Vec<String> {
        self.unknown_names
    }

    fn add(&mut self, syscall: &LinuxSyscall) -> Result<()> {
        let what = || syscall.names().first().map_or("a rule", String::as_str).to_owned();
        let value = return_value(syscall.action(), syscall.errno_ret(), &what())?;
        let args = syscall.args().as_deref().unwrap_or_default();
        if let Some(arg) = args.iter().find(|arg| arg.index() > 5) {
            return Err(invalid(&format!("{}: argument {} (0 to 5 exist)", what(), arg.index())));
        }
        let notifies = syscall.action() == LinuxSeccompAction::ScmpActNotify;
        if notifies && syscall.names().iter().any(|name| name == "write") {
            // The filter is on before its listener has been sent: the write that sends it would wait for itself.
            return Err(invalid("SCMP_ACT_NOTIFY cannot be used for write"));
        }
        self.notifies |= notifies;
        for name in syscall.names() {
            let Ok(row) = TABLE.binary_search_by(|(known, _)| (*known).cmp(name)) else {
                self.unknown_names.push(name.clone());
                continue;
            };
            let conditions = conditions(name, args)?;
            for (architecture, calls) in &mut self.architectures {
                if let Some(number) = architecture.number(&TABLE[row].1) {
                    calls.add(number, &conditions, value, self.default);
                }
            }
        }
        Ok(())
    }
}

impl Calls {
    fn add(&mut self, number: u32, conditions: &[SeccompRule], value: u32, default: u32) {
        if number & !X32_BIT < ARM_PRIVATE {
            self.highest = self.highest.max(Some(number));
        }
        if value == default {
            return;
        }
        if conditions.is_empty() {
            match self.verdicts.get(&number) {
                Some(Verdict::Always(_)) => {}
                _ => drop(self.verdicts.insert(number, Verdict::Always(value))),
            }
            return;
        }
        let verdict =
            self.verdicts.entry(number).or_insert_with(|| Verdict::Conditional(Vec::new()));
        if let Verdict::Conditional(rules) = verdict {
            rules.extend(conditions.iter().map(|rule| (rule.clone(), value)));
        }
    }
}

/// The alternatives under which a rule holds; none means always.
fn conditions(name: &str, args: &[LinuxSeccompArg]) -> Result<Vec<SeccompRule>> {
    if args.is_empty() {
        return Ok(Vec::new());
    }
    let parsed =
        args.iter().map(|arg| condition(name, arg)).collect::<Result<Vec<SeccompCondition>>>()?;
    let distinct: BTreeSet<usize> = args.iter().map(LinuxSeccompArg::index).collect();
    let groups = if distinct.len() == args.len() {
        vec![parsed]
    } else {
        parsed.into_iter().map(|condition| vec![condition]).collect()
    };
    groups
        .into_iter()
        .map(|group| {
            SeccompRule::new(group)
                .map_err(|error| invalid(&format!("the conditions of {name}")).with_source(error))
        })
        .collect()
}

fn condition(name: &str, arg: &LinuxSeccompArg) -> Result<SeccompCondition> {
    let failed = |error| invalid(&format!("a condition of {name}")).with_source(error);
    let index = u8::try_from(arg.index()).map_err(failed)?;
    let (operator, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (SeccompCmpOp::Ne, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (SeccompCmpOp::Lt, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (SeccompCmpOp::Le, arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (SeccompCmpOp::Eq, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (SeccompCmpOp::Ge, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (SeccompCmpOp::Gt, arg.value()),
        // The mask comes first: (argument & value) == valueTwo.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (SeccompCmpOp::MaskedEq(arg.value()), arg.value_two().unwrap_or(0))
        }
    };
    let short = takes_32_bits(name, arg.index())
        && u32::try_from(arg.value()).is_ok()
        && u32::try_from(value).is_ok();
    let length = if short { SeccompCmpArgLen::Dword } else { SeccompCmpArgLen::Qword };
    SeccompCondition::new(index, length, operator, value)
        .map_err(|error| invalid(&format!("a condition of {name}")).with_source(error))
}

/// Arguments that the kernel declares as `int` or `unsigned int` (its `SYSCALL_DEFINE`s), of calls that profiles filter
/// by argument. A call that is missing here is compared whole, as libseccomp does.
pub(super) fn takes_32_bits(name: &str, index: usize) -> bool {
    if !on(Protection::LowWord) {
        return false;
    }
    let indices: &[usize] = match name {
        "socket" | "socketpair" | "setsockopt" | "getsockopt" => &[0, 1, 2],
        "ioctl" | "fcntl" | "fcntl64" | "setns" | "seccomp" | "shutdown" => &[0, 1],
        "personality" | "prctl" | "keyctl" | "bpf" | "socketcall" | "quotactl" | "syslog" => &[0],
        "open" | "futex" | "kill" | "tkill" => &[1],
        "openat" | "madvise" | "tgkill" => &[2],
        _ => &[],
    };
    indices.contains(&index)
}

fn return_value(action: LinuxSeccompAction, errno: Option<u32>, what: &str) -> Result<u32> {
    let with_errno = |base: u32| match errno.unwrap_or(libc::EPERM.unsigned_abs()) {
        errno if errno > ERRNO_LIMIT => {
            Err(invalid(&format!("errnoRet {errno} of {what}: above {ERRNO_LIMIT}")))
        }
        errno => Ok(base | errno),
    };
    let plain = match action {
        LinuxSeccompAction::ScmpActErrno => return with_errno(RET_ERRNO),
        LinuxSeccompAction::ScmpActTrace => return with_errno(RET_TRACE),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => RET_KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => RET_TRAP,
        LinuxSeccompAction::ScmpActNotify => RET_NOTIFY,
        LinuxSeccompAction::ScmpActLog => RET_LOG,
        LinuxSeccompAction::ScmpActAllow => RET_ALLOW,
    };
    match errno {
        // The specification: "When the action doesn't support an errno, the runtime MUST print an error and fail."
        Some(errno) => Err(invalid(&format!("errnoRet {errno} of {what}: its action takes none"))),
        None => Ok(plain),
    }
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("compile linux.seccomp: {what}"))
}
