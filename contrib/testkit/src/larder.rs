//! The built larder as a user runs it: a process with a store, a listening address, a log and an exit status.
//!
//! ```text
//!   Site   store folder, index URL, variables ──serve()──> Larder   running daemon, killed on drop
//!                                             ──command()─> Output  one-shot command (warm, check, status)
//! ```

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::http::{Http, Reply};
use crate::process::{announced_url, signal, wait_until_within};

/// Time limit of start and of orderly shutdown, on a loaded machine.
const START_STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Time limit of [`Larder::wait_until_idle`]: a benchmark may have buffered many files.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A store, an index URL and an environment, used by a daemon and by one-shot commands. Deleted on drop.
#[derive(Debug)]
pub struct Site {
    program: PathBuf,
    folder: TempDir,
    store: PathBuf,
    index: String,
    variables: Vec<(String, String)>,
    /// Shell commands to run before the shell replaces itself with larder.
    prelude: Option<String>,
}

impl Site {
    /// An empty store in front of the registry at the URL `index`. `program` is the built larder.
    #[track_caller]
    pub fn new(program: &str, index: &str) -> Self {
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

    /// Starts all commands from a shell that runs `shell` first, for example `umask 0` or `ulimit -f 100`.
    pub fn shell_prelude(mut self, shell: &str) -> Self {
        self.prelude = Some(shell.to_owned());
        self
    }

    /// Sets an environment variable for all commands. Without it they see only `HOME` and `XDG_*`, in a temporary
    /// folder.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Uses this folder as the store.
    pub fn store_in(mut self, store: &Path) -> Self {
        store.clone_into(&mut self.store);
        self
    }

    /// The store's folder. Larder creates it.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// The URL of upstream's index.
    pub fn index(&self) -> &str {
        &self.index
    }

    /// Runs a one-shot command (`warm`, `check`, `status`) on this store and index.
    #[track_caller]
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Output {
        let (first, others) = arguments.split_first().expect("a command has a name");
        let output = self
            .program(first.as_ref(), &self.index)
            .args(others)
            .output();
        output.expect("larder can be started")
    }

    /// Starts a one-shot command with piped output, and does not wait for it.
    #[track_caller]
    pub fn spawn(&self, arguments: &[impl AsRef<OsStr>]) -> Child {
        let (first, others) = arguments.split_first().expect("a command has a name");
        let mut program = self.program(first.as_ref(), &self.index);
        program
            .args(others)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        program.spawn().expect("larder can be started")
    }

    /// `larder run` on this store and index, with the program, arguments, folder and environment of `client`.
    pub fn run_command(&self, flags: &[&str], client: &Command) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear();
        for (name, value) in client.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        if let Some(folder) = client.get_current_dir() {
            command.current_dir(folder);
        }
        let variables = self.variables.iter();
        command
            .envs(variables.map(|(name, value)| (name, value)))
            .args(["run", "--index", &self.index, "--store"])
            .arg(&self.store)
            .args(flags)
            .arg("--")
            .arg(client.get_program())
            .args(client.get_args());
        command
    }

    /// Starts `larder serve` on a free port.
    #[track_caller]
    pub fn serve(&self, arguments: &[&str]) -> Larder<'_> {
        self.serve_at("127.0.0.1:0", arguments)
    }

    /// Starts `larder serve` on this address.
    #[track_caller]
    pub fn serve_at(&self, listen: &str, arguments: &[&str]) -> Larder<'_> {
        let mut command = self.program(OsStr::new("serve"), &self.index);
        command.args(["--listen", listen]).args(arguments);
        command.stdin(Stdio::null());
        self.start(command)
    }

    /// Starts `larder serve` as systemd does with socket activation: this listening socket is descriptor 3.
    #[track_caller]
    pub fn serve_on(&self, socket: impl Into<OwnedFd>, arguments: &[&str]) -> Larder<'_> {
        self.start(self.command_on(socket, arguments))
    }

    /// [`Site::serve_on`] for a daemon that does not get as far as serving.
    #[track_caller]
    pub fn fail_on(&self, socket: impl Into<OwnedFd>, arguments: &[&str]) -> Output {
        let output = self.command_on(socket, arguments).output();
        output.expect("larder can be started")
    }

    /// [`Site::serve_on`] with two sockets, the descriptors 3 and 4. The log is in a file: [`Larder::log`] is empty.
    #[track_caller]
    pub fn serve_on_two(&self, sockets: [OwnedFd; 2], arguments: &[&str]) -> Larder<'_> {
        let [first, second] = sockets;
        let script = "exec 3<&0 4<&2 </dev/null 2>>log; export LISTEN_FDS=2";
        let mut command = self.activated(script, arguments);
        command.stdin(first).stderr(second).stdout(Stdio::piped());
        let process = command.spawn().expect("larder can be started");
        self.started(process, &format!("{command:?}"))
    }

    fn command_on(&self, socket: impl Into<OwnedFd>, arguments: &[&str]) -> Command {
        let mut command = self.activated("exec 3<&0 </dev/null; export LISTEN_FDS=1", arguments);
        command.stdin(socket.into());
        command
    }

    /// `larder serve` below a shell that has run `script`, with its own process as that of the passed sockets.
    fn activated(&self, script: &str, arguments: &[&str]) -> Command {
        let inner = self.program(OsStr::new("serve"), &self.index);
        let mut command = Command::new("/bin/sh");
        let script = format!("{script} LISTEN_PID=$$; exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(inner.get_program());
        command.args(inner.get_args()).args(arguments).env_clear();
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.current_dir(self.folder.path());
        command
    }

    #[track_caller]
    fn start(&self, mut command: Command) -> Larder<'_> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = command.spawn().expect("larder can be started");
        self.started(process, &format!("{command:?}"))
    }

    /// The daemon once it has announced its address; `shown` is its command.
    #[track_caller]
    fn started(&self, mut process: Child, shown: &str) -> Larder<'_> {
        let stdout = process.stdout.take().expect("stdout is a pipe");
        let stderr = process.stderr.take();
        let stderr: Box<dyn Read + Send> = match stderr {
            Some(stderr) => Box::new(stderr),
            None => Box::new(std::io::empty()),
        };
        let (log, log_reader) = collect(stderr);
        let mut larder = Larder {
            site: self,
            process,
            url: String::new(),
            log,
            log_reader: Some(log_reader),
        };
        match announced_url(stdout, START_STOP_TIMEOUT) {
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
pub struct Larder<'site> {
    site: &'site Site,
    process: Child,
    url: String,
    log: Arc<Mutex<String>>,
    log_reader: Option<JoinHandle<()>>,
}

