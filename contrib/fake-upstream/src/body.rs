//! Sends the steps of a reply's body at their times, on any kind of connection.

use std::time::Duration;

use bytes::Bytes;

use crate::reply::Step;
use crate::state::State;

/// Bytes per chunk. Small, so that connections that share a bandwidth take turns.
const CHUNK_BYTES: usize = 16 * 1024;

/// Interval between the chunks of a slow body, if its speed allows.
const DRIP: Duration = Duration::from_millis(100);

/// The client has disconnected.
#[derive(Debug)]
pub(crate) struct Gone;

/// The receiver of a body.
pub(crate) trait Sink {
    /// Sends a chunk of the body. Resolves when the connection can take another one.
    fn send(&mut self, chunk: Bytes) -> impl Future<Output = Result<(), Gone>> + Send;
}

/// The end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Everything is sent: end the body as its framing says.
    Complete,
    /// Break the connection (or stream).
    Cut,
    /// Keep it open without sending more.
    Silence,
}

/// Sends the steps.
pub(crate) async fn send_steps(
    state: &State,
    connection: u64,
    steps: Vec<Step>,
    sink: &mut (impl Sink + Send),
) -> Result<Ending, Gone> {
    for step in steps {
        match step {
            Step::Data(bytes) => send(state, connection, bytes, sink).await?,
            Step::Drip {
                mut bytes,
                bytes_per_second,
            } => {
                let rate = f64::from(bytes_per_second.max(1));
                let size = ((rate * DRIP.as_secs_f64()) as usize).max(1);
                while !bytes.is_empty() {
                    let chunk = bytes.split_to(size.min(bytes.len()));
                    let takes = Duration::from_secs_f64(chunk.len() as f64 / rate);
                    sink.send(chunk).await?;
                    tokio::time::sleep(takes).await;
                }
            }
            Step::Forever(bytes) => loop {
                send(state, connection, bytes.clone(), sink).await?;
            },
            Step::Silence => return Ok(Ending::Silence),
            Step::Cut => return Ok(Ending::Cut),
        }
    }
    Ok(Ending::Complete)
}

async fn send(
    state: &State,
    connection: u64,
    mut bytes: Bytes,
    sink: &mut impl Sink,
) -> Result<(), Gone> {
    while !bytes.is_empty() {
        let chunk = bytes.split_to(CHUNK_BYTES.min(bytes.len()));
        state.pace(connection, chunk.len()).await;
        sink.send(chunk).await?;
    }
    // An endless body into a fast connection would otherwise never yield.
    tokio::task::yield_now().await;
    Ok(())
}
