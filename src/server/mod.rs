//! The daemon's face: accepts connections, asks the cache, drains on shutdown. Kinds and policies are the resources'
//! business, statuses are `respond`'s, the connection's protocols `connection`'s.

mod accept;
mod access_log;
mod body;
pub mod connection;
pub mod guard;
mod handlers;
pub mod loopback;
mod metrics;
mod request;
mod respond;
pub mod route;
mod status;

pub use accept::{listen, run};
pub use connection::h2c::H2c;
pub use handlers::Server;
