//! A server on a free loopback port, for a cargo that larder itself runs.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    BackgroundTasks, ConnectionLimits, Connections, H2c, PublicAddress, Server, Traffic,
    guard::Hosts, listen, run,
};
use crate::{cache::Cache, resource::Upstreams};

/// A running server. Dropping it without [`LoopbackServer::stop`] stops it as well, without waiting for its end.
#[derive(Debug)]
pub struct LoopbackServer {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl LoopbackServer {
    /// Starts a server of `upstreams`.
    ///
    /// # Errors
    /// If no port can be opened.
    pub fn start(cache: Cache, upstreams: Upstreams) -> io::Result<Self> {
        let listener = listen(([127, 0, 0, 1], 0).into())?;
        let address = listener.local_addr()?;
        let server = Server {
            cache,
            upstreams,
            hosts: Hosts::new(&[address], &[]),
            public: PublicAddress::default(),
            redirects_on_trouble: false,
            connections: Arc::new(Connections::new(ConnectionLimits::default())),
            h2c: H2c::On,
            tasks: BackgroundTasks::default(),
            home: None,
            traffic: Arc::new(Traffic::of_own_cargo()),
        };
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(run(vec![listener], Arc::new(server), async {
            let _ = stopped.await;
        }));
        Ok(Self {
            address,
            stop,
            serving,
        })
    }

    /// The address of the registry, as `http://127.0.0.1:PORT/`.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Stops the server and waits for requests under way.
    pub async fn stop(self) {
        drop(self.stop);
        let _ = self.serving.await;
    }
}
