//! Verdicts are checked with an interpreter of classic BPF, and by the kernel.

use super::rules::{RET_ALLOW, RET_ERRNO, RET_KILL_PROCESS, X32_BIT};
use rustix::io::Errno;

use super::*;

pub(super) const X86_64: u32 = 0xc000_003e;
pub(super) const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ENOSYS: u32 = RET_ERRNO | 38;

/// Runs a program on a call, as the kernel would (`seccomp_data` of seccomp(2), little-endian).
pub(super) fn verdict(program: &[Instruction], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap();
    let mut data = [0; 16];
    (data[0], data[1]) = (number, arch);
    for (place, arg) in args.into_iter().enumerate() {
        (data[4 + 2 * place], data[5 + 2 * place]) = (low(arg), low(arg >> 32));
    }
    let (mut accumulator, mut at) = (0_u32, 0_usize);
    loop {
        let Instruction { code, jump_true, jump_false, constant } = program[at];
        at += 1;
        let jump = match code {
            0x20 => {
                accumulator = data[usize::try_from(constant / 4).unwrap()];
                continue;
            }
            0x54 => {
                accumulator &= constant;
                continue;
            }
            0x05 => {
                at += usize::try_from(constant).unwrap();
                continue;
            }
            0x06 => return constant,
            0x15 => accumulator == constant,
            0x25 => accumulator > constant,
            0x35 => accumulator >= constant,
            0x45 => accumulator & constant != 0,
            other => panic!("unknown instruction {other:#x}"),
        };
        at += usize::from(if jump { jump_true } else { jump_false });
    }
}

fn profile(json: serde_json::Value) -> LinuxSeccomp {
    serde_json::from_value(json).unwrap()
}

fn program(json: serde_json::Value) -> Program {
    compile_for(&profile(json), Architecture::X86_64).unwrap()
}

fn allow_list() -> serde_json::Value {
    serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": ["read", "write", "exit_group", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
        ]
    })
}

#[test]
fn listed_calls_get_their_verdict_on_every_architecture() {
    let program = program(allow_list());
    let cases = [
        ("read", X86_64, 0, RET_ALLOW),
        ("read on i386", I386, 3, RET_ALLOW),
        ("read on x32", X86_64, X32_BIT, RET_ALLOW),
        ("mount", X86_64, 165, RET_ERRNO | 1),
        ("mount on i386", I386, 21, RET_ERRNO | 1),
        ("clone3", X86_64, 435, ENOSYS),
        ("a call of a later kernel", X86_64, 436, ENOSYS),
        ("a call of a later kernel on x32", X86_64, X32_BIT | 600, ENOSYS),
        ("the number of a skipped call", X86_64, u32::MAX, RET_ERRNO | 1),
        ("another architecture", AARCH64, 63, RET_KILL_PROCESS),
    ];
    for (what, arch, number, expected) in cases {
        let got = verdict(program.instructions(), arch, number, [0; 6]);
        assert_eq!(got, expected, "{what}: {got:#x}");
    }
    assert_eq!(program.unknown_names(), ["no_such_call"]);
}

#[test]
fn unlisted_architectures_are_killed() {
    let mut json = allow_list();
    json["architectures"] = serde_json::json!([]);
    let program = program(json);
    assert_eq!(verdict(program.instructions(), I386, 3, [0; 6]), RET_KILL_PROCESS);
    assert_eq!(verdict(program.instructions(), X86_64, X32_BIT, [0; 6]), RET_KILL_PROCESS);
    assert_eq!(verdict(program.instructions(), X86_64, 0, [0; 6]), RET_ALLOW);
}

#[test]
fn conditions_look_at_the_argument() {
    let program = program(allow_list());
    let socket = |family| verdict(program.instructions(), X86_64, 41, [family, 0, 0, 0, 0, 0]);
    assert_eq!(socket(1), RET_ALLOW);
    assert_eq!(socket(40), RET_ERRNO | 1);
    // The kernel sees only the low word, so a high one must not change the verdict either way.
    assert_eq!(socket((1 << 32) | 40), RET_ERRNO | 1);
    assert_eq!(socket((1 << 32) | 1), RET_ALLOW);
    let clone = |flags| verdict(program.instructions(), X86_64, 56, [flags, 0, 0, 0, 0, 0]);
    assert_eq!(clone(0x11), RET_ALLOW);
    assert_eq!(clone(0x1000_0000), RET_ERRNO | 1);
}

#[test]
fn every_operator_compares_64_bits() {
    let values = [0, 1, 5, 0xffff_ffff, 1 << 32, (1 << 32) | 5, (7 << 32) | 1, u64::MAX];
    type Operator = (&'static str, fn(u64, u64) -> bool);
    let operators: [Operator; 7] = [
        ("SCMP_CMP_NE", |a, b| a != b),
        ("SCMP_CMP_LT", |a, b| a < b),
        ("SCMP_CMP_LE", |a, b| a <= b),
        ("SCMP_CMP_EQ", |a, b| a == b),
        ("SCMP_CMP_GE", |a, b| a >= b),
        ("SCMP_CMP_GT", |a, b| a > b),
        ("SCMP_CMP_MASKED_EQ", |a, b| a & b == 5),
    ];
    for (operator, holds) in operators {
        for value in values {
            let program = program(serde_json::json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mmap"], "action": "SCMP_ACT_TRAP", "args":
                    [{"index": 1, "value": value, "valueTwo": 5, "op": operator}]}]
            }));
            for argument in values {
                let masked_away = operator == "SCMP_CMP_MASKED_EQ" && 5 & value != 5;
                let expected =
                    if holds(argument, value) && !masked_away { 0x0003_0000 } else { RET_ALLOW };
                let got = verdict(program.instructions(), X86_64, 9, [0, argument, 0, 0, 0, 0]);
                // A mask without the bits compared cannot hold; seccompiler compares under the mask.
                if !masked_away {
                    assert_eq!(got, expected, "{argument:#x} {operator} {value:#x}");
                }
            }
        }
    }
}