impl<'site> Larder<'site> {
    /// The announced URL, with a slash at the end: the index URL for cargo.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// An HTTP client of this daemon.
    pub fn http(&self) -> Http {
        Http::to(&self.url)
    }

    /// One GET.
    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        self.http().get(path)
    }

    /// One GET with more headers.
    #[track_caller]
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.http().get_with(path, headers)
    }

    /// `count` GETs at the same moment.
    #[track_caller]
    pub fn get_at_once(&self, count: usize, path: &str) -> Vec<Reply> {
        self.http().get_at_once(count, path)
    }

    /// The standard error output so far.
    pub fn log(&self) -> String {
        self.log
            .lock()
            .expect("no holder of this lock panics")
            .clone()
    }

    /// Waits until the log contains `text`. Larder may write a line after the client has its answer.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + START_STOP_TIMEOUT;
        while !self.log().contains(text) {
            assert!(
                Instant::now() < deadline,
                "no `{text}` in the log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The process id.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Stops the daemon with SIGTERM, as a service manager does. Fails the test unless it exits with 0. Returns the
    /// log.
    #[track_caller]
    pub fn stop(mut self) -> String {
        self.signal("TERM");
        let status = self.wait();
        assert!(
            status.success(),
            "larder ended with {status}:\n{}",
            self.log()
        );
        self.log()
    }

    /// Waits until the daemon exits by itself. Returns its status and the log.
    #[track_caller]
    pub fn wait_for_exit(mut self) -> (ExitStatus, String) {
        let status = self.wait();
        (status, self.log())
    }

    /// Kills the daemon with SIGKILL.
    #[track_caller]
    pub fn kill(mut self) {
        self.process.kill().expect("the process is ours");
        self.wait();
    }

    /// [`Larder::stop`], then starts a new daemon on the same store and a free port.
    #[track_caller]
    pub fn restart(self, arguments: &[&str]) -> Self {
        let site = self.site;
        self.stop();
        site.serve(arguments)
    }

    /// [`Larder::stop`], then starts a new daemon on the same store and the same port.
    #[track_caller]
    pub fn restart_on_same_port(self, arguments: &[&str]) -> Self {
        let site = self.site;
        let authority = self
            .url
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned();
        self.stop();
        site.serve_at(&authority, arguments)
    }

    /// Sends a signal by its short name, for example `TERM`.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        signal(self.process.id(), name);
    }

    /// The content of `/-/status.json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let reply = self.get("/-/status.json");
        serde_json::from_slice(&reply.body).expect("the status is JSON")
    }

    /// A request counter of `/-/status.json`; 0 if the status does not contain it.
    #[track_caller]
    pub fn request_count(&self, name: &str) -> u64 {
        self.status()["requests"][name].as_u64().unwrap_or_default()
    }

    /// Waits until no upstream counts as slow or down. The log says so later: see docs/decisions/0033-hysteresis.md.
    #[track_caller]
    pub fn wait_until_reachable(&self) {
        wait_until_within(START_STOP_TIMEOUT, "no upstream is slow or down", || {
            self.status()["outages"]
                .as_array()
                .is_some_and(Vec::is_empty)
        });
    }

    /// Waits until no fetch is in flight and all writes are done. Clients have their answers earlier.
    #[track_caller]
    pub fn wait_until_idle(&self) {
        wait_until_within(IDLE_TIMEOUT, "no fetch in flight, nothing buffered", || {
            let status = self.status();
            status["fetching"] == 0 && status["storing"] == 0
        });
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + START_STOP_TIMEOUT;
        loop {
            if let Some(status) = self.process.try_wait().expect("the process is ours") {
                // The last lines may still be in the pipe.
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
        // Both fail only if the process has exited.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
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
