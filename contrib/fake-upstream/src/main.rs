//! Runs a fake upstream by hand, with the packages of a lock file, a round-trip time and a bandwidth, until it is
//! killed.
//!
//! This file only parses arguments; the library does the rest.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use fake_upstream::{FakeUpstream, from_lock};

const USAGE: &str = "\
usage: fake-upstream [OPTION..]
  --from-lock FILE       serve a registry shaped like this Cargo.lock
  --project-out DIR      write a project there that locks what is served
  --delay-ms N           round trip added to every answer
  --connect-delay-ms N   time added to every connection (default: one round trip, with --tls two)
  --bandwidth N          body bytes per second of all connections together
  --max-age N            Cache-Control of the index, in seconds
  --no-validators        no ETag, no 304
  --tls                  https with HTTP/2
  --ca-out FILE          write the authority to trust there
  --port N               port on 127.0.0.1 (default: a free one)
The URL of the index is printed after `listening on `.
";

#[derive(Default)]
struct Options {
    from_lock: Option<PathBuf>,
    project_out: Option<PathBuf>,
    delay: u64,
    connect_delay: Option<u64>,
    bandwidth: Option<u64>,
    max_age: Option<u32>,
    no_validators: bool,
    tls: bool,
    ca_out: Option<PathBuf>,
    port: u16,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = match parse(&arguments) {
        Ok(options) => options,
        Err(error) => {
            let _ = write!(std::io::stderr(), "{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(upstream) => loop {
            std::thread::park();
            // `park` may return spuriously; the server must go on.
            let _ = &upstream;
        },
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut arguments = arguments.iter();
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--from-lock" => options.from_lock = Some(value()?.into()),
            "--project-out" => options.project_out = Some(value()?.into()),
            "--delay-ms" => options.delay = number(name, value()?)?,
            "--connect-delay-ms" => options.connect_delay = Some(number(name, value()?)?),
            "--bandwidth" => options.bandwidth = Some(number(name, value()?)?),
            "--max-age" => options.max_age = Some(number(name, value()?)?),
            "--no-validators" => options.no_validators = true,
            "--tls" => options.tls = true,
            "--ca-out" => options.ca_out = Some(value()?.into()),
            "--port" => options.port = number(name, value()?)?,
            _ => return Err(format!("unknown option {name}")),
        }
    }
    Ok(options)
}

fn number<N: std::str::FromStr>(name: &str, text: &str) -> Result<N, String> {
    text.parse()
        .map_err(|_| format!("{name} needs a number, not `{text}`"))
}

fn run(options: &Options) -> Result<FakeUpstream, String> {
    let round_trips = if options.tls { 2 } else { 1 };
    let connect_delay = options.connect_delay.unwrap_or(options.delay * round_trips);
    let mut builder = FakeUpstream::builder()
        .delay(Duration::from_millis(options.delay))
        .connect_delay(Duration::from_millis(connect_delay))
        .validators(!options.no_validators)
        .max_age(options.max_age)
        .port(options.port);
    if let Some(bytes_per_second) = options.bandwidth {
        builder = builder.bandwidth(bytes_per_second);
    }
    if options.tls {
        builder = builder.tls();
    }
    let upstream = builder.start();
    if let Some(path) = &options.ca_out {
        std::fs::write(path, upstream.ca_pem()).map_err(|error| {
            format!("cannot write the authority to {}: {error}", path.display())
        })?;
    }
    if let Some(path) = &options.from_lock {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read the lock file {}: {error}", path.display()))?;
        let project = from_lock(&text, &upstream);
        if let Some(folder) = &options.project_out {
            project.write(folder).map_err(|error| {
                format!("cannot write the project to {}: {error}", folder.display())
            })?;
        }
    }
    writeln!(std::io::stdout(), "listening on {}", upstream.url())
        .map_err(|error| format!("cannot say the address: {error}"))?;
    Ok(upstream)
}
