//! The built larder as a user runs it: a process with a store, a listening address, a log and an end.
//!
//! Speaking to it is left to `http` (reached through [`Larder::http`]), judging its answers to the tests.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::http::{Http, Reply};

/// How long start and orderly end may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a larder and its one-shot commands keep things and fetch them from. Removed with the value.
#[derive(Debug)]
pub(crate) struct Site {
    program: PathBuf,
    folder: TempDir,
    store: PathBuf,
    index: String,
    variables: Vec<(String, String)>,
    /// What a shell does before it becomes the program.
    prelude: Option<String>,
}

impl Site {
    /// An empty store, filled from this index URL. The program is `env!("CARGO_BIN_EXE_larder")` of the caller.
    #[track_caller]
    pub(crate) fn new(program: &str, index: &str) -> Self {
        let folder = TempDir::new().expect("the temporary folder is writable");
        Self {
            program: program.into(),
            store: folder.path().join("store"),
            folder,
            index: index.to_owned(),
            variables: Vec::new(),
            prelude: None,
        }
    }

    /// Has all commands started by a shell that does this first: `umask 0`, `ulimit -f 100`.
    pub(crate) fn after(mut self, shell: &str) -> Self {
        self.prelude = Some(shell.to_owned());
        self
    }

    /// Sets one more variable for all commands; otherwise they see `HOME` and `XDG_*` in a temporary folder, and nothing.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps the store here.
    pub(crate) fn store_in(mut self, store: &Path) -> Self {
        store.clone_into(&mut self.store);
        self
    }

    /// The store's folder; made by larder.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// The address of upstream's index.
    pub(crate) fn index(&self) -> &str {
        &self.index
    }

    /// A one-shot command (`warm`, `check`, `status`) on this store and index, to its end.
    #[track_caller]
    pub(crate) fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Output {
        let (first, others) = arguments.split_first().expect("a command has a name");
        let output = self
            .program(first.as_ref(), &self.index)
            .args(others)
            .output();
        output.expect("larder can be started")
    }

    /// Starts such a command, with its output kept for whoever waits for its end.
    #[track_caller]
    pub(crate) fn spawn(&self, arguments: &[impl AsRef<OsStr>]) -> Child {
        let (first, others) = arguments.split_first().expect("a command has a name");
        let mut program = self.program(first.as_ref(), &self.index);
        program
            .args(others)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        program.spawn().expect("larder can be started")
    }

    /// Starts `larder serve` on a free port.
    #[track_caller]
    pub(crate) fn serve(&self, arguments: &[&str]) -> Larder<'_> {
        self.serve_at("127.0.0.1:0", arguments)
    }

    /// Starts `larder serve` on this address.
    #[track_caller]
    pub(crate) fn serve_at(&self, listen: &str, arguments: &[&str]) -> Larder<'_> {
        let mut command = self.program(OsStr::new("serve"), &self.index);
        command.args(["--listen", listen]).args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let shown = format!("{command:?}");
        let mut process = command.spawn().expect("larder can be started");
        let stdout = process.stdout.take().expect("stdout is a pipe");
        let stderr = process.stderr.take().expect("stderr is a pipe");
        let (log, log_reader) = collect(stderr);
        let mut larder = Larder {
            site: self,
            process,
            url: String::new(),
            log,
            log_reader: Some(log_reader),
        };
        match announced_url(stdout, PATIENCE) {
            Ok(url) => larder.url = url,
            Err(why) => {
                let _ = larder.process.kill();
                let status = larder.wait();
                panic!("{shown}\n{why}; {status}\n--- stderr\n{}", larder.log());
            }
        }
        larder
    }

    fn program(&self, command: &OsStr, index: &str) -> Command {
        let mut program = match &self.prelude {
            None => Command::new(&self.program),
            Some(prelude) => {
                let mut shell = Command::new("/bin/sh");
                shell
                    .args(["-c", &format!("{prelude}; exec \"$0\" \"$@\"")])
                    .arg(&self.program);
                shell
            }
        };
        program.env_clear();
        for (name, folder) in [
            ("HOME", "home"),
            ("XDG_CACHE_HOME", "home/.cache"),
            ("XDG_CONFIG_HOME", "home/.config"),
            ("XDG_DATA_HOME", "home/.local/share"),
            ("XDG_STATE_HOME", "home/.local/state"),
            ("XDG_RUNTIME_DIR", "home/run"),
        ] {
            let folder = self.folder.path().join(folder);
            std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
            program.env(name, folder);
        }
        program.envs(self.variables.iter().map(|(name, value)| (name, value)));
        program.current_dir(self.folder.path());
        program
            .arg(command)
            .arg("--store")
            .arg(&self.store)
            .args(["--index", index]);
        program
    }
}

