//! nginx as a cache in front of an upstream: `proxy_cache` with the settings that its guides recommend, and Debian's
//! log format.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::load;
use crate::process;
use testkit::http::Http;
use testkit::process::{free_address, signal};

/// A running nginx with an empty cache. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Nginx {
    master: Child,
    address: SocketAddr,
    http2_address: SocketAddr,
    folder: TempDir,
}

impl Nginx {
    /// Starts nginx as a cache of this upstream, with the same paths.
    ///
    /// # Panics
    /// If nginx does not start.
    pub(crate) fn before(upstream: &str) -> Self {
        let folder = TempDir::new().expect("the temporary folder is writable");
        let [address, http2_address] = [free_address(), free_address()];
        let settings = folder.path().join("nginx.conf");
        std::fs::write(
            &settings,
            configuration(&folder, address, http2_address, upstream),
        )
        .expect("the temporary folder is writable");
        let master = Command::new(load::find("nginx").expect("nginx is installed"))
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut nginx = Self {
            master: master.expect("nginx can be started"),
            address,
            http2_address,
            folder,
        };
        let log = nginx.folder.path().join("error.log");
        process::wait_until_listening(&mut nginx.master, address, &log);
        nginx
    }

    /// The URL, without a slash at the end.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL where it speaks HTTP/2 alone, without a slash at the end.
    pub(crate) fn http2_url(&self) -> String {
        format!("http://{}", self.http2_address)
    }

    /// An HTTP client of this server.
    pub(crate) fn http(&self) -> Http {
        Http::to(&self.url())
    }

    /// The process ids of the workers.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let master = self.master.id();
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
        let children = children.expect("nginx runs and this is Linux");
        // Other children are short-lived, for example the cache loader.
        let is_worker = |child: &u32| {
            let line = std::fs::read_to_string(format!("/proc/{child}/cmdline"));
            line.is_ok_and(|line| line.contains("worker process"))
        };
        children
            .split_whitespace()
            .filter_map(|child| child.parse().ok())
            .filter(is_worker)
            .collect()
    }

    /// The access log: one line per answer.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A killed master would leave its workers running.
        signal(self.master.id(), "TERM");
        let deadline = Instant::now() + process::START_STOP_TIMEOUT;
        while matches!(self.master.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.master.kill();
        let _ = self.master.wait();
    }
}

fn configuration(
    folder: &TempDir,
    address: SocketAddr,
    http2_address: SocketAddr,
    upstream: &str,
) -> String {
    let folder = folder.path().display();
    // The superuser's nginx would run its workers as the user `nobody`, who cannot read the temporary folder.
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let upstream = upstream.trim_end_matches('/');
    let forward = "proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_cache store; \
                   proxy_cache_valid 200 10m; proxy_cache_lock on; proxy_cache_revalidate on; \
                   proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504;";
    format!(
        "{user}
daemon off;
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 65;
    keepalive_requests 1000000000;
    access_log {folder}/access.log combined;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_cache_path {folder}/cache levels=1:2 keys_zone=store:10m max_size=10g inactive=7d use_temp_path=off;
    server {{
        listen {address};
        listen {http2_address} http2;
        location / {{ proxy_pass {upstream}; {forward} }}
    }}
}}
"
    )
}
