//! `larder service install`, `uninstall` and `status`.
//!
//! ```text
//!   install     no foreign or edited file? ──> write the files ──> systemctl --user enable --now larder.socket
//!   uninstall   no edited file? ──> systemctl --user disable --now larder.socket ──> remove the files
//! ```
//!
//! A copy of each written file tells later whether it was edited. `crate::service_manager::units` has the files and the
//! commands.

use std::{io, path::Path, process::ExitCode};

use serde_json::json;
use tokio::process::Command;

use super::{
    CommandError,
    client_settings::reachable,
    render::{note, print, print_json},
    running_daemon::configured,
    service_error::ServiceError,
};
use crate::{
    cli::{GlobalFlags, Service, ServiceCommand, ServiceInstall, ServiceUninstall},
    client_config::applied::{Backups, ClientFile},
    config::Settings,
    service_manager::units::{ServedBy, ServiceManager, addresses_of},
    status_client,
};

/// Runs the command. The exit code of `status` is 1 if no service listens.
///
/// # Errors
/// The service manager or a file cannot be used.
pub async fn run(
    settings: &Settings,
    shared: &GlobalFlags,
    flags: Service,
) -> Result<ExitCode, CommandError> {
    let installation = Installation::new(settings)?;
    match flags.command {
        ServiceCommand::Install(flags) => installation.install(settings, shared, flags).await,
        ServiceCommand::Uninstall(flags) => installation.uninstall(shared, flags).await,
        ServiceCommand::Status => installation.status(settings, shared).await,
    }
}

/// The service manager of this user, and the files that it has of larder.
struct Installation<'a> {
    manager: ServiceManager,
    folder: &'a Path,
    files: Vec<ClientFile>,
}

impl<'a> Installation<'a> {
    fn new(settings: &'a Settings) -> Result<Self, ServiceError> {
        let manager = if cfg!(target_os = "macos") {
            ServiceManager::Launchd(rustix::process::getuid().as_raw())
        } else {
            ServiceManager::Systemd
        };
        let service = &settings.service;
        let (Some(folder), Some(backups)) = (&service.files, &service.backups) else {
            return Err(ServiceError::NoFolder);
        };
        let backups = Backups::new(backups.clone());
        let names = manager.names().iter();
        let files = names.map(|name| {
            let path = folder.join(name);
            backups.open(&path).map_err(at(&path))
        });
        Ok(Self {
            manager,
            folder,
            files: files.collect::<Result<_, _>>()?,
        })
    }

