//! Child processes with a time limit, and waiting for conditions.
//!
//! Nothing here waits without a bound: a hanging client or daemon fails the test with its output instead of blocking
//! the run.

use std::io::{BufRead as _, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Time limit of one client run. Cargo's worst case, four attempts of 30 s with pauses between them, fits in.
const RUN_TIMEOUT: Duration = Duration::from_secs(150);
/// Time limit of [`wait_until`].
const CONDITION_TIMEOUT: Duration = Duration::from_secs(20);

/// One finished run of a client.
#[derive(Debug)]
pub struct Run {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    /// From start to exit of the process.
    pub took: Duration,
    command: String,
}

impl Run {
    /// Fails the test unless the client exited with 0.
    #[track_caller]
    pub fn assert_success(&self) -> &Self {
        assert!(
            self.status.success(),
            "should have succeeded: {}",
            self.report()
        );
        self
    }

    /// Fails the test if the client exited with 0.
    #[track_caller]
    pub fn assert_failure(&self) -> &Self {
        assert!(
            !self.status.success(),
            "should have failed: {}",
            self.report()
        );
        self
    }

    /// Fails the test unless stderr contains `text`.
    #[track_caller]
    pub fn assert_says(&self, text: &str) -> &Self {
        assert!(
            self.stderr.contains(text),
            "should have said `{text}`: {}",
            self.report()
        );
        self
    }

    fn report(&self) -> String {
        format!(
            "{}\n{} after {:?}\n--- stdout\n{}--- stderr\n{}",
            self.command, self.status, self.took, self.stdout, self.stderr
        )
    }
}

/// Runs a client until it exits.
///
/// # Panics
/// If the client cannot be started or exceeds the time limit.
#[track_caller]
pub fn run(mut command: Command) -> Run {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let shown = format!("{command:?}");
    let start = Instant::now();
    let child = command.spawn().expect("the client can be started");
    let id = child.id();
    let (finished, wait) = mpsc::channel();
    std::thread::spawn(move || finished.send((child.wait_with_output(), start.elapsed())));
    let Ok((output, took)) = wait.recv_timeout(RUN_TIMEOUT) else {
        signal(id, "KILL");
        panic!("{shown}\nstill running after {RUN_TIMEOUT:?}");
    };
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("the client can be waited for");
    Run {
        status,
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        took,
        command: shown,
    }
}

/// Sends a signal, by its short name (`TERM`), to a child process.
#[track_caller]
pub fn signal(process: u32, name: &str) {
    // The shell's built-in `kill`, so that no package has to be installed for it.
    let sent = Command::new("/bin/sh")
        .args(["-c", &format!("kill -{name} {process}")])
        .status();
    assert!(
        sent.is_ok_and(|sent| sent.success()),
        "cannot send SIG{name} to process {process}"
    );
}

/// The address in the line that begins with `listening on `. Later lines are read and dropped, so that the pipe never
/// fills.
pub fn announced_url(
    stdout: impl Read + Send + 'static,
    timeout: Duration,
) -> Result<String, String> {
    let (address_sender, address_receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(address) = line.strip_prefix("listening on ") {
                // The receiver is gone after the first address.
                let _ = address_sender.send(address.trim().to_owned());
            }
        }
    });
    address_receiver
        .recv_timeout(timeout)
        .map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("no `listening on ` within {timeout:?}"),
            RecvTimeoutError::Disconnected => "ended without `listening on `".to_owned(),
        })
}

/// A loopback address with a free port. If another process takes the port first, the server that was meant to listen
/// fails.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("there is a free port")
}

/// Polls until `is_true` returns true; fails the test after 20 s.
#[track_caller]
pub fn wait_until(what: &str, is_true: impl FnMut() -> bool) {
    wait_until_within(CONDITION_TIMEOUT, what, is_true);
}

/// [`wait_until`] with a time limit of its own.
#[track_caller]
pub fn wait_until_within(timeout: Duration, what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + timeout;
    while !is_true() {
        assert!(Instant::now() < deadline, "still not true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
