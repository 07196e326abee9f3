//! A sparse registry of a few crates on loopback, for tests that call larder's library with real cargo. For faults and
//! records of requests use the crate `fake-upstream`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use sha2::{Digest, Sha256};

/// Serves until the test process exits.
pub(crate) struct TinyRegistry {
    bodies: BTreeMap<String, Vec<u8>>,
}

impl TinyRegistry {
    pub(crate) fn new() -> Self {
        Self {
            bodies: BTreeMap::new(),
        }
    }

    /// Adds a version. `deps` are (name, optional target), each with the requirement `1`.
    pub(crate) fn with(mut self, name: &str, version: &str, deps: &[(&str, Option<&str>)]) -> Self {
        let body = crate_file(name, version, deps);
        let checksum: String = Sha256::digest(&body)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let deps: Vec<String> = deps
            .iter()
            .map(|(name, target)| {
                let target = target.map_or("null".to_owned(), |target| format!("\"{target}\""));
                format!(
                    r#"{{"name":"{name}","req":"^1","features":[],"optional":false,"default_features":true,"target":{target},"kind":"normal"}}"#
                )
            })
            .collect();
        let line = format!(
            r#"{{"name":"{name}","vers":"{version}","deps":[{}],"cksum":"{checksum}","features":{{}},"yanked":false}}"#,
            deps.join(",")
        );
        let entry = self
            .bodies
            .entry(format!("/{}/{}/{name}", &name[..2], &name[2..4]))
            .or_default();
        entry.extend_from_slice(line.as_bytes());
        entry.push(b'\n');
        self.bodies.insert(format!("/dl/{name}/{version}"), body);
        self
    }

    /// Starts serving and returns the URL.
    pub(crate) fn start(mut self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let config = format!(r#"{{"dl":"{address}dl/{{crate}}/{{version}}"}}"#);
        self.bodies
            .insert("/config.json".to_owned(), config.into_bytes());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that disconnected is no error.
                let _ = self.answer(stream);
            }
        });
        address
    }

    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let request = lines.next().transpose()?.unwrap_or_default();
        for line in lines {
            if line?.is_empty() {
                break;
            }
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        let (status, body) = match self.bodies.get(path) {
            Some(body) => ("200 OK", body.as_slice()),
            None => ("404 Not Found", &b""[..]),
        };
        let mut stream = stream;
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )?;
        stream.write_all(body)
    }
}

/// A server that accepts connections and never answers.
pub(crate) struct SilentServer {
    listener: TcpListener,
}

impl SilentServer {
    pub(crate) fn new() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("http://{}/", self.listener.local_addr().unwrap())
    }

    /// Waits for a client.
    pub(crate) fn accept(self) -> TcpStream {
        self.listener.accept().unwrap().0
    }
}

/// Waits until the client closes the connection, within the connection's read timeout.
#[track_caller]
pub(crate) fn wait_for_end(mut stream: TcpStream) {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the client is still there: {error}"),
    }
}

fn crate_file(name: &str, version: &str, deps: &[(&str, Option<&str>)]) -> Vec<u8> {
    let mut manifest =
        format!("[package]\nname = '{name}'\nversion = '{version}'\nedition = '2021'\n");
    for (name, target) in deps {
        let table = target.map_or("dependencies".to_owned(), |target| {
            format!("target.'{target}'.dependencies")
        });
        manifest += &format!("[{table}]\n{name} = '1'\n");
    }
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::fast(),
    ));
    for (path, text) in [("Cargo.toml", manifest.as_str()), ("src/lib.rs", "")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive
            .append_data(
                &mut header,
                format!("{name}-{version}/{path}"),
                text.as_bytes(),
            )
            .unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}
