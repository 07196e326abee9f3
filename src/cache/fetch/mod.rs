//! Downloads: from a decided request to a verified body.
//!
//! ```text
//!   entry    small bodies, in memory        blob     large bodies, through a spool that clients read meanwhile
//!     │ attempts, stale copies                │ attempts, resuming
//!     v                                       v
//!   request  one conditional GET            transfer ── ranges: parallel downloads of parts of a large body
//!     │ or measure: the body becomes a blob   │
//!     └───────────────> decode <──────────────┘  undoes gzip
//! ```
//!
//! A fetch runs in the task of its flight ([`super::flight`]), detached from the clients that wait for it. Each attempt
//! is one request with its own time limits. After a failure, [`super::decide::settle`] says what it means, and
//! [`crate::upstream::retry_delay`] whether to try again.
//!
//! Nothing leaves a fetch unverified. A blob has to match its hash; an entry has to be recognised by its kind, and a
//! manifest has to match its sidecar. The exception are files of which upstream publishes no hash ([`measure`]).

pub(super) mod blob;
mod decode;
pub(super) mod entry;
mod entry_body;
mod measure;
mod ranges;
mod recall;
pub(super) mod request;
mod retry;
mod transfer;
