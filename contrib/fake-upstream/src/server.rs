//! Listens, accepts, closes, reopens, or drops dials. `http1` or `http2` serves each connection.

use std::collections::HashSet;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::state::State;
use crate::wire::{Silence, Wire};
use crate::{http1, http2};

const BACKLOG: u32 = 4096;

/// Time after which a dial counts as unanswered. On loopback a dial is answered at once or not at all.
const FILLER_TIMEOUT: Duration = Duration::from_millis(150);

/// A command from a handle; the sender gets the result.
#[derive(Debug)]
pub(crate) enum Order {
    Stop,
    Restart,
    BlackHole,
    Revive,
    Quit,
}

pub(crate) type Orders = UnboundedReceiver<(Order, std::sync::mpsc::Sender<io::Result<()>>)>;

/// Opens a loopback port; 0 selects a free one. Must be called within a runtime.
pub(crate) fn listen(port: u16) -> io::Result<TcpListener> {
    hold(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?.listen(BACKLOG)
}

/// Binds a port without listening: dials are refused, and no other process gets the port.
fn hold(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Earlier connections may still be closing on this port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

enum Door {
    Open(TcpListener),
    Closed(TcpSocket),
    /// The kernel drops dials while the accept queue is full. The server fills it with dials of its own.
    BlackHole(TcpListener, Vec<TcpStream>),
    /// Reopening failed; the command's result said why.
    Broken,
}

pub(crate) struct Server {
    state: Arc<State>,
    tls: Option<TlsAcceptor>,
    silence: Arc<Silence>,
    address: SocketAddr,
    door: Door,
    connections: JoinSet<()>,
    /// The addresses of the dials that filled the queue; they are no clients.
    fillers: HashSet<SocketAddr>,
}

impl Server {
    pub(crate) fn new(
        state: Arc<State>,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
    ) -> io::Result<Self> {
        Ok(Self {
            state,
            tls,
            silence: Arc::default(),
            address: listener.local_addr()?,
            door: Door::Open(listener),
            connections: JoinSet::new(),
            fillers: HashSet::new(),
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Serves until a command stops it, or until all handles are dropped.
    pub(crate) async fn run(mut self, mut orders: Orders) {
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some((order, done)) = order else { return };
                    let quits = matches!(order, Order::Quit);
                    let result = self.obey(order).await;
                    // The handle may have stopped waiting.
                    let _ = done.send(result);
                    if quits {
                        return;
                    }
                }
                accepted = accept(&self.door) => match accepted {
                    Ok((tcp, peer)) => self.welcome(tcp, peer),
                    // Out of file descriptors: try again when some may be free.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    async fn obey(&mut self, order: Order) -> io::Result<()> {
        match order {
            Order::Stop | Order::Quit => {
                if !matches!(self.door, Door::Closed(_)) {
                    if let Door::Open(listener) | Door::BlackHole(listener, _) = &self.door {
                        // A process that another thread is starting inherits a copy until its exec. A copy that
                        // listens would occupy the port.
                        socket2::SockRef::from(listener).shutdown(std::net::Shutdown::Both)?;
                    }
                    self.door = Door::Broken;
                    self.door = Door::Closed(hold(self.address)?);
                }
                self.silence.set(false);
                self.connections.shutdown().await;
            }
            Order::Restart => {
                self.door = match std::mem::replace(&mut self.door, Door::Broken) {
                    Door::Closed(socket) => Door::Open(socket.listen(BACKLOG)?),
                    Door::Broken => Door::Open(hold(self.address)?.listen(BACKLOG)?),
                    door @ (Door::Open(_) | Door::BlackHole(..)) => door,
                };
            }
            Order::BlackHole => {
                let listener = match std::mem::replace(&mut self.door, Door::Broken) {
                    Door::Open(listener) => listener,
                    door @ Door::BlackHole(..) => {
                        self.door = door;
                        return Ok(());
                    }
                    Door::Closed(socket) => socket.listen(BACKLOG)?,
                    Door::Broken => hold(self.address)?.listen(BACKLOG)?,
                };
                self.silence.set(true);
                let calls = self.fill_queue(&listener).await?;
                self.door = Door::BlackHole(listener, calls);
            }
            Order::Revive => {
                if let Door::BlackHole(..) = self.door
                    && let Door::BlackHole(listener, calls) =
                        std::mem::replace(&mut self.door, Door::Broken)
                {
                    drop(calls);
                    socket2::SockRef::from(&listener).listen(BACKLOG as i32)?;
                    self.door = Door::Open(listener);
                }
                self.silence.set(false);
            }
        }
        Ok(())
    }

    /// Makes the queue as short as possible, and dials until a dial is not answered.
    async fn fill_queue(&mut self, listener: &TcpListener) -> io::Result<Vec<TcpStream>> {
        socket2::SockRef::from(listener).listen(0)?;
        let mut calls = Vec::new();
        for _ in 0..64 {
            let Ok(call) =
                tokio::time::timeout(FILLER_TIMEOUT, TcpStream::connect(self.address)).await
            else {
                return Ok(calls);
            };
            let call = call?;
            self.fillers.insert(call.local_addr()?);
            calls.push(call);
        }
        Err(io::Error::other(
            "this system answers calls beyond the listener's backlog",
        ))
    }

    fn welcome(&mut self, tcp: TcpStream, peer: SocketAddr) {
        if self.fillers.remove(&peer) {
            return;
        }
        let Some(number) = self.state.connected() else {
            return;
        };
        // Without it, small chunks would wait for the client's acknowledgements.
        let _ = tcp.set_nodelay(true);
        let reset_at_end = Arc::new(AtomicBool::new(false));
        let wire = Wire::new(tcp, Arc::clone(&self.silence), Arc::clone(&reset_at_end));
        let (state, tls) = (Arc::clone(&self.state), self.tls.clone());
        self.connections
            .spawn(async move { serve(state, wire, tls, number, &reset_at_end).await });
    }
}

async fn accept(door: &Door) -> io::Result<(TcpStream, SocketAddr)> {
    match door {
        Door::Open(listener) => listener.accept().await,
        Door::Closed(_) | Door::BlackHole(..) | Door::Broken => pending().await,
    }
}

async fn serve(
    state: Arc<State>,
    mut wire: Wire,
    tls: Option<TlsAcceptor>,
    number: u64,
    reset_at_end: &AtomicBool,
) {
    if !state.settings.connect_delay.is_zero() {
        tokio::time::sleep(state.settings.connect_delay).await;
    }
    match tls {
        Some(tls) => {
            // A client that rejects the certificate disconnects here and reports it itself.
            let Ok(stream) = tls.accept(wire).await else {
                return;
            };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                Box::pin(http2::serve(state, stream, number)).await;
            } else {
                Box::pin(http1::serve(&state, stream, number, reset_at_end)).await;
            }
        }
        None => match wire.starts_with_http2().await {
            Ok(true) => Box::pin(http2::serve(state, wire, number)).await,
            Ok(false) => Box::pin(http1::serve(&state, wire, number, reset_at_end)).await,
            Err(_) => {}
        },
    }
}
