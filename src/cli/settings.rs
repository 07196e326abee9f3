//! The names of all settings, and which of them each command uses.

/// Flags that every command uses; no keys of the settings file.
const COMMON: [&str; 3] = ["config", "quiet", "verbose"];
/// Where upstream is, and which archives it offers.
const UPSTREAM: [&str; 4] = ["index", "dist-server", "update-root", "toolchain-format"];
/// How requests to upstream are made, and what is accepted.
const FETCHING: [&str; 11] = [
    "max-age",
    "ca-file",
    "redirect-host",
    "upstream-timeout",
    "max-entry",
    "max-crate",
    "memory",
    "upstream-connections",
    "upstream-rate",
    "verify-signatures",
    "signing-key",
];
/// The settings that keep versions from clients.
const TRUST: [&str; 4] = ["min-age", "deny", "advisory-db", "allow-advisory"];
/// The daemon's own settings.
const SERVING: [&str; 24] = [
    "log-format",
    "access-log",
    "access-log-format",
    "access-log-size",
    "listen",
    "idle-exit",
    "public-url",
    "trusted-proxy",
    "on-trouble",
    "offline",
    "full-index",
    "allow-host",
    "max-connections",
    "max-connections-per-peer",
    "max-requests",
    "keep-warm",
    "scrub-rate",
    "scrub-interval",
    "max-size",
    "forget-after",
    "intercept",
    "tunnel",
    "intercept-folder",
    "h2c",
];

/// The settings that have a flag, a variable and a key of the settings file, by name.
pub fn all_settings() -> Vec<&'static str> {
    [
        &["store", "jobs"][..],
        &UPSTREAM,
        &FETCHING,
        &TRUST,
        &SERVING,
    ]
    .concat()
}

/// The settings that a command uses, by name. Those of `client` are those of the commands below it.
pub fn settings_of(command: &str) -> Vec<&'static str> {
    let own: &[&'static [&'static str]] = match command {
        "serve" => &[
            &COMMON,
            &UPSTREAM,
            &FETCHING,
            &TRUST,
            &SERVING,
            &["store", "registry"],
        ],
        "run" => &[
            &COMMON,
            &UPSTREAM,
            &FETCHING,
            &TRUST,
            &[
                "store",
                "registry",
                "listen",
                "offline",
                "full-index",
                "max-size",
                "forget-after",
            ],
        ],
        "warm" => &[
            &COMMON,
            &UPSTREAM,
            &FETCHING,
            &TRUST,
            &["json", "store", "registry", "jobs", "warm"],
        ],
        "check" => &[
            &COMMON,
            &UPSTREAM,
            &TRUST,
            &["json", "store", "registry", "warm"],
        ],
        "verify" => &[
            &COMMON,
            &UPSTREAM,
            &FETCHING,
            &["json", "store", "registry"],
        ],
        "gc" => &[
            &COMMON,
            &UPSTREAM,
            &["json", "store", "registry", "max-size", "forget-after"],
        ],
        "forget" | "import" => &[&COMMON, &UPSTREAM, &["json", "store", "registry"]],
        // They judge as `check` does.
        "list" => &[&COMMON, &UPSTREAM, &TRUST, &["json", "store", "registry"]],
        "client" | "print" | "apply" | "undo" | "doctor" => &[
            &COMMON,
            &["json", "store", "registry", "listen", "public-url"],
        ],
        "service" => &[&COMMON, &["json", "store", "listen", "intercept"]],
        "status" => &[
            &COMMON,
            &UPSTREAM,
            &TRUST,
            &[
                "json",
                "store",
                "registry",
                "listen",
                "max-size",
                "forget-after",
            ],
        ],
        "advisories" => &[&COMMON, &["json", "store", "advisory-db"]],
        "larder" => &[&COMMON, &["json", "store"]],
        _ => &[],
    };
    own.concat()
}