#[test]
fn all_conditions_of_a_rule_must_hold_unless_they_share_an_argument() {
    let rule = |indices: [usize; 2]| {
        program(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["mmap"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": indices[0], "value": 1, "op": "SCMP_CMP_EQ"},
                {"index": indices[1], "value": 2, "op": "SCMP_CMP_EQ"}]}]
        }))
    };
    let both = rule([0, 1]);
    assert_eq!(verdict(both.instructions(), X86_64, 9, [1, 2, 0, 0, 0, 0]), RET_ALLOW);
    assert_eq!(verdict(both.instructions(), X86_64, 9, [1, 3, 0, 0, 0, 0]), RET_ERRNO | 1);
    let either = rule([0, 0]);
    assert_eq!(verdict(either.instructions(), X86_64, 9, [1, 0, 0, 0, 0, 0]), RET_ALLOW);
    assert_eq!(verdict(either.instructions(), X86_64, 9, [2, 0, 0, 0, 0, 0]), RET_ALLOW);
}

#[test]
fn a_permissive_default_stays_so_for_later_calls() {
    let program = program(serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_KILL_PROCESS"}]
    }));
    assert_eq!(verdict(program.instructions(), X86_64, 9999, [0; 6]), RET_ALLOW);
    assert_eq!(verdict(program.instructions(), X86_64, 165, [0; 6]), RET_KILL_PROCESS);
}

#[test]
fn flags_and_listener_follow_the_profile() {
    let notify = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock",
        "listenerMetadata": "x", "flags": ["SECCOMP_FILTER_FLAG_TSYNC"],
        "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}]
    });
    let program = program(notify);
    let expected = seccomp::FLAG_TSYNC | seccomp::FLAG_NEW_LISTENER | seccomp::FLAG_TSYNC_ESRCH;
    assert_eq!(program.flags, expected);
    assert_eq!(program.listener().unwrap().path(), Path::new("/run/agent.sock"));
    assert_eq!(program.listener().unwrap().metadata(), Some("x"));
}

#[test]
fn profiles_that_contradict_themselves_are_refused() {
    let rule = |extra: serde_json::Value| {
        let mut json = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW"});
        json.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json
    };
    let syscalls = |rule: serde_json::Value| serde_json::json!({"syscalls": [rule]});
    let cases = [
        rule(serde_json::json!({"defaultAction": "SCMP_ACT_NOTIFY"})),
        rule(syscalls(serde_json::json!({"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}))),
        rule(syscalls(serde_json::json!({"names": ["write"], "action": "SCMP_ACT_NOTIFY"}))),
        rule(syscalls(serde_json::json!(
            {"names": ["mount"], "action": "SCMP_ACT_KILL", "errnoRet": 1}
        ))),
        rule(syscalls(serde_json::json!(
            {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096}
        ))),
        rule(syscalls(serde_json::json!({"names": ["mount"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}))),
        rule(serde_json::json!({"flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]})),
    ];
    for json in cases {
        let error = compile_for(&profile(json.clone()), Architecture::X86_64).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{json}");
    }
}

#[test]
fn the_table_is_sorted_and_without_doubles() {
    assert!(table::TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
    for column in 0..table::COLUMNS {
        let mut numbers: Vec<i32> =
            table::TABLE.iter().map(|row| row.1[column]).filter(|number| *number >= 0).collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        // sync_file_range2 has two names on arm.
        let aliases = usize::from(column == 4);
        assert_eq!(numbers.len() + aliases, count, "column {column}");
    }
}

/// Installs a filter in a forked child and looks at what the kernel does.
#[test]
fn the_kernel_obeys_the_program() {
    let program = compile(&profile(serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77},
            {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 78,
             "args": [{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}]}
        ]
    })))
    .unwrap();
    // A thread is enough: a filter without TSYNC binds only its own thread, and ends with it.
    std::thread::spawn(move || {
        assert!(program.install().unwrap().is_none());
        let error = rustix::process::getpriority_process(None).unwrap_err();
        assert_eq!(error.raw_os_error(), 77);
        let socket = |family| {
            rustix::net::socket(family, rustix::net::SocketType::DGRAM, None)
                .map(drop)
                .map_err(Errno::raw_os_error)
        };
        assert_eq!(socket(rustix::net::AddressFamily::NETLINK), Err(78));
        assert_eq!(socket(rustix::net::AddressFamily::UNIX), Ok(()));
    })
    .join()
    .unwrap();
}

#[test]
fn a_notifying_filter_returns_its_listener() {
    let program = compile(&profile(serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock",
        "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}]
    })))
    .unwrap();
    let listener = std::thread::spawn(move || program.install().unwrap()).join().unwrap();
    assert!(listener.is_some());
}
