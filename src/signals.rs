//! Signals: the orders to stop, and those that `larder run` passes on to its command.

use std::{io, task::Poll};

use rustix::process;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM and SIGHUP: the orders to stop of the user, the service manager and a closed terminal.
#[derive(Debug)]
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` if the caller ignores it, as `nohup` does.
    hang_up: Option<Signal>,
}

impl StopSignals {
    /// Installs the handlers. From here on the signals no longer end the process.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if is_ignored(process::Signal::HUP) {
                None
            } else {
                Some(signal(SignalKind::hangup())?)
            },
        })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = received(self.hang_up.as_mut()) => {}
        }
    }
}

/// Waits for a signal, for ever if there is none.
async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => {
            let _ = signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Signals for the program that this process runs on the user's behalf.
#[derive(Debug)]
pub(crate) struct ForwardedSignals(Vec<(process::Signal, Signal)>);

impl ForwardedSignals {
    /// Installs the handlers. From here on these signals no longer end the process. A signal that the caller ignores
    /// stays ignored: the program inherits that.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(crate) fn new() -> io::Result<Self> {
        use process::Signal;
        let signals = [
            Signal::INT,
            Signal::QUIT,
            Signal::TERM,
            Signal::HUP,
            Signal::USR1,
            Signal::USR2,
        ];
        let signals = signals.into_iter().filter(|one| !is_ignored(*one));
        let handlers = signals.map(|one| Ok((one, signal(SignalKind::from_raw(one.as_raw()))?)));
        Ok(Self(handlers.collect::<io::Result<_>>()?))
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> process::Signal {
        std::future::poll_fn(|context| {
            for (number, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*number);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Sends a signal to a process, unless the terminal has sent it there already: it signals all processes in the
    /// foreground at once.
    pub(crate) fn forward(&self, signal: process::Signal, to: Option<u32>) {
        let from_terminal =
            matches!(signal, process::Signal::INT | process::Signal::QUIT) && is_in_foreground();
        let to = to.and_then(|id| process::Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(to) = to
            && !from_terminal
            && let Err(error) = process::kill_process(to, signal)
        {
            tracing::debug!(%error, "cannot forward a signal");
        }
    }
}

/// Without a handler, SIGXFSZ ends the process when a file reaches the size limit. With one, the write fails and the
/// store treats it like a full disk.
pub(crate) fn ignore_file_size_signal() -> io::Result<()> {
    signal(SignalKind::from_raw(process::Signal::XFSZ.as_raw())).map(drop)
}

/// Returns whether a terminal sends its signals to this process.
fn is_in_foreground() -> bool {
    let terminal = std::fs::File::open("/dev/tty");
    let foreground = terminal.and_then(|terminal| Ok(rustix::termios::tcgetpgrp(&terminal)?));
    foreground.is_ok_and(|group| group == process::getpgrp())
}

/// Returns whether this process was started with a signal ignored. Only Linux says so without unsafe code.
fn is_ignored(signal: process::Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal.as_raw() - 1)) != 0)
}
