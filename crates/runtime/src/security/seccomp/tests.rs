//! Verdicts are checked with an interpreter of classic BPF, against libseccomp's programs, and by the kernel.

use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::rules::{RET_ALLOW, RET_ERRNO, RET_KILL_PROCESS, X32_BIT};
use rustix::io::Errno;

use super::*;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ENOSYS: u32 = RET_ERRNO | 38;

/// Runs a program on a call, as the kernel would (`seccomp_data` of seccomp(2), little-endian).
fn verdict(program: &[Instruction], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap();
    let mut data = vec![number, arch, 0, 0];
    data.extend(args.iter().flat_map(|arg| [low(*arg), low(arg >> 32)]));
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

/// One rule of a random profile: name, action, and at most one condition on an argument.
#[derive(Debug, Clone)]
struct RandomRule {
    name: &'static str,
    errno: u32,
    condition: Option<(u8, u8, u64, u64)>,
}

const OPERATORS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];

fn random_rules() -> impl Strategy<Value = Vec<RandomRule>> {
    let value = prop_oneof![Just(0_u64), Just(1), Just(7), Just(1 << 32), Just(u64::MAX)];
    let condition = proptest::option::of((0_u8..6, 0_u8..7, value.clone(), value));
    let rule = (0..table::TABLE.len(), 2_u32..40, condition);
    proptest::collection::vec(rule, 1..200).prop_map(|rules| {
        let mut seen = std::collections::BTreeSet::new();
        rules
            .into_iter()
            // One rule for a call: the order among several is not libseccomp's to promise.
            .filter(|(row, ..)| seen.insert(*row))
            // libseccomp 2.5 forgets to load the number when only x86-64 has the first call.
            .filter(|(row, ..)| table::TABLE[*row].1[..3].iter().all(|number| *number >= 0))
            .map(|(row, errno, condition)| {
                // Under a mask only the masked bits of the value count; libseccomp insists on it.
                let condition = condition.map(|(index, operator, value, two)| {
                    (index, operator, value, if operator == 6 { two & value } else { two })
                });
                RandomRule { name: table::TABLE[row].0, errno, condition }
            })
            .collect()
    })
}

fn random_profile(rules: &[RandomRule]) -> LinuxSeccomp {
    let syscalls: Vec<serde_json::Value> = rules
        .iter()
        .map(|rule| {
            let args: Vec<serde_json::Value> = rule
                .condition
                .iter()
                .map(|(index, operator, value, two)| {
                    serde_json::json!({"index": index, "value": value, "valueTwo": two,
                        "op": OPERATORS[usize::from(*operator)]})
                })
                .collect();
            serde_json::json!({"names": [rule.name], "action": "SCMP_ACT_ERRNO",
                "errnoRet": rule.errno, "args": args})
        })
        .collect();
    profile(serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": syscalls}))
}

/// Builds libseccomp's program for the rules with a small C program; `None` where there is no compiler or library.
fn build_oracle(directory: &Path) -> Option<PathBuf> {
    let source = directory.join("oracle.c");
    std::fs::write(&source, include_str!("oracle.c")).unwrap();
    let program = directory.join("oracle");
    let built = Command::new("cc")
        .arg("-o")
        .args([&program, &source])
        .arg("-lseccomp")
        .stderr(Stdio::null())
        .status();
    built.is_ok_and(|status| status.success()).then_some(program)
}

/// The program, and the names that libseccomp refuses a rule for (an architecture lacks them).
fn ask_oracle(oracle: &Path, rules: &[RandomRule]) -> (Vec<Instruction>, String) {
    let mut child =
        Command::new(oracle).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    for rule in rules {
        let (index, operator, value, two) =
            rule.condition.map_or((-1, 0, 0, 0), |(i, o, v, t)| (i32::from(i), o + 1, v, t));
        text += &format!("{} {} {index} {operator} {value} {two}\n", rule.name, rule.errno);
    }
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let program = output
        .stdout
        .chunks_exact(8)
        .map(|bytes| Instruction {
            code: u16::from_le_bytes([bytes[0], bytes[1]]),
            jump_true: bytes[2],
            jump_false: bytes[3],
            constant: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
        .collect();
    (program, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn random_profiles_get_the_verdicts_of_libseccomp() {
    let directory = tempfile::tempdir().unwrap();
    let Some(oracle) = build_oracle(directory.path()) else {
        eprintln!(
            "SKIPPED random_profiles_get_the_verdicts_of_libseccomp: needs cc and libseccomp"
        );
        return;
    };
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    runner
        .run(&random_rules(), |rules| {
            let ours = compile_for(&random_profile(&rules), Architecture::X86_64).unwrap();
            let (theirs, refused) = ask_oracle(&oracle, &rules);
            for (arch, column, bit) in [(X86_64, 0, 0), (I386, 1, 0), (X86_64, 2, X32_BIT)] {
                for (name, row) in table::TABLE {
                    let Ok(number) = u32::try_from(row[column]) else { continue };
                    for value in [0, 1, 7, 9, 0xffff_ffff, 1 << 32, (1 << 32) | 7, u64::MAX] {
                        // To libseccomp, i386 and x32 have no high words.
                        let value = if column == 0 { value } else { value & 0xffff_ffff };
                        let args = [value; 6];
                        if refused.lines().any(|line| line == *name)
                            || known_difference(&rules, column, name, value)
                        {
                            continue;
                        }
                        let got = verdict(ours.instructions(), arch, number | bit, args);
                        let expected = verdict(&theirs, arch, number | bit, args);
                        prop_assert_eq!(got, expected, "{} {:#x} {:#x}", name, arch, value);
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}

/// Where we differ on purpose (32-bit arguments with high bits), or where libseccomp 2.5 does not know the call, expands it
/// to the multiplexers of i386, or compares wrongly: its inequalities go astray when a high word is set (fixed in 2.6), and
/// on i386 and x32 it drops the high word of what an argument is compared with. `every_operator_compares_64_bits` has those.
fn known_difference(rules: &[RandomRule], column: usize, name: &str, value: u64) -> bool {
    const MULTIPLEXED: [&str; 2] = ["socketcall", "ipc"];
    let high = |value: u64| value > u64::from(u32::MAX);
    let newest = table::TABLE
        .binary_search_by(|(known, _)| (*known).cmp(name))
        .is_ok_and(|row| table::TABLE[row].1.iter().any(|number| (450..1000).contains(number)));
    let condition = rules.iter().find(|rule| rule.name == name).and_then(|rule| rule.condition);
    let compared = condition.is_some_and(|(index, operator, datum, two)| {
        let exact = [3, 6].contains(&operator);
        let unequal = !exact && (high(value) || high(datum));
        let short = high(value) && rules::takes_32_bits(name, usize::from(index));
        unequal || short || column != 0 && (high(datum) || high(two))
    });
    newest || compared || MULTIPLEXED.contains(&name)
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