/// A running daemon. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Larder<'site> {
    site: &'site Site,
    process: Child,
    url: String,
    log: Arc<Mutex<String>>,
    log_reader: Option<JoinHandle<()>>,
}

impl<'site> Larder<'site> {
    /// Its address as it announced it, ending in a slash: the index URL for cargo.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A client of it.
    pub(crate) fn http(&self) -> Http {
        Http::to(&self.url)
    }

    /// One GET.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.http().get(path)
    }

    /// One GET with more headers.
    #[track_caller]
    pub(crate) fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.http().get_with(path, headers)
    }

    /// As many GETs at the same moment.
    #[track_caller]
    pub(crate) fn get_at_once(&self, count: usize, path: &str) -> Vec<Reply> {
        self.http().get_at_once(count, path)
    }

    /// What it has written to stderr so far.
    pub(crate) fn log(&self) -> String {
        self.log
            .lock()
            .expect("no holder of this lock panics")
            .clone()
    }

    /// Waits until the log contains this text: lines may be written after the client has its answer.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(
                Instant::now() < deadline,
                "no `{text}` in the log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Its process id, for looking at memory or sending signals.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it as a service manager does (SIGTERM) and fails the test unless it exits with 0. Returns the whole log.
    #[track_caller]
    pub(crate) fn stop(mut self) -> String {
        self.signal("TERM");
        let status = self.wait();
        assert!(
            status.success(),
            "larder ended with {status}:\n{}",
            self.log()
        );
        self.log()
    }

    /// Waits until it has ended, for whatever reason. Returns how, and the whole log.
    #[track_caller]
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let status = self.wait();
        (status, self.log())
    }

    /// Ends it as a power cut does (SIGKILL).
    #[track_caller]
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("the process is ours");
        self.wait();
    }

    /// [`Larder::stop`], then a new one on the same store and a free port.
    #[track_caller]
    pub(crate) fn restart(self, arguments: &[&str]) -> Self {
        let site = self.site;
        self.stop();
        site.serve(arguments)
    }

    /// [`Larder::stop`], then a new one on the same store and the same port.
    #[track_caller]
    pub(crate) fn restart_in_place(self, arguments: &[&str]) -> Self {
        let site = self.site;
        let authority = self
            .url
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned();
        self.stop();
        site.serve_at(&authority, arguments)
    }

    /// Sends a signal by its short name, `TERM` for instance.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        signal(self.process.id(), name);
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().expect("the process is ours") {
                // What was written last may still be in the pipe.
                let _ = self.log_reader.take().map(JoinHandle::join);
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "larder is still running:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Larder<'_> {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends a signal by its short name to a process of ours.
#[track_caller]
pub(crate) fn signal(process: u32, name: &str) {
    // The shell's own kill: no program has to be installed for it.
    let sent = Command::new("/bin/sh")
        .args(["-c", &format!("kill -{name} {process}")])
        .status();
    assert!(
        sent.is_ok_and(|sent| sent.success()),
        "cannot send SIG{name} to larder"
    );
}

/// The address in the line that begins with `listening on `. Later lines are read and forgotten, so that the pipe never fills.
pub(crate) fn announced_url(
    stdout: impl Read + Send + 'static,
    patience: Duration,
) -> Result<String, String> {
    let (said, wait) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(address) = line.strip_prefix("listening on ") {
                // Nobody waits for a second address.
                let _ = said.send(address.trim().to_owned());
            }
        }
    });
    wait.recv_timeout(patience).map_err(|error| match error {
        RecvTimeoutError::Timeout => format!("no `listening on ` within {patience:?}"),
        RecvTimeoutError::Disconnected => "ended without `listening on `".to_owned(),
    })
}

fn collect(stderr: impl Read + Send + 'static) -> (Arc<Mutex<String>>, JoinHandle<()>) {
    let log = Arc::new(Mutex::new(String::new()));
    let copy = Arc::clone(&log);
    let reader = std::thread::spawn(move || {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        while matches!(stderr.read_until(b'\n', &mut line), Ok(1..)) {
            let mut log = copy.lock().expect("no holder of this lock panics");
            log.push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    (log, reader)
}
