//! Plays the steps of a reply's body in time, on any kind of connection.

use std::time::Duration;

use bytes::Bytes;

use crate::reply::Step;
use crate::state::State;

/// Small enough that connections which share a bandwidth take turns.
const PIECE: usize = 16 * 1024;

/// How often a dripped body moves, where its speed allows.
const DRIP: Duration = Duration::from_millis(100);

/// The client is no longer there.
#[derive(Debug)]
pub(crate) struct Gone;

/// Where a body goes.
pub(crate) trait Sink {
    /// Sends a piece of the body; done when the connection can take another one.
    fn send(&mut self, piece: Bytes) -> impl Future<Output = Result<(), Gone>> + Send;
}

/// How the steps ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All is sent: end the body as its framing says.
    Complete,
    /// Break the connection (or stream) off.
    Cut,
    /// Keep it open and say no more.
    Silence,
}

/// Sends what the steps say.
pub(crate) async fn play(
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
                    let piece = bytes.split_to(size.min(bytes.len()));
                    let takes = Duration::from_secs_f64(piece.len() as f64 / rate);
                    sink.send(piece).await?;
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
        let piece = bytes.split_to(PIECE.min(bytes.len()));
        state.pace(connection, piece.len()).await;
        sink.send(piece).await?;
    }
    // An endless body into a fast connection would otherwise never let anybody else run.
    tokio::task::yield_now().await;
    Ok(())
}
