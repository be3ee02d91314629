//! Progress of pull, push and load: bars on a terminal, lines elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal as _;

use anyhow::Result;
use brig_engine_api::client::{Error, JsonStream};
use brig_engine_api::progress::ProgressMessage;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How progress is to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// Bars or lines, whatever the output is.
    Progress,
    /// Nothing but failures.
    Nothing,
}

/// Shows a stream of progress until it ends; a failure reported in it is the error returned.
pub(crate) async fn follow(
    mut stream: JsonStream<ProgressMessage>,
    show: Show,
) -> Result<Vec<ProgressMessage>> {
    let mut view = match show {
        Show::Nothing => View::Nothing,
        Show::Progress if std::io::stdout().is_terminal() => View::Bars(Bars::default()),
        Show::Progress => View::Lines(HashMap::new()),
    };
    let mut rest = Vec::new();
    while let Some(message) = stream.next().await {
        let message = message?;
        if let Some(error) = message.error {
            view.finish();
            return Err(Error::reported(error).into());
        }
        view.update(&message);
        // What is about one part of the transfer has an id, and is of no use afterwards.
        if message.aux.is_some() || message.stream.is_some() || message.id.is_none() {
            rest.push(message);
        }
    }
    view.finish();
    Ok(rest)
}

enum View {
    Nothing,
    Bars(Bars),
    /// The last status of each blob, so that a line is printed only when it changes.
    Lines(HashMap<String, String>),
}

impl View {
    fn update(&mut self, message: &ProgressMessage) {
        match self {
            Self::Nothing => {}
            Self::Bars(bars) => bars.update(message),
            Self::Lines(last) => print_line(last, message),
        }
    }

    fn finish(&self) {
        if let Self::Bars(bars) = self {
            for bar in bars.bars.values() {
                bar.abandon();
            }
        }
    }
}

fn print_line(last: &mut HashMap<String, String>, message: &ProgressMessage) {
    if let Some(stream) = &message.stream {
        print!("{stream}");
    }
    let Some(status) = &message.status else { return };
    match &message.id {
        None => println!("{status}"),
        Some(id) => {
            if last.insert(id.clone(), status.clone()).as_ref() != Some(status) {
                println!("{id}: {status}");
            }
        }
    }
}

/// One bar for each blob, below what was printed before.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    bars: HashMap<String, ProgressBar>,
}

impl Bars {
    fn update(&mut self, message: &ProgressMessage) {
        if let Some(stream) = &message.stream {
            let _ = self.all.println(stream.trim_end());
        }
        let Some(status) = &message.status else { return };
        let Some(id) = &message.id else {
            let _ = self.all.println(status);
            return;
        };
        let bar =
            self.bars.entry(id.clone()).or_insert_with(|| self.all.add(ProgressBar::no_length()));
        let detail = message.detail.unwrap_or_default();
        match detail.total.filter(|total| *total > 0) {
            Some(total) => {
                bar.set_style(style(
                    "{prefix}: {msg:<12} [{bar:30}] {bytes:>10}/{total_bytes:<10} {bytes_per_sec}",
                ));
                bar.set_length(total);
                bar.set_position(detail.current.unwrap_or_default());
            }
            None => bar.set_style(style("{prefix}: {msg}")),
        }
        bar.set_prefix(id.clone());
        bar.set_message(status.clone());
        bar.tick();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
