//! Why a container ended: what is kept of it, and the one line that `brig ps` shows.
//!
//! ```text
//! shim: exit.json ──▶ Exit ──▶ DeathRecord ◀── signals that the driver sent
//!                                  │
//!              inspect (State.Death) and list (Death, one line)
//! ```

use brig_engine_api::types;
use brig_shim_protocol::{ExitRecord, LastLine, MemoryAtExit, Timestamp};
use serde::{Deserialize, Serialize};

use super::signal;
use super::state::Phase;
use crate::metadata::StateRecord;

/// Characters of text that is not ours in the one line.
const QUOTED_MAX: usize = 80;
/// Characters of the one line.
const REASON_MAX: usize = 200;

/// How a container ended last, in the on-disk format.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DeathRecord {
    pub(crate) exit_code: i32,
    /// The signal that ended it.
    pub(crate) signal: Option<u32>,
    /// Who of ours sent the signal that ended it, or that it ended after.
    pub(crate) sender: Option<SignalSender>,
    pub(crate) oom_killed: bool,
    /// It never ran, its shim died, or nobody saw its end.
    pub(crate) error: String,
    /// It never ran.
    pub(crate) start_failed: bool,
    pub(crate) account: Account,
}

/// What the shim knows of an end beyond its status.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Account {
    pub(crate) memory: Option<MemoryAtExit>,
    pub(crate) last_lines: Vec<LastLine>,
    pub(crate) phases: Vec<PhaseRecord>,
}

/// A phase of a container's life that ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PhaseRecord {
    /// What was reached: `created`, `started`, `exited`, `recorded`.
    pub(crate) name: String,
    /// When, RFC 3339.
    pub(crate) at: String,
    /// How long that took.
    pub(crate) seconds: f64,
}

/// Why the engine sent a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SignalSender {
    /// A call of `kill`.
    Kill,
    /// A stop's own signal.
    Stop,
    /// SIGKILL, since it did not end within a stop's grace period.
    StopTimeout,
    /// Its removal by force.
    Removal,
    /// Its start could not be written down.
    FailedStart,
    /// It was unhealthy, and its restart policy is for that.
    Health,
}

/// A signal that the engine sent to a container that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SentSignal {
    pub(crate) signal: u32,
    pub(crate) sender: SignalSender,
}

impl Account {
    /// What an exit record tells.
    pub(crate) fn of(record: &ExitRecord) -> Self {
        let phases = &record.phases;
        let exited = Some(record.exited_at);
        let steps = [
            ("created", phases.creating_at, phases.created_at),
            ("started", phases.starting_at, record.started_at),
            ("exited", record.started_at, exited.filter(|_| record.started_at.is_some())),
            ("recorded", exited, phases.recorded_at),
        ];
        let phase = |(name, from, to): (&str, Option<Timestamp>, Option<Timestamp>)| {
            let (from, to) = (from?, to?);
            let seconds = to.since(from).as_secs_f64();
            Some(PhaseRecord { name: name.into(), at: to.to_string(), seconds })
        };
        Self {
            memory: record.memory.clone(),
            last_lines: record.last_lines.clone(),
            phases: steps.into_iter().filter_map(phase).collect(),
        }
    }
}

impl DeathRecord {
    /// A start that failed.
    pub(crate) fn of_failed_start(exit_code: i32, report: &str) -> Self {
        let error = report.to_owned();
        Self { exit_code, error, start_failed: true, ..Self::default() }
    }

    /// Why it ended, in one line; `None` when it ended well by itself.
    pub(crate) fn reason(&self) -> Option<String> {
        if !self.error.is_empty() {
            let cause = self.error.rsplit_once("OCI runtime create failed: ");
            let cause = one_line(cause.map_or(&self.error, |(_, cause)| cause), REASON_MAX);
            return Some(if self.start_failed { format!("not started: {cause}") } else { cause });
        }
        if self.exit_code == 0 && self.sender != Some(SignalSender::Health) {
            return None;
        }
        if self.oom_killed {
            return Some(format!("out of memory{}", self.memory_words()));
        }
        self.signal_words().or_else(|| self.last_words())
    }

    /// ` (sh killed at 64MiB of 64MiB)`, as far as it is known.
    fn memory_words(&self) -> String {
        let Some(memory) = &self.account.memory else { return String::new() };
        let sizes = match (memory.peak_bytes, memory.limit_bytes) {
            (Some(peak), Some(limit)) => format!("{} of {}", size(peak), size(limit)),
            (None, Some(limit)) => format!("limit {}", size(limit)),
            (Some(peak), None) => size(peak),
            (None, None) => String::new(),
        };
        let words = match &memory.victim {
            Some(victim) if sizes.is_empty() => format!("{} killed", victim.name),
            Some(victim) => format!("{} killed at {sizes}", victim.name),
            None => sizes,
        };
        if words.is_empty() { words } else { format!(" ({})", one_line(&words, QUOTED_MAX)) }
    }

