//! A proxy that ends TLS in front of a server, as nginx or Caddy do: it replaces `Host` and says in `X-Forwarded-*`
//! what the client used.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy, split};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::tls::{Identity, acceptor};

/// A running proxy. It ends with the process.
#[derive(Debug)]
pub struct TlsTerminator {
    address: SocketAddr,
    ca_pem: String,
}

impl TlsTerminator {
    /// Starts a proxy for the server at `to`. `client` is the address that it names as its client's.
    ///
    /// # Panics
    /// If no port or thread can be had.
    pub fn start(to: SocketAddr, client: &str) -> Self {
        let identity = Identity {
            http1_only: true,
            ..Identity::default()
        };
        let (acceptor, ca_pem) = acceptor(&identity);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it listens");
        listener.set_nonblocking(true).expect("it is a socket");
        let added = format!(
            "Host: {to}\r\nX-Forwarded-For: {client}\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: localhost:{}\r\n",
            address.port()
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the system has threads");
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("it is a socket");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(pass(stream, acceptor.clone(), to, added.clone()));
                }
            });
        });
        Self { address, ca_pem }
    }

    /// Its address for clients, by name.
    pub fn url(&self) -> String {
        format!("https://localhost:{}/", self.address.port())
    }

    /// The authority of its certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}

/// Passes one connection on. Requests have no body.
async fn pass(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    to: SocketAddr,
    added: String,
) -> std::io::Result<()> {
    let (from_client, mut to_client) = split(acceptor.accept(stream).await?);
    let (mut from_server, mut to_server) = TcpStream::connect(to).await?.into_split();
    let answers = tokio::spawn(async move {
        copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    });
    let mut lines = BufReader::new(from_client);
    let mut line = String::new();
    while lines.read_line(&mut line).await? > 0 {
        let name = line.split(':').next().unwrap_or_default();
        if !name.eq_ignore_ascii_case("host") {
            if line == "\r\n" {
                to_server.write_all(added.as_bytes()).await?;
            }
            to_server.write_all(line.as_bytes()).await?;
        }
        line.clear();
    }
    to_server.shutdown().await?;
    drop(answers.await);
    Ok(())
}
