//! Measuring contestants in turn, and what the measurements come to.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::Format;

/// One contestant's measurements of one figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Series {
    /// Who.
    pub(crate) name: String,
    /// What was measured, in the report's unit, in the order of the rounds.
    pub(crate) values: Vec<f64>,
}

impl Series {
    /// An empty series.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), values: Vec::new() }
    }

    /// The value in the middle, or the mean of the two in the middle.
    pub(crate) fn median(&self) -> f64 {
        quantile(&self.values, 0.5)
    }
}

/// One figure of a benchmark: its contestants, the first of which the others are compared with.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    /// What was measured: `run --rm busybox true, bridge`.
    pub(crate) title: String,
    /// Unit of the values: `ms`, `KiB`.
    pub(crate) unit: &'static str,
    /// Contestants, ours first.
    pub(crate) series: Vec<Series>,
}

/// What a benchmark found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Figures in the order in which they were measured.
    pub(crate) figures: Vec<Figure>,
    /// Who was not measured, and why; anything else a reader must know.
    pub(crate) notes: Vec<String>,
}

impl Report {
    /// What a contestant gave, or a note on why it gave nothing.
    pub(crate) fn present<T>(&mut self, name: &str, outcome: Result<T>) -> Option<T> {
        let note = |error| self.notes.push(format!("{name} was not measured: {error:#}"));
        outcome.map_err(note).ok()
    }

    /// Prints all figures.
    pub(crate) fn print(&self, format: Format) {
        if format == Format::Json {
            println!("{}", serde_json::to_string_pretty(self).unwrap_or_default());
            return;
        }
        for figure in &self.figures {
            println!("\n{} ({})", figure.title, figure.unit);
            println!("{}", figure.table());
        }
        for note in &self.notes {
            println!("note: {note}");
        }
    }
}

impl Figure {
    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["", "n", "min", "quartile 1", "median", "quartile 3", "max", "ratio"]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let ours = self.series.first().map(Series::median);
        for series in &self.series {
            let mut row = vec![series.name.clone(), series.values.len().to_string()];
            row.extend(
                [0.0, 0.25, 0.5, 0.75, 1.0].map(|part| shown(quantile(&series.values, part))),
            );
            row.push(
                ours.map_or_else(String::new, |ours| format!("{:.2}", series.median() / ours)),
            );
            table.add_row(row);
        }
        table
    }
}

/// Enough digits to compare by, and no more.
fn shown(value: f64) -> String {
    if value.abs() < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") }
}

/// Linear interpolation between the nearest ranks; NaN without values.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let last = u32::try_from(last).unwrap_or(u32::MAX);
    let position = part * f64::from(last);
    let low = (0..last).take_while(|rank| f64::from(rank + 1) <= position).count();
    let fraction = position - position.floor();
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + (sorted[high] - sorted[low]) * fraction
}

/// A contestant: a name, and what it does once.
pub(crate) type Contestant<'a> = (String, Box<dyn FnMut() -> Result<f64> + 'a>);

/// Lets every contestant run once a round, after one round that is not counted, in turn and then in the opposite turn: what
/// one leaves behind in the kernel, such as a grace period of RCU that has begun, is not always the same one's gain.
pub(crate) fn interleave(
    rounds: usize,
    mut contestants: Vec<Contestant<'_>>,
) -> Result<Vec<Series>> {
    let mut all: Vec<Series> = contestants.iter().map(|(name, _)| Series::new(name)).collect();
    for round in 0..=rounds {
        let count = contestants.len();
        for turn in 0..count {
            let index = if round % 2 == 0 { turn } else { count - turn - 1 };
            let ((name, once), series) = (&mut contestants[index], &mut all[index]);
            let value = once().with_context(|| format!("{name}, round {round}"))?;
            if round > 0 {
                series.values.push(value);
            }
        }
        eprint!("\rround {round} of {rounds}");
    }
    eprintln!();
    Ok(all)
}

/// Runs a command to its end and says how long that took, in milliseconds.
pub(crate) fn milliseconds(command: &mut Command) -> Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let start = Instant::now();
    let output = command.spawn().and_then(std::process::Child::wait_with_output);
    let taken = start.elapsed();
    let output = output.with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(in_milliseconds(taken))
}

/// A duration as the tables show it.
pub(crate) fn in_milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Does something for each number, `at_once` side by side; the first failure is the answer.
pub(crate) fn side_by_side(
    numbers: std::ops::Range<usize>,
    at_once: usize,
    work: impl Fn(usize) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(numbers.start);
    let worker = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= numbers.end {
                return Ok(());
            }
            work(number)?;
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("a worker panicked"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_lie_between_the_ranks() {
        let values = [4.0, 1.0, 3.0, 2.0];
        let found = [0.0, 0.25, 0.5, 1.0].map(|part| quantile(&values, part));
        assert_eq!(found.map(|value| format!("{value:.2}")), ["1.00", "1.75", "2.50", "4.00"]);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