    async fn install(
        &self,
        settings: &Settings,
        shared: &GlobalFlags,
        flags: ServiceInstall,
    ) -> Result<ExitCode, CommandError> {
        let proxy = settings.intercept.address;
        let mut all = settings.listen.iter().chain(&proxy);
        if let Some(address) = all.find(|address| address.port() == 0) {
            return Err(ServiceError::NoPort(*address).into());
        }
        let daemon = ServedBy {
            program: std::env::current_exe()?,
            config: settings.service.config.clone(),
            store: settings.service.store.clone(),
            listen: settings.listen.clone(),
            proxy,
        };
        let texts = self.manager.files(&daemon);
        let texts: Vec<_> = texts.into_iter().map(|file| file.text).collect();
        let is_there = self.files.iter().any(|file| file.now.is_some());
        let orders = self.manager.start(self.folder, is_there);
        if flags.dry_run {
            return self.print_plan(shared, &texts, &orders);
        }
        for (file, text) in self.files.iter().zip(&texts) {
            let is_new = file.now.as_deref() == Some(text.as_bytes());
            if file.now.is_some() && !file.is_as_written() && !is_new && !flags.force {
                return Err(changed(file).into());
            }
        }
        self.probe().await?;
        if !self.is_active().await
            && let Some(other) = status_client::find_any(configured(settings)).await
        {
            return Err(ServiceError::Runs {
                address: other.address,
                pid: other.status["pid"].as_u64().unwrap_or_default(),
            }
            .into());
        }
        for (file, text) in self.files.iter().zip(&texts) {
            // An older service file of the same program is not restored.
            file.write(None, text.as_bytes()).map_err(at(&file.path))?;
        }
        let ran = self.run_all(&orders).await?;
        let addresses = settings.listen.iter();
        let addresses: Vec<_> = addresses
            .map(|at| reachable(&format!("http://{at}/")))
            .collect();
        let paths = self.files.iter().map(|file| &*file.path);
        report(shared, "wrote", paths.collect(), &ran, Some(&addresses))?;
        if shared.quiet == 0 && !shared.json {
            let served = addresses.join(" and ");
            note(&match self.manager {
                ServiceManager::Systemd => format!(
                    "larder answers at {served}: the first connection starts it; `journalctl --user -u larder` shows \
                     its log\nIt runs while you are logged in, and always after `loginctl enable-linger`"
                ),
                ServiceManager::Launchd(_) => format!("larder answers at {served}"),
            });
            note(
                "next: `larder client apply` makes cargo use it; to switch off: `larder service uninstall`",
            );
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn uninstall(
        &self,
        shared: &GlobalFlags,
        flags: ServiceUninstall,
    ) -> Result<ExitCode, CommandError> {
        let installed: Vec<_> = self
            .files
            .iter()
            .filter(|file| file.now.is_some())
            .collect();
        for file in &installed {
            let may_remove = file.is_as_written() || flags.force && file.backup.is_some();
            if !may_remove {
                return Err(changed(file).into());
            }
        }
        if installed.is_empty() {
            for file in &self.files {
                file.drop_backup().map_err(at(&file.path))?;
            }
            if shared.json {
                print_json(&json!({ "files": [], "commands": [] }))?;
            } else {
                print("nothing to uninstall: no service of larder is installed\n")?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let [before, after] = self.manager.stop();
        let has_manager = self.probe().await.is_ok();
        let mut ran = Vec::new();
        if has_manager {
            ran.extend(self.run_all(&before).await?);
        }
        // In this order a folder that was made for the files is empty at the end.
        for file in installed.iter().rev() {
            file.restore().map_err(at(&file.path))?;
        }
        if has_manager {
            ran.extend(self.run_all(&after).await?);
        }
        let paths = installed.iter().map(|file| &*file.path);
        report(shared, "removed", paths.collect(), &ran, None)?;
        if shared.quiet == 0 && !shared.json {
            if !has_manager {
                note("note: no service manager answers, so nothing was stopped");
            }
            note(
                "next: if cargo uses larder, `larder client undo`, or start `larder serve` by hand",
            );
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn status(
        &self,
        settings: &Settings,
        shared: &GlobalFlags,
    ) -> Result<ExitCode, CommandError> {
        let is_installed = self.files.iter().all(|file| file.now.is_some());
        let is_edited = is_installed && !self.files.iter().all(ClientFile::is_as_written);
        let mut states = Vec::new();
        for (name, question) in self.manager.questions() {
            states.push((name, self.ask(&question).await));
        }
        let socket = self
            .files
            .iter()
            .find(|file| file.path.ends_with("larder.socket"));
        let text = socket.and_then(|file| std::str::from_utf8(file.now.as_deref()?).ok());
        let own = settings.listen.iter().chain(&settings.intercept.address);
        let own = own.map(ToString::to_string);
        let own: Vec<_> = own.collect();
        let addresses: Vec<_> = match text {
            Some(text) => addresses_of(text).into_iter().map(str::to_owned).collect(),
            None if is_installed => own.clone(),
            None => Vec::new(),
        };
        let is_active = is_installed && self.is_active().await;
        if shared.json {
            let state = |wanted| {
                states
                    .iter()
                    .find(|(name, _)| *name == wanted)
                    .map(|(_, state)| state)
            };
            print_json(&json!({
                "installed": is_installed,
                "edited": is_edited,
                "enabled": state("enabled"),
                "socket": state("socket"),
                "daemon": state("daemon"),
                "active": is_active,
                "addresses": addresses,
                "files": self.files.iter().map(|file| &file.path).collect::<Vec<_>>(),
            }))?;
        } else {
            let mut text = format!(
                "installed  {}\n",
                match (is_installed, is_edited) {
                    (true, false) => "yes",
                    (true, true) => "yes, and edited since",
                    (false, _) => "no; `larder service install` does it",
                }
            );
            if is_installed {
                for file in &self.files {
                    text += &format!("           {}\n", file.path.display());
                }
                for (name, state) in &states {
                    text += &format!("{name:<11}{state}\n");
                }
                text += &format!("address    {}\n", addresses.join(", "));
            }
            print(&text)?;
            if is_installed && addresses != own {
                note(&format!(
                    "note: the setting `{}` is {}; `larder service install` takes it over",
                    match settings.intercept.address {
                        None => "listen",
                        Some(_) => "listen` with `intercept",
                    },
                    own.join(", ")
                ));
            }
        }
        Ok(if is_active {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn print_plan(
        &self,
        shared: &GlobalFlags,
        texts: &[String],
        orders: &[Vec<String>],
    ) -> Result<ExitCode, CommandError> {
        let orders: Vec<_> = orders.iter().map(|order| self.shown(order)).collect();
        let files = self.files.iter().zip(texts);
        if shared.json {
            let files = files.map(|(file, text)| json!({ "path": file.path, "text": text }));
            print_json(&json!({ "files": files.collect::<Vec<_>>(), "commands": orders }))?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut plan = String::new();
        for (file, text) in files {
            plan += &format!("# {}\n{text}\n", file.path.display());
        }
        print(&plan)?;
        note(&format!(
            "nothing was changed; after writing these files it would run:\n  {}",
            orders.join("\n  ")
        ));
        Ok(ExitCode::SUCCESS)
    }

    /// Fails if there is no service manager.
    async fn probe(&self) -> Result<(), ServiceError> {
        let probe = self.manager.probe();
        let output = Command::new(self.manager.control())
            .args(&probe)
            .output()
            .await;
        let why = match output {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => reason(&output),
            Err(error) => error.to_string(),
        };
        Err(ServiceError::NoManager {
            command: self.shown(&probe),
            why,
        })
    }

    async fn is_active(&self) -> bool {
        match self.manager {
            ServiceManager::Systemd => {
                let question = ["--user", "is-active", "larder.socket"].map(str::to_owned);
                self.ask(&question).await == "active"
            }
            ServiceManager::Launchd(user) => {
                let question = ["print".to_owned(), format!("gui/{user}/larder")];
                let output = Command::new(self.manager.control()).args(question).output();
                output.await.is_ok_and(|output| output.status.success())
            }
        }
    }

    /// The answer to a question: one word, such as `active`.
    async fn ask(&self, question: &[String]) -> String {
        let output = Command::new(self.manager.control())
            .args(question)
            .output()
            .await;
        let answer = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        match answer {
            Ok(answer) if !answer.is_empty() => answer,
            Ok(_) | Err(_) => "unknown".to_owned(),
        }
    }

    /// Runs these commands. Returns them as text.
    async fn run_all(&self, orders: &[Vec<String>]) -> Result<Vec<String>, ServiceError> {
        let mut ran = Vec::new();
        for order in orders {
            let command = self.shown(order);
            let output = Command::new(self.manager.control())
                .args(order)
                .output()
                .await;
            let why = match output {
                Ok(output) if output.status.success() => None,
                Ok(output) => Some(reason(&output)),
                Err(error) => Some(error.to_string()),
            };
            if let Some(why) = why {
                return Err(ServiceError::Command { command, why });
            }
            ran.push(command);
        }
        Ok(ran)
    }

    fn shown(&self, order: &[String]) -> String {
        format!("{} {}", self.manager.control(), order.join(" "))
    }
}

/// Prints the files that were written or removed, and the commands that ran.
fn report(
    shared: &GlobalFlags,
    verb: &str,
    paths: Vec<&Path>,
    ran: &[String],
    addresses: Option<&[String]>,
) -> Result<(), CommandError> {
    if shared.json {
        return print_json(&json!({ "files": paths, "commands": ran, "addresses": addresses }));
    }
    let mut text = String::new();
    for path in paths {
        text += &format!("{verb} {}\n", path.display());
    }
    for command in ran {
        text += &format!("ran {command}\n");
    }
    print(&text)
}

/// The first line that a command wrote to stderr, else its exit status.
fn reason(output: &std::process::Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    match text.lines().next() {
        Some(line) => line.to_owned(),
        None => output.status.to_string(),
    }
}

/// A file that is not as larder wrote it.
fn changed(file: &ClientFile) -> ServiceError {
    let path = file.path.clone();
    if file.backup.is_none() {
        return ServiceError::Foreign(path);
    }
    let lines = file.foreign_lines();
    let what = match lines.first() {
        Some(first) => format!("line {first} is new or changed"),
        None => "lines are gone".to_owned(),
    };
    ServiceError::Edited { path, what }
}

fn at(path: &Path) -> impl Fn(io::Error) -> ServiceError {
    let path = path.to_owned();
    move |source| ServiceError::File {
        path: path.clone(),
        source,
    }
}
