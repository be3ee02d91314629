//! Turns verdicts into instructions: a dispatch on the architecture, then a binary search over ranges of numbers.

use std::collections::BTreeMap;

use brig_linux::seccomp::Instruction;
use seccompiler::{BpfProgram, SeccompRule};

use super::rules::{ARM_PRIVATE, Architecture, Calls, RET_KILL_PROCESS, Ruleset, Verdict, X32_BIT};
use crate::error::{Error, ErrorKind, Result};

/// `BPF_LD | BPF_W | BPF_ABS`: a word of `struct seccomp_data`.
pub(super) const LOAD: u16 = 0x20;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// The number that a tracer sets to skip a call; no filter may take it for an x32 call.
const SKIPPED_CALL: u32 = u32::MAX;

pub(super) fn assemble(rules: &Ruleset) -> Result<Vec<Instruction>> {
    let mut code = vec![instruction(LOAD, ARCHITECTURE)];
    for (audit, ranges) in ranges(rules) {
        let mut block = vec![instruction(LOAD, NUMBER)];
        block.extend(search(&ranges, rules.default())?);
        code.push(branch(JUMP_EQUAL, audit, 1, 0));
        code.push(instruction(JUMP, distance(block.len())?));
        code.extend(block);
    }
    code.push(instruction(RETURN, RET_KILL_PROCESS));
    Ok(code)
}

/// Numbers from `start` to the next range's start.
#[derive(Debug, PartialEq)]
struct Range {
    start: u32,
    verdict: Verdict,
}

/// The verdicts by `AUDIT_ARCH_*`, covering every number.
fn ranges(rules: &Ruleset) -> Vec<(u32, Vec<Range>)> {
    let calls: BTreeMap<Architecture, &Calls> = rules.architectures().collect();
    let mut found = Vec::new();
    for (architecture, own) in &calls {
        // x32 is handled with x86-64, which is always there where x32 can run.
        if *architecture == Architecture::X32 {
            continue;
        }
        let mut builder = Builder { ranges: Vec::new() };
        let end = match architecture {
            Architecture::X86_64 => X32_BIT,
            Architecture::Arm => ARM_PRIVATE,
            _ => u32::MAX,
        };
        builder.add_calls(own, 0, end, rules);
        match architecture {
            Architecture::X86_64 => {
                match calls.get(&Architecture::X32) {
                    Some(x32) => builder.add_calls(x32, X32_BIT, SKIPPED_CALL, rules),
                    None => builder.push(X32_BIT, Verdict::Always(RET_KILL_PROCESS)),
                }
                builder.push(SKIPPED_CALL, Verdict::Always(rules.default()));
            }
            Architecture::Arm => {
                builder.push(ARM_PRIVATE, Verdict::Always(rules.default()));
                builder.add_numbers(own, ARM_PRIVATE, u32::MAX, rules);
            }
            _ => {}
        }
        found.push((architecture.audit(), builder.ranges));
    }
    found
}

struct Builder {
    ranges: Vec<Range>,
}

impl Builder {
    /// The numbers of one table from `start` up to `end`: named ones, gaps, and what lies beyond.
    fn add_calls(&mut self, calls: &Calls, start: u32, end: u32, rules: &Ruleset) {
        match calls.highest {
            None => self.push(start, Verdict::Always(rules.beyond())),
            Some(highest) => {
                self.push(start, Verdict::Always(rules.default()));
                self.add_numbers(calls, start, end, rules);
                self.push(highest + 1, Verdict::Always(rules.beyond()));
            }
        }
    }

    fn add_numbers(&mut self, calls: &Calls, start: u32, end: u32, rules: &Ruleset) {
        for (number, verdict) in calls.verdicts.range(start..end) {
            self.push(*number, verdict.clone());
            self.push(number + 1, Verdict::Always(rules.default()));
        }
    }

    /// Starts a range; an empty one before it vanishes, and one with the same verdict goes on.
    fn push(&mut self, start: u32, verdict: Verdict) {
        if self.ranges.last().is_some_and(|last| last.start == start) {
            self.ranges.pop();
        }
        if self
            .ranges
            .last()
            .is_some_and(|last| last.verdict == verdict && matches!(verdict, Verdict::Always(_)))
        {
            return;
        }
        self.ranges.push(Range { start, verdict });
    }
}

/// A balanced decision tree over the ranges; the number is in the accumulator.
fn search(ranges: &[Range], default: u32) -> Result<Vec<Instruction>> {
    if let [range] = ranges {
        return Ok(leaf(&range.verdict, default));
    }
    let (below, above) = ranges.split_at(ranges.len() / 2);
    let Some(pivot) = above.first().map(|range| range.start) else {
        return Ok(vec![instruction(RETURN, default)]);
    };
    let below = search(below, default)?;
    let above = search(above, default)?;
    let mut code = Vec::with_capacity(below.len() + above.len() + 2);
    match u8::try_from(below.len()) {
        Ok(short) => code.push(branch(JUMP_GREATER_OR_EQUAL, pivot, short, 0)),
        // A conditional jump reaches 255 instructions; an unconditional one everything.
        Err(_) => {
            code.push(branch(JUMP_GREATER_OR_EQUAL, pivot, 0, 1));
            code.push(instruction(JUMP, distance(below.len())?));
        }
    }
    code.extend(below);
    code.extend(above);
    Ok(code)
}

fn leaf(verdict: &Verdict, default: u32) -> Vec<Instruction> {
    match verdict {
        Verdict::Always(value) => vec![instruction(RETURN, *value)],
        Verdict::Conditional(rules) => {
            let mut code: Vec<Instruction> = rules
                .iter()
                .flat_map(|(rule, value)| {
                    conditions(rule).chain([instruction(RETURN, *value)]).collect::<Vec<_>>()
                })
                .collect();
            code.push(instruction(RETURN, default));
            code
        }
    }
}

/// seccompiler's code for the conditions: it falls through when they hold and jumps over one instruction when not. Its
/// first two jumps, which enter and leave a chain of rules, have no use here.
fn conditions(rule: &SeccompRule) -> impl Iterator<Item = Instruction> {
    let program: BpfProgram = rule.clone().into();
    program.into_iter().skip(2).map(|filter| Instruction {
        code: filter.code,
        jump_true: filter.jt,
        jump_false: filter.jf,
        constant: filter.k,
    })
}

fn instruction(code: u16, constant: u32) -> Instruction {
    branch(code, constant, 0, 0)
}

fn branch(code: u16, constant: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, constant }
}

fn distance(length: usize) -> Result<u32> {
    u32::try_from(length).map_err(|_| {
        Error::new(ErrorKind::Exhausted, "compile linux.seccomp: too many instructions")
    })
}