    fn signal_words(&self) -> Option<String> {
        // A first process that handles the signal ends with this code by itself.
        let handled =
            self.sender.and_then(|_| u32::try_from(self.exit_code).ok()?.checked_sub(128));
        let Some(number) = self.signal.or(handled) else {
            let unhealthy = self.sender == Some(SignalSender::Health);
            return unhealthy.then(|| "stopped by its health check".to_owned());
        };
        let name = signal::name(number);
        Some(match self.sender {
            Some(SignalSender::Stop) => format!("stopped by {name}"),
            Some(SignalSender::Kill) => format!("killed by hand with {name}"),
            Some(SignalSender::StopTimeout) => {
                format!("killed by {name}: it did not stop in time")
            }
            Some(SignalSender::Removal) => format!("killed by {name} to be removed"),
            Some(SignalSender::FailedStart) => {
                format!("killed by {name}: its start could not be written down")
            }
            Some(SignalSender::Health) => format!("killed by its health check with {name}"),
            None if FAULTS.contains(&number) => format!("crashed with {name}"),
            None => format!("killed by {name}, which the engine did not send"),
        })
    }

    /// The last line that says something, of standard error rather than of standard output.
    fn last_words(&self) -> Option<String> {
        let lines = || self.account.last_lines.iter().rev();
        let said = |line: &&LastLine| !line.text.trim().is_empty();
        let line = lines().filter(said).find(|line| line.stream == "stderr");
        let line = line.or_else(|| lines().find(said))?;
        Some(one_line(&line.text, QUOTED_MAX))
    }

    /// As the Engine API shows it.
    pub(crate) fn describe(&self) -> types::Death {
        types::Death {
            reason: self.reason().unwrap_or_default(),
            exit_code: self.exit_code.into(),
            signal: self.signal.map(signal::name),
            signal_sender: self.sender.map(|sender| sender.name().to_owned()).or_else(|| {
                let by_kernel = self.oom_killed && self.signal == Some(signal::KILL);
                by_kernel.then(|| "kernel: out of memory".to_owned())
            }),
            oom_killed: self.oom_killed,
            error: self.error.clone(),
            memory: self.account.memory.as_ref().map(|memory| types::DeathMemory {
                peak_bytes: memory.peak_bytes,
                limit_bytes: memory.limit_bytes,
                oom_kills: memory.oom_kills,
                victim: memory.victim.as_ref().map(|victim| victim.name.clone()),
                victim_pid: memory.victim.as_ref().map(|victim| victim.pid),
            }),
            last_lines: self.account.last_lines.iter().map(describe_line).collect(),
            phases: self.account.phases.iter().map(describe_phase).collect(),
        }
    }
}

fn describe_line(line: &LastLine) -> types::DeathLine {
    types::DeathLine { stream: line.stream.clone(), text: line.text.clone() }
}

fn describe_phase(phase: &PhaseRecord) -> types::DeathPhase {
    let (name, at) = (phase.name.clone(), phase.at.clone());
    types::DeathPhase { name, at, seconds: phase.seconds }
}

/// Signals by which the kernel tells a process of its own fault: ILL, TRAP, ABRT, BUS, FPE, SEGV, SYS.
const FAULTS: [u32; 7] = [4, 5, 6, 7, 8, 11, 31];

impl SignalSender {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "engine: kill",
            Self::Stop => "engine: stop",
            Self::StopTimeout => "engine: stop, after its grace period",
            Self::Removal => "engine: removal by force",
            Self::FailedStart => "engine: start that could not be written down",
            Self::Health => "engine: health check",
        }
    }
}

impl StateRecord {
    /// Notes how the container ended, with the signal that was sent for that.
    pub(crate) fn note_death(&mut self, mut death: DeathRecord) {
        if let Some(sent) = self.sent.take()
            && !death.start_failed
            // A program may end as it likes when it is told to: that its health was the reason is known.
            && (sent.sender == SignalSender::Health
                || death.signal == Some(sent.signal)
                || i64::from(death.exit_code) == 128 + i64::from(sent.signal))
        {
            death.sender = Some(sent.sender);
        }
        self.death = Some(death);
    }

    /// It ended because it was unhealthy.
    pub(crate) fn ended_for_health(&self) -> bool {
        self.death.as_ref().is_some_and(|death| death.sender == Some(SignalSender::Health))
    }

