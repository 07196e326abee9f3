//! Load generators and meters: clients that request as fast as they can, the server's processor time, and its log.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Seconds per tick in `/proc/PID/stat`. Linux reports hundredths of a second to user space on every machine.
const TICK: f64 = 0.01;

/// Requests per second that wrk measures with one thread and 16 persistent connections.
///
/// # Panics
/// If wrk fails, receives a status other than 2xx or 3xx, or loses a connection.
pub(crate) fn wrk(url: &str, headers: &[(&str, &str)], lasting: Duration) -> f64 {
    let mut command = Command::new("wrk");
    command.args(["-t1", "-c16", "-d", &format!("{}s", lasting.as_secs())]);
    for (name, value) in headers {
        command.args(["-H", &format!("{name}: {value}")]);
    }
    let output = command.arg(url).output().expect("wrk can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && !said.contains("Non-2xx") && !said.contains("Socket errors"),
        "wrk reported errors for {url}:\n{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rate = said
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
    rate.unwrap_or_else(|| panic!("wrk names no rate:\n{said}"))
}

/// Requests per second that h2load measures with one thread, 8 connections, and 20 requests in flight on each. It
/// begins HTTP/2 without an upgrade.
///
/// # Panics
/// If h2load fails, or an answer is no success.
pub(crate) fn h2load(url: &str, lasting: Duration) -> f64 {
    let mut command = Command::new("h2load");
    command.args(["-t1", "-c8", "-m20", "-D", &lasting.as_secs().to_string()]);
    let output = command.arg(url).output().expect("h2load can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    let counts = said.lines().find_map(|line| line.strip_prefix("requests:"));
    let has_failures =
        counts.is_none_or(|counts| !counts.contains(" 0 failed") || !counts.contains(" 0 errored"));
    assert!(
        output.status.success() && !has_failures,
        "h2load reported errors for {url}:\n{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rate = said.lines().find_map(|line| {
        let (_, rate) = line.strip_prefix("finished in ")?.split_once(", ")?;
        rate.split_once(" req/s")?.0.parse().ok()
    });
    rate.unwrap_or_else(|| panic!("h2load names no rate:\n{said}"))
}

/// Runs `clients` clients, each of which downloads the file `times` times. Returns the bytes of all bodies.
///
/// # Panics
/// If a download is not answered with 200, or its body is incomplete.
pub(crate) fn download(base: &str, path: &str, clients: usize, times: usize) -> u64 {
    let address = base.trim_start_matches("http://");
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|_| scope.spawn(|| download_often(address, path, times)))
            .collect();
        let bytes = clients
            .into_iter()
            .map(|client| client.join().expect("a client does not panic"));
        bytes.sum()
    })
}

fn download_often(address: &str, path: &str, times: usize) -> u64 {
    let stream = TcpStream::connect(address).expect("the server accepts connections");
    let mut stream = BufReader::with_capacity(128 << 10, stream);
    let mut bytes = 0;
    for _ in 0..times {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
        let sent = stream.get_mut().write_all(request.as_bytes());
        sent.expect("the server takes requests");
        let mut left = content_length(&mut stream, path);
        bytes += left;
        while left > 0 {
            let ready = stream.fill_buf().expect("the server goes on").len();
            assert!(ready > 0, "{path} broke off with {left} bytes to come");
            let taken = ready.min(usize::try_from(left).unwrap_or(usize::MAX));
            stream.consume(taken);
            left -= taken as u64;
        }
    }
    bytes
}

/// Reads the head of an answer and returns its `Content-Length`.
fn content_length(stream: &mut BufReader<TcpStream>, path: &str) -> u64 {
    let mut length = None;
    let mut line = String::new();
    for number in 0.. {
        line.clear();
        stream.read_line(&mut line).expect("the server answers");
        let line = line.trim_end();
        if number == 0 {
            assert!(line.contains(" 200 "), "{path} was answered: {line}");
        }
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
    length.expect("the answer has a Content-Length")
}

/// Processor seconds that these processes have used so far, in user space and in the kernel, including ended threads.
pub(crate) fn processor_time(processes: &[u32]) -> f64 {
    let ticks = processes.iter().map(|process| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
        let stat = stat.expect("the process runs and this is Linux");
        // The second field is the program's name in brackets and may contain any character.
        let words = stat.rsplit(')').next().unwrap_or_default();
        let words: Vec<_> = words.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<f64>().expect("a count of ticks");
        number(11) + number(12)
    });
    ticks.sum::<f64>() * TICK
}

/// The packages to install if one of these programs, each with its Debian package, is missing.
pub(crate) fn missing_programs(programs: &[(&str, &str)]) -> Option<String> {
    let missing: Vec<_> = programs
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .collect();
    if missing.is_empty() {
        return None;
    }
    let names: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    Some(format!(
        "missing {}: apt-get install {}",
        names.join(" and "),
        packages.join(" ")
    ))
}

/// Finds an installed program. nginx is in a folder that only the superuser's `PATH` contains.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|program| program.is_file())
}

/// Empties a log that a server has open for appending.
pub(crate) fn truncate(log: &Path) {
    let file = std::fs::OpenOptions::new().write(true).open(log);
    file.and_then(|file| file.set_len(0))
        .expect("the log can be emptied");
}

/// The number of lines in a log.
pub(crate) fn lines(log: &Path) -> usize {
    let file = std::fs::File::open(log).expect("there is a log");
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut piece = vec![0; 1 << 20];
    let mut lines = 0;
    loop {
        match file.read(&mut piece).expect("the log can be read") {
            0 => return lines,
            len => lines += piece[..len].iter().filter(|&&byte| byte == b'\n').count(),
        }
    }
}
