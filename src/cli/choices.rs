//! Flags of `serve` that choose among a few values.

use clap::ValueEnum;

/// Formats for `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormatName {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

/// Formats for `--access-log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessLogFormatName {
    /// That of web servers
    Combined,
    /// One JSON object a line, with outcome and duration
    Json,
}

/// Listeners for `--h2c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum H2cListeners {
    /// Loopback addresses only
    Loopback,
    /// All addresses
    On,
    /// No address
    Off,
}

/// Answers for `--on-trouble`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnTrouble {
    /// An error that names the trouble
    Error,
    /// A redirect to upstream's own address, which the client must reach itself
    Redirect,
}
