//! A small HTTP client over raw sockets. It reports whether a body ended as its framing announced, and can send any
//! bytes.
//!
//! The client is blocking, because the servers under test run in other processes or threads.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

/// Read timeout. Longer than any expected answer takes; a test of a silent server sets a shorter one.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The answer to one request.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
    /// The bytes received, with their content encoding.
    pub body: Vec<u8>,
    /// True if the body ended as its framing announced. A body that ends with the connection is complete, unless the
    /// connection was reset.
    pub complete: bool,
    /// Time from the request to the first byte of the body, or to the end of the head if the body is empty.
    pub first_byte: Duration,
}

impl Reply {
    /// The first header of this name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text; bytes that are not UTF-8 become replacement characters.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A client of one plain-http server.
#[derive(Clone, Debug)]
pub struct Http {
    address: SocketAddr,
    timeout: Duration,
}

impl Http {
    /// For the server of a URL like `http://127.0.0.1:PORT/..`; its path is ignored.
    #[track_caller]
    pub fn to(url: &str) -> Self {
        let rest = url.strip_prefix("http://").expect("the URL is plain http");
        let authority = rest.split('/').next().unwrap_or(rest);
        Self {
            address: authority
                .parse()
                .expect("the URL names a loopback address and port"),
            timeout: READ_TIMEOUT,
        }
    }

    /// The same client with this read timeout.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The server's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// One GET on a new connection.
    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        self.get_with(path, &[])
    }

    /// [`Http::get`] with more headers.
    #[track_caller]
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.try_get(path, headers)
            .unwrap_or_else(|error| panic!("no answer to GET {path}: {error}"))
    }

    /// [`Http::get_with`] that returns an error if the connection ends before the head does.
    pub fn try_get(&self, path: &str, headers: &[(&str, &str)]) -> io::Result<Reply> {
        self.connect()?.get(path, headers)
    }

    /// A connection for several consecutive requests.
    pub fn connect(&self) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&self.address, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream: BufReader::with_capacity(64 << 10, stream),
            host: self.address.to_string(),
            has_body: true,
        })
    }

    /// Sends these bytes and returns all received bytes until the server closes, resets or times out.
    #[track_caller]
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut connection = self.connect().expect("the server accepts connections");
        let stream = connection.stream.get_mut();
        // A server may answer and close before it has read everything.
        let _ = stream.write_all(bytes);
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received);
        received
    }

    /// One request of any method. A `host` header replaces the default one.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let asked = self.connect().and_then(|mut connection| {
            connection.send(method, path, headers)?;
            connection.receive()
        });
        asked.unwrap_or_else(|error| panic!("no answer to {method} {path}: {error}"))
    }

    /// A POST of JSON.
    #[track_caller]
    pub fn post(&self, path: &str, json: &str) -> Reply {
        let asked = self.connect().and_then(|mut connection| {
            let length = json.len().to_string();
            let headers = [
                ("content-type", "application/json"),
                ("content-length", &length),
            ];
            connection.send("POST", path, &headers)?;
            connection.stream.get_mut().write_all(json.as_bytes())?;
            connection.receive()
        });
        asked.unwrap_or_else(|error| panic!("no answer to POST {path}: {error}"))
    }

    /// `count` GETs at the same moment, each on a connection of its own that was opened before.
    #[track_caller]
    pub fn get_at_once(&self, count: usize, path: &str) -> Vec<Reply> {
        let barrier = Arc::new(Barrier::new(count));
        let clients: Vec<_> = (0..count)
            .map(|_| {
                let (http, barrier, path) = (self.clone(), Arc::clone(&barrier), path.to_owned());
                std::thread::spawn(move || {
                    let connection = http.connect();
                    barrier.wait();
                    connection?.get(&path, &[])
                })
            })
            .collect();
        let replies = clients
            .into_iter()
            .map(|client| client.join().expect("a client does not panic"));
        replies
            .collect::<io::Result<_>>()
            .unwrap_or_else(|error| panic!("no answer to one of {count} GET {path}: {error}"))
    }

    /// Requests all paths at once on one HTTP/2 connection with prior knowledge. Replies are in the order of the paths.
    #[track_caller]
    pub fn get_h2(&self, paths: &[&str]) -> Vec<io::Result<Reply>> {
        self.try_get_h2(paths)
            .expect("the server accepts connections and speaks HTTP/2")
    }

    /// [`Http::get_h2`] that returns an error if there is no connection.
    pub fn try_get_h2(&self, paths: &[&str]) -> io::Result<Vec<io::Result<Reply>>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(self.address).await?;
            try_get_h2_on(stream, &self.address.to_string(), paths).await
        })
    }
}

/// An open HTTP/1.1 connection.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
    /// True if the answer to the last request may have a body.
    has_body: bool,
}

impl Connection {
    /// Sends a GET and reads its answer.
    pub fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> io::Result<Reply> {
        self.send("GET", path, headers)?;
        self.receive()
    }

