//! The files by which the user's service manager starts larder, and the commands that make it read them. Pure.
//!
//! | | systemd | launchd (macOS) |
//! |---|---|---|
//! | files | `larder.service`, `larder.socket` | `larder.plist` |
//! | listens | systemd, which starts the daemon at the first connection | the daemon, which launchd keeps running |
//!
//! The units are those of contrib/systemd with this user's paths and addresses.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

const SERVICE_UNIT: &str = include_str!("../../contrib/systemd/larder.service");
const SOCKET_UNIT: &str = include_str!("../../contrib/systemd/larder.socket");
/// The lines of those files that depend on the user.
const PROGRAM_LINE: &str = "ExecStart=%h/.cargo/bin/larder serve\n";
const ADDRESS_LINE: &str = "ListenStream=127.0.0.1:3263\n";
const CACHE_LINE: &str = "CacheDirectoryMode=0700\n";

/// Service managers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceManager {
    /// systemd's manager of a user.
    Systemd,
    /// launchd's domain of a user who is logged in, by its number.
    Launchd(u32),
}

/// The daemon to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedBy {
    /// The program, absolute.
    pub program: PathBuf,
    /// The settings file, if it is not the usual one; absolute.
    pub config: Option<PathBuf>,
    /// The store, if it is not the usual one; absolute.
    pub store: Option<PathBuf>,
    /// The addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// The address of the intercepting proxy.
    pub proxy: Option<SocketAddr>,
}

/// A file for a service manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFile {
    /// Its name in the service manager's folder.
    pub name: &'static str,
    /// Its content.
    pub text: String,
}

impl ServiceManager {
    /// The program that gives orders to the service manager.
    pub fn control(self) -> &'static str {
        match self {
            Self::Systemd => "systemctl",
            Self::Launchd(_) => "launchctl",
        }
    }

    /// The names of its files.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Systemd => &["larder.service", "larder.socket"],
            Self::Launchd(_) => &["larder.plist"],
        }
    }

    /// The files for this daemon, in the order of [`Self::names`].
    pub fn files(self, daemon: &ServedBy) -> Vec<ServiceFile> {
        let texts = match self {
            Self::Systemd => vec![service_unit(daemon), socket_unit(daemon)],
            Self::Launchd(_) => vec![property_list(daemon)],
        };
        let names = self.names().iter();
        names
            .zip(texts)
            .map(|(name, text)| ServiceFile { name, text })
            .collect()
    }

    /// The arguments of a question that succeeds if the service manager runs.
    pub fn probe(self) -> Vec<String> {
        match self {
            Self::Systemd => words("--user show-environment"),
            Self::Launchd(user) => words(&format!("print gui/{user}")),
        }
    }

    /// The orders after the files were written. `replaces` tells if there were files before.
    pub fn start(self, folder: &Path, replaces: bool) -> Vec<Vec<String>> {
        let mut orders = Vec::new();
        match self {
            Self::Systemd => {
                orders.push(words("--user daemon-reload"));
                if replaces {
                    // A socket cannot get new addresses while its daemon runs.
                    orders.push(words("--user stop larder.socket larder.service"));
                }
                orders.push(words("--user enable --now larder.socket"));
            }
            Self::Launchd(user) => {
                if replaces {
                    orders.push(words(&format!("bootout gui/{user}/larder")));
                }
                let file = folder.join("larder.plist").display().to_string();
                let mut order = words(&format!("bootstrap gui/{user}"));
                order.push(file);
                orders.push(order);
            }
        }
        orders
    }

    /// The orders before the files are removed, and those after.
    pub fn stop(self) -> [Vec<Vec<String>>; 2] {
        match self {
            Self::Systemd => [
                vec![
                    words("--user disable --now larder.socket"),
                    words("--user stop larder.service"),
                ],
                vec![words("--user daemon-reload")],
            ],
            Self::Launchd(user) => [vec![words(&format!("bootout gui/{user}/larder"))], vec![]],
        }
    }

    /// The questions whose answer is one word each, with the name of the word.
    pub fn questions(self) -> Vec<(&'static str, Vec<String>)> {
        match self {
            Self::Systemd => vec![
                ("enabled", words("--user is-enabled larder.socket")),
                ("socket", words("--user is-active larder.socket")),
                ("daemon", words("--user is-active larder.service")),
            ],
            Self::Launchd(_) => Vec::new(),
        }
    }
}

