//! Compiles device rules to an eBPF program for `BPF_CGROUP_DEVICE`.
//!
//! The context is `struct bpf_cgroup_dev_ctx`: the kind of device in the low half of the first word and the access asked
//! for in the high half, then major and minor. The program walks the rules from the last to the first with the access
//! that is still undecided in r3: a denying rule that matches and takes any of it denies, an allowing one strikes its bits
//! off, and nothing left allows. So each of read, write and mknod is decided by the last rule that speaks of it.

use brig_linux::bpf::Instruction;

use super::{Access, Kind, Rule, Selector};

/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_DEV_CHAR`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_CONSTANT: u8 = 0xb7;
const AND_CONSTANT: u8 = 0x57;
const SHIFT_RIGHT_CONSTANT: u8 = 0x77;
const JUMP: u8 = 0x05;
const JUMP_EQUAL_CONSTANT: u8 = 0x15;
const JUMP_NOT_EQUAL_CONSTANT: u8 = 0x55;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const UNDECIDED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// The most rules that share an action: jumps over their tests stay within 16 bits.
const RUN_LIMIT: usize = 1024;

/// Compiles rules in the specification's order. Without a matching rule access is denied.
///
/// The kernel verifies a program for longer than it takes to make a cgroup, and walks every branch of it: so neighbours
/// that decide alike share one action, and those of one kind and major the tests for these.
pub(super) fn compile(rules: &[Rule]) -> Vec<Instruction> {
    let mut code = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(MOVE, UNDECIDED, KIND, 0, 0),
        instruction(AND_CONSTANT, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT_CONSTANT, UNDECIDED, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    // Nothing before a rule for everything counts.
    let all = rules.iter().rposition(|rule| is_unconditional(rule) && rule.access == Access::ALL);
    let (default, rules) = match all {
        Some(at) => (rules[at].allow, &rules[at + 1..]),
        None => (false, rules),
    };
    for alike in rules.chunk_by(decides_alike).rev() {
        for run in alike.rchunks(RUN_LIMIT) {
            append(&mut code, run);
        }
    }
    code.push(instruction(MOVE_CONSTANT, RESULT, 0, 0, 1));
    if !default {
        // Asking for no access at all (a stat) is not the cgroup's business.
        code.extend([
            instruction(JUMP_EQUAL_CONSTANT, UNDECIDED, 0, 1, 0),
            instruction(MOVE_CONSTANT, RESULT, 0, 0, 0),
        ]);
    }
    code.push(instruction(EXIT, 0, 0, 0, 0));
    code
}

fn is_unconditional(rule: &Rule) -> bool {
    rule.selector == Selector { kind: None, major: None, minor: None }
}

/// Whether the order of two neighbours makes no difference.
fn decides_alike(left: &Rule, right: &Rule) -> bool {
    (left.allow, left.access) == (right.allow, right.access)
}

/// Appends the tests and the action of rules that decide alike.
fn append(code: &mut Vec<Instruction>, run: &[Rule]) {
    let Some(first) = run.first() else { return };
    let mut tests = Vec::new();
    if !run.iter().any(is_unconditional) {
        let mut selectors: Vec<Selector> = run.iter().map(|rule| rule.selector).collect();
        selectors.sort_unstable();
        for of_kind in selectors.chunk_by(|left, right| left.kind == right.kind) {
            let kind = of_kind[0].kind.map(|kind| match kind {
                Kind::Block => BLOCK,
                Kind::Character => CHARACTER,
            });
            let mut inner = Vec::new();
            for of_major in of_kind.chunk_by(|left, right| left.major == right.major) {
                let mut innermost = Vec::new();
                for selector in of_major {
                    guard(&mut innermost, MINOR, constant(selector.minor), vec![Test::Matches]);
                }
                guard(&mut inner, MAJOR, constant(of_major[0].major), innermost);
            }
            guard(&mut tests, KIND, kind, inner);
        }
        // No rule of the run matches: on to the next.
        tests.push(Test::Skip);
    }
    let action = action(first);
    let length = tests.len();
    for (at, test) in tests.into_iter().enumerate() {
        let left = length - at - 1;
        // Both at most a few times RUN_LIMIT.
        let distance = |count: usize| i16::try_from(count).unwrap_or(i16::MAX);
        code.push(match test {
            Test::Unless(register, value, skip) => {
                instruction(JUMP_NOT_EQUAL_CONSTANT, register, 0, distance(skip), value)
            }
            Test::Equals(register, value) => {
                instruction(JUMP_EQUAL_CONSTANT, register, 0, distance(left), value)
            }
            Test::Matches => instruction(JUMP, 0, 0, distance(left), 0),
            Test::Skip => instruction(JUMP, 0, 0, distance(action.len()), 0),
        });
    }
    code.extend(action);
}

/// A step to the action of a run or past it.
#[derive(Clone, Copy, Debug)]
enum Test {
    /// Passes over so many tests unless the register has the value.
    Unless(u8, i32, usize),
    /// A match if the register has the value.
    Equals(u8, i32),
    /// A match.
    Matches,
    /// No match.
    Skip,
}

/// Appends tests that only count where a register has a value, if one is asked for.
fn guard(tests: &mut Vec<Test>, register: u8, value: Option<i32>, inner: Vec<Test>) {
    match (value, inner.as_slice()) {
        (None, _) => tests.extend(inner),
        (Some(value), [Test::Matches]) => tests.push(Test::Equals(register, value)),
        (Some(value), _) => {
            tests.push(Test::Unless(register, value, inner.len()));
            tests.extend(inner);
        }
    }
}

/// Numbers of devices are below the largest constant, which [`super::parse`] sees to.
fn constant(value: Option<u32>) -> Option<i32> {
    value.map(|value| i32::try_from(value).unwrap_or(i32::MAX))
}

fn action(rule: &Rule) -> Vec<Instruction> {
    let bits = i32::from(rule.access.0);
    if rule.allow && rule.access == Access::ALL {
        vec![instruction(MOVE_CONSTANT, RESULT, 0, 0, 1), instruction(EXIT, 0, 0, 0, 0)]
    } else if rule.allow {
        let rest = i32::from(Access::ALL.0) & !bits;
        vec![
            instruction(AND_CONSTANT, UNDECIDED, 0, 0, rest),
            instruction(JUMP_NOT_EQUAL_CONSTANT, UNDECIDED, 0, 2, 0),
            instruction(MOVE_CONSTANT, RESULT, 0, 0, 1),
            instruction(EXIT, 0, 0, 0, 0),
        ]
    } else {
        vec![
            instruction(MOVE, SCRATCH, UNDECIDED, 0, 0),
            instruction(AND_CONSTANT, SCRATCH, 0, 0, bits),
            instruction(JUMP_EQUAL_CONSTANT, SCRATCH, 0, 2, 0),
            instruction(MOVE_CONSTANT, RESULT, 0, 0, 0),
            instruction(EXIT, 0, 0, 0, 0),
        ]
    }
}

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate }
}

/// Runs a program of the instructions that this module emits, for tests.
#[cfg(test)]
pub(super) fn run(code: &[Instruction], context: [u32; 3]) -> bool {
    let mut registers = [0_u64; 11];
    let mut at = 0;
    loop {
        let Instruction { code: operation, registers: pair, offset, immediate } = code[at];
        let destination = usize::from(pair & 15);
        let source = registers[usize::from(pair >> 4)];
        let constant = i64::from(immediate).cast_unsigned();
        let mut jump = false;
        match operation {
            LOAD_WORD => {
                let index = usize::try_from(offset / 4).unwrap();
                registers[destination] = u64::from(context[index]);
            }
            MOVE => registers[destination] = source,
            MOVE_CONSTANT => registers[destination] = constant,
            AND_CONSTANT => registers[destination] &= constant,
            SHIFT_RIGHT_CONSTANT => registers[destination] >>= constant,
            JUMP => jump = true,
            JUMP_EQUAL_CONSTANT => jump = registers[destination] == constant,
            JUMP_NOT_EQUAL_CONSTANT => jump = registers[destination] != constant,
            EXIT => return registers[0] == 1,
            other => panic!("unknown operation {other:#x}"),
        }
        at += 1 + if jump { usize::try_from(offset).unwrap() } else { 0 };
    }
}
