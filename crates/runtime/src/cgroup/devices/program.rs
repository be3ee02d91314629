//! Compiles device rules to an eBPF program for `BPF_CGROUP_DEVICE`.
//!
//! The context is `struct bpf_cgroup_dev_ctx`: the kind of device in the low half of the first word and the access asked
//! for in the high half, then major and minor. The program walks the rules from the last to the first with the access
//! that is still undecided in r3: a denying rule that matches and takes any of it denies, an allowing one strikes its bits
//! off, and nothing left allows. So each of read, write and mknod is decided by the last rule that speaks of it.

use brig_linux::bpf::Instruction;

use super::{Access, Kind, Rule};

/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_DEV_CHAR`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_CONSTANT: u8 = 0xb7;
const AND_CONSTANT: u8 = 0x57;
const SHIFT_RIGHT_CONSTANT: u8 = 0x77;
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

/// Compiles rules in the specification's order. Without a matching rule access is denied.
pub(super) fn compile(rules: &[Rule]) -> Vec<Instruction> {
    let mut code = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(MOVE, UNDECIDED, KIND, 0, 0),
        instruction(AND_CONSTANT, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT_CONSTANT, UNDECIDED, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        append(&mut code, rule);
    }
    // Asking for no access at all (a stat) is not the cgroup's business.
    code.extend([
        instruction(MOVE_CONSTANT, RESULT, 0, 0, 1),
        instruction(JUMP_EQUAL_CONSTANT, UNDECIDED, 0, 1, 0),
        instruction(MOVE_CONSTANT, RESULT, 0, 0, 0),
        instruction(EXIT, 0, 0, 0, 0),
    ]);
    code
}

fn append(code: &mut Vec<Instruction>, rule: &Rule) {
    let kind = rule.selector.kind.map(|kind| match kind {
        Kind::Block => BLOCK,
        Kind::Character => CHARACTER,
    });
    let constant = |value: Option<u32>| value.map(|value| i32::try_from(value).unwrap_or(i32::MAX));
    let conditions: Vec<(u8, i32)> = [
        (KIND, kind),
        (MAJOR, constant(rule.selector.major)),
        (MINOR, constant(rule.selector.minor)),
    ]
    .into_iter()
    .filter_map(|(register, value)| Some((register, value?)))
    .collect();
    let action = action(rule);
    let mut skip = conditions.len() + action.len();
    for (register, value) in conditions {
        skip -= 1;
        // At most three conditions and five instructions lie ahead.
        let distance = i16::try_from(skip).unwrap_or(0);
        code.push(instruction(JUMP_NOT_EQUAL_CONSTANT, register, 0, distance, value));
    }
    code.extend(action);
}

fn action(rule: &Rule) -> Vec<Instruction> {
    let bits = i32::from(rule.access.0);
    if rule.allow {
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
            JUMP_EQUAL_CONSTANT => jump = registers[destination] == constant,
            JUMP_NOT_EQUAL_CONSTANT => jump = registers[destination] != constant,
            EXIT => return registers[0] == 1,
            other => panic!("unknown operation {other:#x}"),
        }
        at += 1 + if jump { usize::try_from(offset).unwrap() } else { 0 };
    }
}