    /// Why it does not run, in one line.
    pub(crate) fn death_reason(&self) -> Option<String> {
        match self.phase {
            Phase::Running | Phase::Paused | Phase::Removing => None,
            _ => self.death.as_ref()?.reason(),
        }
    }
}

/// Text of others in one line of ours: nothing in it moves a terminal's cursor.
fn one_line(text: &str, characters_max: usize) -> String {
    let blank = |letter: char| if letter.is_control() { ' ' } else { letter };
    let text: String = text.chars().map(blank).collect();
    let text = text.trim();
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `64MiB`, `1.5GiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut tenths = bytes.saturating_mul(10);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    match tenths % 10 {
        0 => format!("{}{}", tenths / 10, UNITS[unit]),
        part => format!("{}.{part}{}", tenths / 10, UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use brig_shim_protocol::OomVictim;
    use brig_shim_protocol::attach::Stream;

    use super::*;

    fn line(stream: Stream, text: &str) -> LastLine {
        LastLine::new(stream, text.as_bytes())
    }

    #[test]
    fn the_reason_names_what_is_known() {
        let victim = Some(OomVictim { name: "sh".into(), pid: 7 });
        let memory = |peak_bytes, victim| {
            Some(MemoryAtExit { peak_bytes, limit_bytes: Some(64 << 20), oom_kills: 1, victim })
        };
        let oom = |memory| DeathRecord {
            exit_code: 137,
            signal: Some(9),
            oom_killed: true,
            account: Account { memory, ..Account::default() },
            ..DeathRecord::default()
        };
        assert_eq!(
            oom(memory(Some(64 << 20), victim)).reason().unwrap(),
            "out of memory (sh killed at 64MiB of 64MiB)"
        );
        assert_eq!(oom(memory(None, None)).reason().unwrap(), "out of memory (limit 64MiB)");
        assert_eq!(oom(None).reason().unwrap(), "out of memory");
        let by = |exit_code, signal, sender| {
            DeathRecord { exit_code, signal, sender, ..DeathRecord::default() }.reason()
        };
        assert_eq!(by(143, None, Some(SignalSender::Stop)).unwrap(), "stopped by SIGTERM");
        assert_eq!(by(0, None, Some(SignalSender::Stop)), None);
        let health = Some(SignalSender::Health);
        assert_eq!(by(137, Some(9), health).unwrap(), "killed by its health check with SIGKILL");
        assert_eq!(by(0, None, health).unwrap(), "stopped by its health check");
        assert_eq!(by(139, Some(11), None).unwrap(), "crashed with SIGSEGV");
        assert!(by(137, Some(9), None).unwrap().contains("did not send"));
        assert_eq!(by(3, None, None), None);
    }

    #[test]
    fn a_program_s_last_words_are_quoted_without_its_control_characters() {
        let words = |last_lines| {
            let account = Account { last_lines, ..Account::default() };
            DeathRecord { exit_code: 1, account, ..DeathRecord::default() }.reason()
        };
        let lines = vec![
            line(Stream::Stderr, "\u{1b}[31mpanic:\tno\u{7} config"),
            line(Stream::Stderr, "  "),
            line(Stream::Stdout, "bye"),
        ];
        assert_eq!(words(lines).unwrap(), "[31mpanic: no  config");
        assert_eq!(words(vec![line(Stream::Stdout, "bye")]).unwrap(), "bye");
        let long = words(vec![line(Stream::Stdout, &"é".repeat(500))]).unwrap();
        assert_eq!(long.chars().count(), QUOTED_MAX + 1);
    }

    #[test]
    fn a_signal_s_sender_is_known_only_for_the_end_that_it_caused() {
        let end = |sent, exit_code, signal| {
            let mut state = StateRecord { sent, ..StateRecord::default() };
            state.note_death(DeathRecord { exit_code, signal, ..DeathRecord::default() });
            assert_eq!(state.sent, None);
            state.death.unwrap().sender
        };
        let stop = Some(SentSignal { signal: 15, sender: SignalSender::Stop });
        assert_eq!(end(stop, 143, Some(15)), Some(SignalSender::Stop));
        assert_eq!(end(stop, 143, None), Some(SignalSender::Stop));
        assert_eq!(end(stop, 137, Some(9)), None);
        assert_eq!(end(stop, 1, None), None);
        let health = Some(SentSignal { signal: 15, sender: SignalSender::Health });
        assert_eq!(end(health, 0, None), Some(SignalSender::Health));
        assert_eq!(end(None, 143, Some(15)), None);
    }

    #[test]
    fn sizes_are_short() {
        let rows = [(0, "0B"), (1023, "1023B"), (64 << 20, "64MiB"), (1536 << 20, "1.5GiB")];
        for (bytes, words) in rows {
            assert_eq!(size(bytes), words);
        }
    }
}
