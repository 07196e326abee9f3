//! Parses, builds the parts, runs one command, and turns the result into text and an exit code. Everything printed to
//! people is printed here; HTTP and the disk are for others.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{CommandFactory as _, Parser as _};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use larder::{
    cache::{self, Cache},
    check, cli, client_config,
    config::{self, Settings},
    log::{Layout, Log},
    plan,
    resource::{Dist, Registries, Upstreams},
    server::{self, Server, guard::Hosts},
    status_client,
    store::{Announcement, Statistics, Store},
    upstream::{self, Upstream},
    warm,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
    time::timeout,
};
use tracing::info;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// How often `warm` says how far it is where there is no terminal.
const PLAIN_PROGRESS: Duration = Duration::from_secs(5);

/// How long an interrupted `warm` may take to store what has come.
const LAST_STORING: Duration = Duration::from_secs(5);

/// The system's keeps what a burst took: 70 MB after a cold fetch of 860 packages, of which a fifth is in use.
#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(Failed::Usage(text)) => {
            complain(&text);
            ExitCode::from(2)
        }
        Err(Failed::Run(text)) => {
            complain(&text);
            ExitCode::FAILURE
        }
    }
}

/// Why a command came to nothing.
enum Failed {
    /// The user's words are off.
    Usage(String),
    /// The world is.
    Run(String),
}

fn failed(error: impl ToString) -> Failed {
    Failed::Run(error.to_string())
}

fn complain(text: &str) {
    // Nobody is left to tell if stderr is closed.
    let _ = writeln!(io::stderr(), "error: {text}");
}

