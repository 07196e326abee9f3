//! Progress of `warm`, `verify` and `import` on stderr: a bar on a terminal. Elsewhere `warm` writes a line every
//! [`LINE_INTERVAL`].

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use tokio::sync::watch;

use super::render::note;
use crate::{import::ImportProgress, verify::VerifyProgress, warm::WarmProgress};

/// Time between two lines where stderr is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows the progress of `warm` until the sender is dropped.
pub(super) async fn show(progress: watch::Receiver<WarmProgress>) {
    if io::stderr().is_terminal() {
        show_bar(progress).await;
    } else {
        show_lines(progress).await;
    }
}

/// Shows the progress of a command on a terminal until the sender is dropped.
pub(super) async fn show_bar<P>(mut progress: watch::Receiver<P>)
where
    P: Copy + Into<BarProgress>,
{
    let bar = new_bar();
    let began = Instant::now();
    while progress.changed().await.is_ok() {
        let now: BarProgress = (*progress.borrow_and_update()).into();
        bar.set_length(now.total as u64);
        bar.set_position(now.done as u64);
        bar.set_message(amount(now.bytes, began.elapsed()));
    }
    bar.finish_and_clear();
}

async fn show_lines(mut progress: watch::Receiver<WarmProgress>) {
    let began = Instant::now();
    let mut next_line = began + LINE_INTERVAL;
    while progress.changed().await.is_ok() {
        let now = *progress.borrow_and_update();
        if Instant::now() >= next_line {
            next_line += LINE_INTERVAL;
            let amount = amount(now.bytes, began.elapsed());
            note(&format!("{}/{}  {amount}", now.done, now.total));
        }
    }
}

/// The numbers that a bar shows.
pub(super) struct BarProgress {
    total: usize,
    done: usize,
    bytes: u64,
}

impl From<WarmProgress> for BarProgress {
    fn from(progress: WarmProgress) -> Self {
        let WarmProgress { total, done, bytes } = progress;
        Self { total, done, bytes }
    }
}

impl From<VerifyProgress> for BarProgress {
    fn from(progress: VerifyProgress) -> Self {
        let VerifyProgress { total, done, bytes } = progress;
        Self { total, done, bytes }
    }
}

impl From<ImportProgress> for BarProgress {
    fn from(progress: ImportProgress) -> Self {
        let ImportProgress { total, done, bytes } = progress;
        Self { total, done, bytes }
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Bytes so far, and the mean rate since the start.
fn amount(bytes: u64, elapsed: Duration) -> String {
    let rate = bytes as f64 / elapsed.as_secs_f64().max(0.001);
    format!("{}  {}/s", HumanBytes(bytes), HumanBytes(rate as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amount_has_total_and_mean_rate() {
        assert_eq!(
            amount(4 << 20, Duration::from_secs(2)),
            "4.00 MiB  2.00 MiB/s"
        );
        assert_eq!(amount(0, Duration::ZERO), "0 B  0 B/s");
    }
}