/// The addresses in a socket unit.
pub fn addresses_of(socket_unit: &str) -> Vec<&str> {
    let lines = socket_unit.lines();
    lines
        .filter_map(|line| line.strip_prefix("ListenStream="))
        .collect()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn arguments(daemon: &ServedBy) -> Vec<String> {
    let mut arguments = vec!["serve".to_owned()];
    let paths = [("--config", &daemon.config), ("--store", &daemon.store)];
    for (flag, path) in paths {
        if let Some(path) = path {
            arguments.extend([flag.to_owned(), path.display().to_string()]);
        }
    }
    arguments
}

fn service_unit(daemon: &ServedBy) -> String {
    let mut line = format!(
        "ExecStart={}",
        quoted(&daemon.program.display().to_string())
    );
    for argument in arguments(daemon) {
        line += &format!(" {}", quoted(&argument));
    }
    let mut text = without_comment(SERVICE_UNIT).replace(PROGRAM_LINE, &(line + "\n"));
    if let Some(store) = &daemon.store {
        let store = store.display().to_string().replace('%', "%%");
        let writable = format!("{CACHE_LINE}ReadWritePaths=\"{}\"\n", escaped(&store));
        text = text.replace(CACHE_LINE, &writable);
    }
    text
}

fn socket_unit(daemon: &ServedBy) -> String {
    // The daemon knows the proxy's socket by its address: one unit can give its sockets one name alone.
    let lines = daemon.listen.iter().chain(&daemon.proxy);
    let lines: String = lines.map(|at| format!("ListenStream={at}\n")).collect();
    without_comment(SOCKET_UNIT).replace(ADDRESS_LINE, &lines)
}

/// The unit with one line instead of the comment at its beginning, which tells how to install it by hand.
fn without_comment(unit: &str) -> String {
    let lines = unit.lines().skip_while(|line| line.starts_with('#'));
    let mut text =
        "# Written by `larder service install`; `larder service uninstall` removes it.\n"
            .to_owned();
    for line in lines {
        text += line;
        text.push('\n');
    }
    text
}

/// A word of a command line in a unit: `%` and `$` have a meaning there, spaces end a word (`systemd.service(5)`).
fn quoted(word: &str) -> String {
    let word = word.replace('%', "%%").replace('$', "$$");
    if word
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"\"'\\;".contains(&byte))
    {
        word
    } else {
        format!("\"{}\"", escaped(&word))
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn property_list(daemon: &ServedBy) -> String {
    let mut words = vec![daemon.program.display().to_string()];
    words.extend(arguments(daemon));
    let words: String = words
        .iter()
        .map(|word| format!("    <string>{}</string>\n", for_xml(word)))
        .collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <!-- Written by `larder service install`; `larder service uninstall` removes it. -->\n\
         <plist version=\"1.0\">\n<dict>\n  <key>Label</key>\n  <string>larder</string>\n  \
         <key>ProgramArguments</key>\n  <array>\n{words}  </array>\n  <key>RunAtLoad</key>\n  <true/>\n  \
         <key>KeepAlive</key>\n  <true/>\n  <key>ExitTimeOut</key>\n  <integer>30</integer>\n  \
         <key>ProcessType</key>\n  <string>Background</string>\n</dict>\n</plist>\n"
    )
}

fn for_xml(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon() -> ServedBy {
        ServedBy {
            program: "/home/me/.cargo/bin/larder".into(),
            config: None,
            store: None,
            listen: vec!["127.0.0.1:3263".parse().unwrap()],
            proxy: None,
        }
    }

    #[test]
    fn units_are_those_of_contrib_with_the_lines_of_this_user() {
        let [service, socket] = &*ServiceManager::Systemd.files(&daemon()) else {
            panic!("two files");
        };
        assert!(
            service
                .text
                .contains("\nExecStart=/home/me/.cargo/bin/larder serve\n")
        );
        assert!(!service.text.contains("install -D"), "{}", service.text);
        assert!(service.text.contains("\nType=notify\n"));
        assert_eq!(addresses_of(&socket.text), ["127.0.0.1:3263"]);
        let other = ServedBy {
            program: "/opt/100% larder/$x".into(),
            config: Some("/etc/my larder.toml".into()),
            store: Some("/data/a \"b\"".into()),
            listen: vec!["0.0.0.0:1".parse().unwrap(), "[::1]:2".parse().unwrap()],
            proxy: Some("127.0.0.1:3".parse().unwrap()),
        };
        let [service, socket] = &*ServiceManager::Systemd.files(&other) else {
            panic!("two files");
        };
        let line = "\nExecStart=\"/opt/100%% larder/$$x\" serve --config \"/etc/my larder.toml\" --store \
                    \"/data/a \\\"b\\\"\"\n";
        assert!(service.text.contains(line), "{}", service.text);
        let line = "\nReadWritePaths=\"/data/a \\\"b\\\"\"\n";
        assert!(service.text.contains(line), "{}", service.text);
        assert_eq!(
            addresses_of(&socket.text),
            ["0.0.0.0:1", "[::1]:2", "127.0.0.1:3"]
        );
    }

    #[test]
    fn property_list_has_every_argument_and_no_markup_of_theirs() {
        let daemon = ServedBy {
            store: Some("/data/<a> & b".into()),
            ..daemon()
        };
        let [file] = &*ServiceManager::Launchd(501).files(&daemon) else {
            panic!("one file");
        };
        let arguments = "<string>/home/me/.cargo/bin/larder</string>\n    <string>serve</string>\n    \
                         <string>--store</string>\n    <string>/data/&lt;a&gt; &amp; b</string>\n";
        assert!(file.text.contains(arguments), "{}", file.text);
        assert_eq!(file.text.matches("<key>").count(), 6);
        let folder = Path::new("/Users/me/Library/LaunchAgents");
        let orders = ServiceManager::Launchd(501).start(folder, false);
        assert_eq!(orders[0][..2], ["bootstrap", "gui/501"]);
    }
}