/// Writes to stdout; a reader that has seen enough is no failure.
fn say(text: &str) -> Result<(), Failed> {
    match io::stdout()
        .write_all(text.as_bytes())
        .and_then(|()| io::stdout().flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(failed(format!("cannot write to stdout: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn run(cli: cli::Cli) -> Result<ExitCode, Failed> {
    let shared = cli.shared;
    let mut daemon = cli::Serve::default();
    let (serve, jobs) = match &cli.command {
        cli::Command::Serve(serve) => (serve, None),
        cli::Command::Warm(warm) => (&daemon, warm.jobs),
        cli::Command::Completions { shell } => {
            clap_complete::generate(
                *shell,
                &mut cli::Cli::command(),
                "larder",
                &mut io::stdout(),
            );
            return Ok(ExitCode::SUCCESS);
        }
        cli::Command::Man => {
            let man = clap_mangen::Man::new(cli::Cli::command());
            return man
                .render(&mut io::stdout())
                .map(|()| ExitCode::SUCCESS)
                .map_err(failed);
        }
        cli::Command::Check(_) => (&daemon, None),
        // These are about the daemon, wherever the variables let it listen.
        cli::Command::Status | cli::Command::Client(_) => {
            daemon = cli::Serve::from_variables().map_err(|bad| {
                let text = bad.to_string();
                let text = text.strip_prefix("error: ").unwrap_or(&text);
                Failed::Usage(text.trim_end().to_owned())
            })?;
            (&daemon, None)
        }
    };
    let settings =
        config::settings(&shared, serve, jobs).map_err(|bad| Failed::Usage(bad.to_string()))?;
    let _log = set_up_log(
        &shared,
        &settings,
        matches!(cli.command, cli::Command::Serve(_)),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let code = runtime.block_on(async {
        outlive_size_limits().map_err(failed)?;
        raise_descriptor_limit();
        match cli.command {
            cli::Command::Serve(_) => run_serve(&settings).await,
            cli::Command::Warm(flags) => run_warm(&settings, &shared, flags).await,
            cli::Command::Check(flags) => run_check(&settings, &shared, flags).await,
            cli::Command::Status => run_status(&settings, &shared).await,
            cli::Command::Client(cli::Client {
                command: cli::ClientCommand::Print { of },
            }) => run_client_print(&settings, &shared, of).await,
            cli::Command::Completions { .. } | cli::Command::Man => Ok(ExitCode::SUCCESS),
        }
    });
    // What nobody waits for any more must not hold up the exit, but threads that are ending are waited for: glibc's `pthread_detach`
    // looks at what such a thread has given back already, which is a crash now and then.
    runtime.shutdown_timeout(Duration::from_millis(200));
    code
}

/// Many clients at once need many descriptors, and the usual soft limit is for programs that use `select`.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}

/// A file that may not grow further is for the store to bear like a full disk. Unheard, the signal would end the process.
fn outlive_size_limits() -> io::Result<()> {
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop)
}

/// The daemon tells of every request; other commands only of trouble.
fn set_up_log(shared: &cli::Shared, settings: &Settings, is_daemon: bool) -> Option<Log> {
    let ours = |level| Targets::new().with_target("larder", level);
    let filter = match (
        is_daemon,
        i16::from(shared.verbose) - i16::from(shared.quiet),
    ) {
        (true, 0) | (false, 1) => ours(LevelFilter::INFO),
        (true, -1) | (false, 0) => ours(LevelFilter::WARN),
        (true, 1) | (false, 2) => ours(LevelFilter::DEBUG),
        (_, ..=-1) => ours(LevelFilter::ERROR),
        (_, 1..) => Targets::new().with_default(LevelFilter::TRACE),
    };
    let colour = settings.may_colour && io::stderr().is_terminal();
    let log = is_daemon.then(|| Log::to(io::stderr()).ok()).flatten();
    let layout = Layout::new(log.as_ref().map(Log::lines), colour);
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(layout)
        .try_init();
    log
}

/// The parts every command is made of.
struct Parts {
    store: Arc<Store>,
    upstreams: Upstreams,
    cache: Cache,
}

fn parts(settings: &Settings, is_offline: bool, prefetch: bool) -> Result<Parts, Failed> {
    let store = Arc::new(Store::open(&settings.store).map_err(failed)?);
    let upstreams = Upstreams {
        registries: Registries::new(settings.index.clone(), settings.registries.clone()),
        dist: Dist::new(
            settings.dist_server.clone(),
            settings.update_root.clone(),
            settings.toolchain_format,
        ),
    };
    // One TLS provider for the process; a second install is refused and harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let upstream = Upstream::new(
        upstream::UpstreamOptions {
            dial_timeout: settings.upstream_timeout,
            ca_file: settings.ca_file.clone(),
            redirect_hosts: settings.redirect_hosts.clone(),
        },
        upstreams
            .registries
            .iter()
            .map(|registry| registry.index())
            .chain(upstreams.dist.addresses()),
    )
    .map_err(|error| failed(larder::error::chain(&error)))?;
    let options = cache::CacheOptions {
        is_offline,
        max_age: settings.max_age,
        upstream_timeout: settings.upstream_timeout,
        offline_view: !settings.full_index,
        // The daemon's clients have their bodies before they are stored; `warm` waits for that.
        writers: if prefetch { 2 } else { 64 },
        prefetch,
    };
    let cache = Cache::new(store.clone(), upstream, options);
    Ok(Parts {
        store,
        upstreams,
        cache,
    })
}

async fn run_serve(settings: &Settings) -> Result<ExitCode, Failed> {
    let mut listeners = Vec::new();
    for address in &settings.listen {
        listeners.push(server::listen(*address).await.map_err(|cause| {
            let is_taken = cause.kind() == io::ErrorKind::AddrInUse;
            let hint = if is_taken {
                "; is larder already running? choose another with `--listen`"
            } else {
                ""
            };
            failed(format!("cannot listen on {address}: {cause}{hint}"))
        })?);
    }
    let addresses: Vec<_> = listeners
        .iter()
        .map(tokio::net::TcpListener::local_addr)
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    let parts = parts(settings, settings.is_offline, true)?;
    match parts.store.prepare() {
        // What is stored can be served from a disk that cannot be written to.
        Err(error) if settings.is_offline => tracing::warn!(%error, "nothing can be stored"),
        prepared => prepared.map_err(failed)?,
    }
    let bases: Vec<_> = addresses
        .iter()
        .map(|address| format!("http://{address}/"))
        .collect();
    let announcement = Announcement {
        pid: std::process::id(),
        addresses: bases.clone(),
    };
    if let Err(error) = parts.store.announce(&announcement).await {
        tracing::warn!(%error, "cannot note the address for other commands");
    }
    let cache = parts.cache.clone();
    let server = Server {
        cache: parts.cache,
        upstreams: parts.upstreams,
        hosts: Hosts::new(&addresses, &settings.allow_hosts),
        h2c: settings.h2c,
    };
    let mut signals = Signals::new().map_err(failed)?;
    for base in &bases {
        say(&format!("listening on {base}\n"))?;
    }
    let reach = if settings.is_offline {
        "offline"
    } else {
        "online"
    };
    info!(store = %settings.store.display(), upstream = %settings.index, reach, "larder {} serves", env!("CARGO_PKG_VERSION"));
    let (stop, stopping) = oneshot::channel();
    let work = async {
        // An error says that nobody can order it any more.
        let stopping = async { drop(stopping.await) };
        server::run(listeners, Arc::new(server), stopping).await;
        cache.flush().await;
    };
    let ordered_twice = async {
        signals.next().await;
        // Nobody hears it only if the work is done.
        let _ = stop.send(());
        signals.next().await;
    };
    tokio::select! {
        () = work => {
            info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        () = ordered_twice => Err(failed("stopped at once; what was not stored yet is fetched again when it's needed")),
    }
}

/// The user's, or the service manager's, orders to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Ends with the next order.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

async fn run_warm(
    settings: &Settings,
    shared: &cli::Shared,
    flags: cli::Warm,
) -> Result<ExitCode, Failed> {
    let parts = parts(settings, false, false)?;
    parts.store.prepare().map_err(failed)?;
    let toolchains = toolchains(settings, flags.toolchains, &flags.target);
    let options = warm::WarmOptions {
        paths: paths(flags.path, &toolchains),
        jobs: usize::from(settings.jobs),
        refresh: flags.refresh,
        dry_run: flags.dry_run,
        targets: flags.target,
        toolchains,
        cargo: settings.cargo.clone(),
        no_proxy: settings.no_proxy.clone(),
        scratch: parts.store.scratch().map_err(failed)?,
    };
    let (progress, watched) = watch::channel(warm::WarmProgress::default());
    let shown = tokio::spawn(show_progress(watched, shared.quiet > 0 || shared.json));
    let work = warm::warm(
        &parts.cache,
        &parts.store,
        &parts.upstreams,
        options,
        progress,
    );
    let mut signals = Signals::new().map_err(failed)?;
    let report = tokio::select! {
        report = work => Some(report),
        () = signals.next() => None,
    };
    let Some(report) = report else {
        let is_finished = tokio::select! {
            finished = timeout(LAST_STORING, parts.cache.flush()) => finished.is_ok(),
            () = signals.next() => false,
        };
        let kept = if is_finished {
            "fetched"
        } else {
            "stored so far"
        };
        return Err(failed(format!("interrupted; what was {kept} is kept")));
    };
    // What was fetched on the way, beside what was asked for.
    parts.cache.flush().await;
    let _ = shown.await;
    if shared.json {
        say(&format!(
            "{}\n",
            serde_json::to_string(&report).map_err(failed)?
        ))?;
    }
    let mut err = io::stderr().lock();
    for problem in &report.skipped {
        let _ = writeln!(err, "skipped {}: {}", problem.what, problem.why);
    }
    for problem in &report.failed {
        let _ = writeln!(err, "failed {}: {}", problem.what, problem.why);
    }
    if shared.quiet == 0 {
        let verb = if flags.dry_run { "to fetch" } else { "fetched" };
        let toolchains = match report.toolchains {
            0 => String::new(),
            number => format!(
                ", {} in {}",
                count(report.components, "component"),
                count(number, "toolchain")
            ),
        };
        let _ = writeln!(
            err,
            "{} in {}{toolchains}: {} {verb}, {} were there, {} failed, {} skipped; {} in {:.1} s",
            count(report.packages, "package"),
            count(report.projects, "project"),
            report.fetched + report.components_fetched,
            report.cached + report.components_cached,
            report.failed.len(),
            report.skipped.len(),
            HumanBytes(report.bytes),
            report.seconds
        );
    }
    Ok(if report.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn toolchains(
    settings: &Settings,
    flags: cli::Toolchains,
    targets: &[String],
) -> plan::ToolchainRequest {
    plan::ToolchainRequest {
        names: flags.toolchain,
        profile: flags.profile,
        components: flags.component,
        targets: targets.to_vec(),
        hosts: flags.host,
        bootstrap: flags.bootstrap,
        rustup_settings: settings.rustup_settings.clone(),
    }
}

/// Who names a toolchain and no path does not mean the folder they happen to be in.
fn paths(named: Vec<PathBuf>, toolchains: &plan::ToolchainRequest) -> Vec<PathBuf> {
    if named.is_empty() && toolchains.names.is_empty() {
        vec![PathBuf::from(".")]
    } else {
        named
    }
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

/// A bar on a terminal, a line now and then elsewhere.
async fn show_progress(mut progress: watch::Receiver<warm::WarmProgress>, is_quiet: bool) {
    if is_quiet {
        return;
    }
    let is_terminal = io::stderr().is_terminal();
    let bar = is_terminal.then(|| {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar
    });
    let began = std::time::Instant::now();
    let mut next_line = began + PLAIN_PROGRESS;
    while progress.changed().await.is_ok() {
        let now = *progress.borrow_and_update();
        let rate = now.bytes as f64 / began.elapsed().as_secs_f64().max(0.001);
        let amount = format!("{}  {}/s", HumanBytes(now.bytes), HumanBytes(rate as u64));
        match &bar {
            Some(bar) => {
                bar.set_length(now.total as u64);
                bar.set_position(now.done as u64);
                bar.set_message(amount);
            }
            None if std::time::Instant::now() >= next_line => {
                next_line += PLAIN_PROGRESS;
                let _ = writeln!(io::stderr(), "{}/{}  {amount}", now.done, now.total);
            }
            None => {}
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

async fn run_check(
    settings: &Settings,
    shared: &cli::Shared,
    flags: cli::Check,
) -> Result<ExitCode, Failed> {
    let parts = parts(settings, true, false)?;
    let toolchains = toolchains(settings, flags.toolchains, &flags.target);
    let paths = paths(flags.path, &toolchains);
    let verdict = check::check(
        &parts.cache,
        &parts.store,
        &parts.upstreams,
        paths,
        toolchains,
    )
    .await;
    if shared.json {
        say(&format!(
            "{}\n",
            serde_json::to_string(&verdict).map_err(failed)?
        ))?;
    } else {
        let mut text = String::new();
        let mut tell = |ready: bool, what: String, size: String, missing: &[String]| {
            let word = if ready { "ready    " } else { "not ready" };
            text += &format!("{word}  {what}  ({size})\n");
            for missing in missing {
                text += &format!("           missing: {missing}\n");
            }
        };
        for project in &verdict.projects {
            let size = count(project.packages, "package");
            let path = project.path.display().to_string();
            tell(project.ready, path, size, &project.missing);
        }
        for toolchain in &verdict.toolchains {
            let size = count(toolchain.components, "component");
            tell(toolchain.ready, toolchain.title(), size, &toolchain.missing);
        }
        say(&text)?;
        for problem in &verdict.failed {
            complain(&problem.to_string());
        }
        if !verdict.ready && shared.quiet == 0 {
            let _ = writeln!(io::stderr(), "hint: `larder warm` fetches what is missing");
        }
    }
    Ok(if verdict.ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A daemon on this store, that at the address in the settings before others; or whichever is at that address.
async fn find_daemon(settings: &Settings, store: &Store) -> Option<(String, serde_json::Value)> {
    let configured: Vec<_> = settings
        .listen
        .iter()
        .map(|address| format!("http://{address}/"))
        .collect();
    let announced = store.announced().into_iter();
    let mut bases: Vec<_> = announced.flat_map(|one| one.addresses).collect();
    bases.sort_by_key(|base| !configured.contains(base));
    for base in bases.into_iter().chain(configured) {
        if let Some(status) = status_client::status(&base).await {
            return Some((base, status));
        }
    }
    None
}

async fn run_status(settings: &Settings, shared: &cli::Shared) -> Result<ExitCode, Failed> {
    let parts = parts(settings, true, false)?;
    let statistics = parts.store.statistics().await.map_err(failed)?;
    let pins = parts.store.pins().await.map_err(failed)?;
    let daemon = find_daemon(settings, &parts.store).await;
    if shared.json {
        let daemon = daemon
            .map(|(address, status)| serde_json::json!({ "address": address, "status": status }));
        let owners: Vec<_> = pins.iter().map(|pin| pin.owner.to_string()).collect();
        let document = serde_json::json!({
            "store": settings.store, "statistics": statistics, "projects": owners, "daemon": daemon,
        });
        say(&format!("{document}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let Statistics {
        entries,
        entry_bytes,
        blobs,
        blob_bytes,
        ..
    } = statistics;
    let mut text = format!(
        "store     {}\nentries   {entries}, {}\nfiles     {blobs}, {}\nprojects  {}\n",
        settings.store.display(),
        HumanBytes(entry_bytes),
        HumanBytes(blob_bytes),
        pins.len()
    );
    for pin in &pins {
        let mut parts = vec![count(pin.packages.len(), "package")];
        match (pin.packages.len(), pin.archives.len()) {
            (_, 0) => {}
            (0, archives) => parts = vec![count(archives, "component")],
            (_, archives) => parts.push(count(archives, "component")),
        }
        text += &format!("          {}  ({})\n", pin.owner, parts.join(", "));
    }
    match daemon {
        None => text += "daemon    not running; start it with `larder serve`\n",
        Some((address, status)) => {
            let reach = if status["offline"] == true {
                ", offline"
            } else {
                ""
            };
            text += &format!("daemon    {address}, process {}{reach}\n", status["pid"]);
            for outage in status["outages"].as_array().into_iter().flatten() {
                let field = |name: &str| outage[name].as_str().unwrap_or_default().to_owned();
                text += &format!(
                    "{:<9} {} since {}: {}\n",
                    field("state"),
                    field("upstream"),
                    field("since"),
                    field("cause")
                );
            }
        }
    }
    say(&text)?;
    Ok(ExitCode::SUCCESS)
}

async fn run_client_print(
    settings: &Settings,
    shared: &cli::Shared,
    of: cli::ClientKind,
) -> Result<ExitCode, Failed> {
    let note = |text: &str| {
        if shared.quiet == 0 {
            // Nobody is left to tell if stderr is closed.
            let _ = writeln!(io::stderr(), "{text}");
        }
    };
    let parts = parts(settings, true, false)?;
    let found = find_daemon(settings, &parts.store).await;
    let is_running = found.is_some();
    let base = match found {
        Some((base, _)) => base,
        None => {
            note("note: no larder is running now; this is where `larder serve` will listen");
            settings
                .listen
                .first()
                .map(|address| format!("http://{address}/"))
                .ok_or_else(|| failed("no address to listen on is configured"))?
        }
    };
    // An address that is listened on everywhere is reached on this machine by loopback.
    let base = base
        .replace("//0.0.0.0:", "//127.0.0.1:")
        .replace("//[::]:", "//[::1]:");
    let mut cargo = client_config::cargo_settings(&base);
    for (name, index) in &settings.registries {
        cargo += "\n";
        cargo += &client_config::registry_settings(&base, name, index.as_str());
    }
    if shared.json {
        let document = serde_json::json!({
            "address": base,
            "running": is_running,
            "cargo": cargo,
            "rustup": client_config::rustup_variables(&base).into_iter().collect::<BTreeMap<_, _>>(),
            "build": client_config::build_arguments(&base).into_iter().collect::<BTreeMap<_, _>>(),
        });
        say(&format!("{document}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    match of {
        cli::ClientKind::Cargo => {
            note(
                "# for $CARGO_HOME/config.toml or a project's .cargo/config.toml\n\
                 # rustup's settings: larder client print rustup",
            );
            say(&cargo)?;
        }
        cli::ClientKind::Rustup => {
            note("# for a shell, or its profile: eval \"$(larder client print rustup)\"");
            say(&client_config::rustup_exports(&base))?;
        }
        cli::ClientKind::Build => {
            note("# for a build: podman build $(larder client print build) .");
            say(&client_config::build_options(&base))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
