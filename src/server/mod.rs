//! The HTTP server: everything between a client's socket and the cache.
//!
//! One request, from accept to the access log:
//!
//! ```text
//!   client
//!     │ TCP
//!   accept        takes a place in connections, spawns a task per connection
//!     │
//!   connection    HTTP/1.1, h2c or HTTP/2; time limits for stalled clients
//!     │ request head (bodies are refused)
//!   handlers ───> guard      method, Host, form of the target      400, 405, 421
//!     │     ───> route      path -> Route                         400, 404
//!     │
//!     ├── a resource ──────> cache::get ──> Answer or Error
//!     ├── config.json ─────> generated for the client's address
//!     ├── rustup-init.sh ──> edited for plain http
//!     ├── / ───────────────> home: a page for browsers
//!     └── /-/… ────────────> status: health, JSON, Prometheus
//!
//!   a request by upstream's address, from the intercepting proxy
//!     └── upstream_address ─> cache::get
//!     │
//!   respond       status, headers; byte ranges and validators from `request`
//!     │
//!   body          streams chunks of 256 kB; a failed body never ends cleanly
//!     │
//!   access_log    one line when the body ends, is aborted or is dropped
//! ```
//!
//! Clients decide by status alone whether they retry, fail or conclude that something does not exist. `respond` is
//! therefore the only place that picks the status of a cache error, and each choice cites the client's code. `guard`
//! and `route` refuse what no valid client sends.
//!
//! | other modules | job |
//! |---|---|
//! | `connections`, `client_limits`, `answer_memory` | limits on what clients take |
//! | `public_address`, `loopback` | the address by which clients reach larder; a server for larder's own cargo |
//! | `status`, `metrics`, `prometheus`, `ready` | the answers below `/-/` |
//! | `home`, `live`, `facts`, `census`, `background` | the data of the start page, its changes, and of the status |
//! | `traffic`, `bursts`, `latency`, `access_log_file` | what is recorded of answers, and written to the logs |
//!
//! On shutdown, the listeners close first. Requests in flight then have eight seconds to finish.

mod accept;
mod access_log;
mod access_log_file;
mod answer_memory;
mod background;
mod body;
mod bursts;
mod census;
mod client_limits;
pub mod connection;
mod connections;
mod facts;
pub mod guard;
mod handlers;
mod home;
mod latency;
mod live;
pub mod loopback;
mod metrics;
mod prometheus;
mod public_address;
mod ready;
mod refusal;
mod request;
mod respond;
pub mod route;
mod status;
mod traffic;
mod upstream_address;

pub use accept::{SHUTDOWN_GRACE, listen, run};
pub use access_log_file::{AccessLogFile, AccessLogFormat, AccessLogOptions};
pub use background::{BackgroundTasks, ProxyStatus};
pub use connection::h2c::H2c;
pub use connections::{ConnectionLimits, Connections};
pub use handlers::Server;
pub use home::Home;
pub use public_address::PublicAddress;
pub use traffic::{ClientAddress, Traffic};
pub use upstream_address::ServedBody;