    /// Sends a request without waiting for its answer. Adds `host` unless the headers contain it.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> io::Result<()> {
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            request.push_str(&format!("host: {}\r\n", self.host));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        self.has_body = method != "HEAD";
        self.stream.get_mut().write_all(request.as_bytes())
    }

    /// Blocks until the answer begins to arrive, and reads nothing of it.
    pub fn wait_for_answer(&mut self) -> io::Result<()> {
        self.stream.fill_buf().map(drop)
    }

    /// Reads the answer to the last request.
    pub fn receive(&mut self) -> io::Result<Reply> {
        let mut body = Vec::new();
        let mut reply = self.receive_chunks(&mut |chunk| body.extend_from_slice(chunk))?;
        reply.body = body;
        Ok(reply)
    }

    /// [`Connection::receive`] for a body too large for memory: `each` gets its chunks as they arrive, and the reply's
    /// body stays empty.
    pub fn receive_chunks(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<Reply> {
        let asked = Instant::now();
        let status_line = self.line()?;
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status =
            status.ok_or_else(|| io::Error::other(format!("`{status_line}` is no status line")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = Reply {
            status,
            headers,
            body: Vec::new(),
            complete: false,
            first_byte: asked.elapsed(),
        };
        if !self.has_body || matches!(status, 100..=199 | 204 | 304) {
            reply.complete = true;
            return Ok(reply);
        }
        // A body that ends early is not an error here: the caller checks `complete`.
        let mut first_byte = None;
        let mut timed = |chunk: &[u8]| {
            first_byte.get_or_insert_with(|| asked.elapsed());
            each(chunk);
        };
        reply.complete = self.read_body(&reply, &mut timed).unwrap_or(false);
        reply.first_byte = first_byte.unwrap_or(reply.first_byte);
        Ok(reply)
    }

    fn read_body(&mut self, reply: &Reply, each: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        if reply
            .header("transfer-encoding")
            .is_some_and(|coding| coding.contains("chunked"))
        {
            loop {
                let line = self.line()?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
                if size == 0 {
                    // No server under test sends trailers, so an empty line ends the body.
                    return Ok(self.line()?.is_empty());
                }
                if !self.take(size, each)? || !self.line()?.is_empty() {
                    return Ok(false);
                }
            }
        }
        let length = reply.header("content-length").map(str::parse);
        match length {
            Some(length) => {
                let length = length.map_err(io::Error::other)?;
                self.take(length, each)
            }
            None => {
                self.take(u64::MAX, each)?;
                Ok(true)
            }
        }
    }

    /// Passes `count` bytes to `each`. Returns false if the connection ends before.
    fn take(&mut self, mut count: u64, each: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        while count > 0 {
            let ready = self.stream.fill_buf()?;
            if ready.is_empty() {
                return Ok(false);
            }
            let taken = ready
                .len()
                .min(usize::try_from(count).unwrap_or(usize::MAX));
            each(&ready[..taken]);
            self.stream.consume(taken);
            count -= taken as u64;
        }
        Ok(true)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 || !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

/// [`Http::get_h2`] on an open stream, with or without TLS.
///
/// A stream that is reset before its head is an error of that reply. A stream that is reset later gives an incomplete
/// body.
pub async fn get_h2_on<S>(stream: S, authority: &str, paths: &[&str]) -> Vec<io::Result<Reply>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    try_get_h2_on(stream, authority, paths)
        .await
        .expect("the server speaks HTTP/2")
}

/// [`get_h2_on`] that returns an error if the connection ends before the first request.
async fn try_get_h2_on<S>(
    stream: S,
    authority: &str,
    paths: &[&str],
) -> io::Result<Vec<io::Result<Reply>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .handshake::<_, bytes::Bytes>(stream)
        .await
        .map_err(io::Error::other)?;
    let driver = tokio::spawn(connection);
    let mut client = client.ready().await.map_err(io::Error::other)?;
    let mut responses = Vec::new();
    for path in paths {
        let request = http::Request::get(format!("http://{authority}{path}"))
            .body(())
            .expect("the path is one");
        let asked = Instant::now();
        let response = client
            .send_request(request, true)
            .map(|(response, _)| response);
        responses.push(tokio::spawn(async move {
            let response = response
                .map_err(io::Error::other)?
                .await
                .map_err(io::Error::other)?;
            let (head, mut stream) = response.into_parts();
            let headers = head.headers.iter().map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                (name.as_str().to_owned(), value)
            });
            let mut reply = Reply {
                status: head.status.as_u16(),
                headers: headers.collect(),
                body: Vec::new(),
                complete: true,
                first_byte: asked.elapsed(),
            };
            while let Some(chunk) = stream.data().await {
                let Ok(chunk) = chunk else {
                    reply.complete = false;
                    break;
                };
                if reply.body.is_empty() {
                    reply.first_byte = asked.elapsed();
                }
                // Fails only if the stream has ended, which the next read reports.
                let _ = stream.flow_control().release_capacity(chunk.len());
                reply.body.extend_from_slice(&chunk);
            }
            Ok(reply)
        }));
        client = match client.ready().await {
            Ok(client) => client,
            Err(_) => break,
        };
    }
    let mut replies = Vec::new();
    for response in responses {
        let reply = tokio::time::timeout(READ_TIMEOUT, response).await;
        replies.push(match reply {
            Ok(reply) => reply.expect("a client does not panic"),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        });
    }
    while replies.len() < paths.len() {
        replies.push(Err(io::ErrorKind::ConnectionAborted.into()));
    }
    driver.abort();
    Ok(replies)
}
