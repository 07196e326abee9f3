//! Sends parts of open files to a client without reading them (`sendfile`), below an HTTP that only knows bytes. Which
//! parts, and whether a client gets them so at all, is for the answers' bodies to decide.
//!
//! ```text
//!  body -- file, offset, length --> Loans: a queue --------------+
//!    |                                                           v
//!    +---- a stand-in: as many bytes, never read --> hyper --> Lending --> sendfile
//! ```
//!
//! A body that lends a part of a file hands to hyper, in place of its bytes, as many bytes of a region that is used
//! for nothing else. hyper queues bodies without copying and gives them to the connection as it got them, so that
//! address and length tell which loan they stand for. Should that ever not be so, a client would get the region's bytes
//! for the file's. Therefore every write must show exactly the loans that are open, each once and in their order, and
//! nothing may come between the parts of one; else the connection fails without sending another byte.
//!
//! A client gets what the file holds when the kernel sends it: only files that nobody writes to any more may be lent.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, IoSlice},
    os::unix::fs::FileExt as _,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};
use tracing::warn;

/// The largest part that can be lent at once, in bytes. Larger ones are sent no faster, and other connections of the same
/// thread wait meanwhile.
pub(super) const LARGEST: usize = 256 << 10;
/// Loans in a row begin at so many different addresses, so that none is taken for the one before it.
const STEPS: usize = 64;

/// The region of the stand-ins. Nobody reads or writes it, so it takes addresses and no memory.
fn region() -> &'static [u8] {
    static REGION: OnceLock<Vec<u8>> = OnceLock::new();
    REGION.get_or_init(|| vec![0; LARGEST + STEPS])
}

fn is_stand_in(slice: &[u8]) -> bool {
    region().as_ptr_range().contains(&slice.as_ptr())
}

/// What is lent to one connection and not sent yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Loans(Arc<Mutex<Ledger>>);

#[derive(Debug, Default)]
struct Ledger {
    open: VecDeque<Loan>,
    /// How many there were so far.
    count: usize,
}

/// A part of a file that is to be sent, or the rest of one.
#[derive(Debug)]
struct Loan {
    file: Arc<File>,
    at: u64,
    /// The bytes that hyper has in place of it.
    stand_in: &'static [u8],
    is_begun: bool,
}

impl Loans {
    /// Lends the `len` bytes of `file` that begin at `at`, at most [`LARGEST`]. What comes back is to be sent in their place
    /// over the same connection, once and before anything that is lent later.
    pub(super) fn lend(&self, file: Arc<File>, at: u64, len: usize) -> Bytes {
        let mut ledger = self.lock();
        let from = ledger.count % STEPS;
        let stand_in = &region()[from..from + len.min(LARGEST)];
        ledger.count += 1;
        ledger.open.push_back(Loan {
            file,
            at,
            stand_in,
            is_begun: false,
        });
        Bytes::from_static(stand_in)
    }

    /// Never held across an await.
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a write begins with.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// So many slices that are bytes as they are.
    Bytes(usize),
    /// The first open loan.
    Loan,
}

impl Ledger {
    /// What a write of `slices` begins with.
    ///
    /// # Errors
    /// If they don't show the open loans, each once and in order, or something is to come between the parts of one.
    fn next(&self, slices: &[IoSlice<'_>]) -> io::Result<Next> {
        let first = slices.iter().position(|slice| is_stand_in(slice));
        let stand_ins = slices.iter().filter(|slice| is_stand_in(slice));
        let are_shown = stand_ins
            .map(|slice| (slice.as_ptr(), slice.len()))
            .eq(self.open.iter().map(Loan::place));
        if !are_shown {
            return Err(fail("what is lent is not what is to be sent"));
        }
        match first {
            Some(0) => Ok(Next::Loan),
            Some(_) if self.open.front().is_some_and(|loan| loan.is_begun) => {
                Err(fail("something is to be sent between the parts of a loan"))
            }
            Some(before) => Ok(Next::Bytes(before)),
            None => Ok(Next::Bytes(slices.len())),
        }
    }

    /// Notes that the first open loan's next `size` bytes were sent.
    fn sent(&mut self, size: usize) {
        if let Some(loan) = self.open.front_mut() {
            loan.at += size as u64;
            loan.stand_in = &loan.stand_in[size.min(loan.stand_in.len())..];
            loan.is_begun = true;
            if loan.stand_in.is_empty() {
                self.open.pop_front();
            }
        }
    }
}

impl Loan {
    fn place(&self) -> (*const u8, usize) {
        (self.stand_in.as_ptr(), self.stand_in.len())
    }
}

/// A connection that sends what is lent to it in place of the stand-ins.
#[derive(Debug)]
pub(super) struct Lending {
    stream: TcpStream,
    loans: Loans,
}

impl Lending {
    /// Makes a connection that can be lent to, and the queue for it.
    pub(super) fn new(stream: TcpStream) -> (Self, Loans) {
        let loans = Loans::default();
        let lending = Self {
            stream,
            loans: loans.clone(),
        };
        (lending, loans)
    }

    /// Sends as much of the first open loan as the client has room for.
    fn poll_loan(&self, cx: &mut Context<'_>, ledger: &mut Ledger) -> Poll<io::Result<usize>> {
        let Some(loan) = ledger.open.front() else {
            return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
        };
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let send = || send_file(&self.stream, &loan.file, loan.at, loan.stand_in.len());
            match self.stream.try_io(Interest::WRITABLE, send) {
                // The client was promised more.
                Ok(0) => return Poll::Ready(Err(fail("somebody has cut the file"))),
                Ok(size) => {
                    ledger.sent(size);
                    return Poll::Ready(Ok(size));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// A reason why a connection cannot go on, which is not the client's doing.
fn fail(why: &'static str) -> io::Error {
    warn!(why, "cannot send what was lent to a connection");
    io::Error::other(why)
}

/// Sends some of `len` bytes of a file; how many.
#[cfg(target_os = "linux")]
fn send_file(stream: &TcpStream, file: &File, at: u64, len: usize) -> io::Result<usize> {
    use rustix::{fs::sendfile, io::Errno};
    match rustix::io::retry_on_intr(|| sendfile(stream, file, Some(&mut { at }), len)) {
        // The file system cannot do it, or a sandbox forbids it.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {
            copy(stream, file, at, len)
        }
        sent => Ok(sent?),
    }
}

#[cfg(not(target_os = "linux"))]
use copy as send_file;

/// [`send_file`] by reading and writing.
fn copy(stream: &TcpStream, file: &File, at: u64, len: usize) -> io::Result<usize> {
    let mut part = vec![0; len.min(64 << 10)];
    let size = file.read_at(&mut part, at)?;
    Ok(rustix::io::retry_on_intr(|| {
        rustix::io::write(stream, &part[..size])
    })?)
}

impl AsyncRead for Lending {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Lending {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut ledger = this.loans.lock();
        match ledger.next(bufs)? {
            Next::Bytes(count) => {
                Pin::new(&mut this.stream).poll_write_vectored(cx, &bufs[..count])
            }
            Next::Loan => this.poll_loan(cx, &mut ledger),
        }
    }

    /// Else hyper would copy bodies, stand-ins as well.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::poll_fn, io::Write as _, time::Duration};

    use bytes::Buf as _;
    use futures_util::stream;
    use http_body_util::StreamBody;
    use hyper::{
        Response,
        body::{Body, Frame, SizeHint},
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        sync::watch,
    };

    use super::*;
    use crate::server::connection::{ConnectionError, Limits, serve};

    /// A file of these many bytes, of which no two kilobytes are alike, and what is in it.
    fn file(size: usize) -> (Arc<File>, Vec<u8>) {
        let body: Vec<u8> = (0..size)
            .map(|at| ((at % 251) ^ (at / 1009)) as u8)
            .collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&body).unwrap();
        (Arc::new(file), body)
    }

    /// A connection that can be lent to, and its client.
    async fn connected() -> (Lending, Loans, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let client = client.await.unwrap();
        let (lending, loans) = Lending::new(listener.accept().await.unwrap().0);
        (lending, loans, client)
    }

    /// Writes as hyper does: always all that is queued. How often it had to wait.
    async fn write_all(lending: &mut Lending, mut queue: VecDeque<Bytes>) -> io::Result<usize> {
        let mut waits = 0;
        while !queue.is_empty() {
            let mut size = poll_fn(|cx| {
                let slices: Vec<_> = queue.iter().map(|bytes| IoSlice::new(bytes)).collect();
                let written = Pin::new(&mut *lending).poll_write_vectored(cx, &slices);
                waits += usize::from(written.is_pending());
                written
            })
            .await?;
            while let Some(first) = queue.front_mut() {
                let taken = size.min(first.len());
                first.advance(taken);
                size -= taken;
                if !first.is_empty() {
                    break;
                }
                queue.pop_front();
            }
        }
        Ok(waits)
    }

    #[tokio::test]
    async fn parts_and_bytes_arrive_in_their_order_however_little_the_client_has_room_for() {
        let (mut lending, loans, mut client) = connected().await;
        let (file, body) = file(2 * LARGEST);
        let mut queue = VecDeque::new();
        let mut expected = Vec::new();
        for number in 0..60 {
            let (at, len) = (number * 4001, LARGEST - number * 3001);
            let head = format!("part {number}\n");
            expected.extend_from_slice(head.as_bytes());
            expected.extend_from_slice(&body[at..at + len]);
            queue.push_back(Bytes::from(head));
            queue.push_back(loans.lend(file.clone(), at as u64, len));
        }
        let write = async {
            let waits = write_all(&mut lending, queue).await;
            drop(lending);
            waits
        };
        let mut received = Vec::new();
        let (waits, read) = tokio::join!(write, client.read_to_end(&mut received));
        read.unwrap();
        assert!(received == expected, "{} bytes", received.len());
        assert!(waits.unwrap() > 0);
        assert_eq!(loans.lock().open.len(), 0);
    }

    #[test]
    fn a_write_that_does_not_show_what_is_lent_is_refused() {
        let loans = Loans::default();
        let (file, _) = file(10);
        let [a, b] = [(); 2].map(|()| loans.lend(file.clone(), 0, 1000));
        let text = Bytes::from_static(b"text");
        let copied = [&a, &b].map(|bytes| bytes.to_vec());
        let check = |case: &str, queue: &[&[u8]], expected: Option<Next>| {
            let slices: Vec<_> = queue.iter().map(|bytes| IoSlice::new(bytes)).collect();
            assert_eq!(loans.lock().next(&slices).ok(), expected, "{case}");
        };
        check("next", &[&a, &b], Some(Next::Loan));
        check("bytes first", &[&text, &a, &b], Some(Next::Bytes(1)));
        check("bytes between", &[&a, &text, &b], Some(Next::Loan));
        check("bytes only", &[&text, &text], None);
        check("nothing", &[], None);
        check("the last is missing", &[&a], None);
        check("the first is missing", &[&b], None);
        check("another order", &[&b, &a], None);
        check("twice", &[&a, &a, &b], None);
        check("too short", &[&a[..999], &b], None);
        check("in parts", &[&a[..500], &a[500..], &b], None);
        check("copied", &[&copied[0], &copied[1]], None);
        check("begun too early", &[&a[1..], &b], None);

        loans.lock().sent(10);
        check("the rest", &[&a[10..], &b], Some(Next::Loan));
        check("from the beginning again", &[&a, &b], None);
        check("bytes before the rest", &[&text, &a[10..], &b], None);

        loans.lock().sent(990);
        check("the second", &[&text, &b], Some(Next::Bytes(1)));
        loans.lock().sent(1000);
        check("none left", &[&text, &text], Some(Next::Bytes(2)));
        check("none left, but a stand-in", &[&text, &b], None);
    }

    #[tokio::test]
    async fn nothing_is_sent_of_what_was_copied() {
        let (mut lending, loans, mut client) = connected().await;
        let (file, _) = file(1000);
        let mut copied = b"head".to_vec();
        copied.extend_from_slice(&loans.lend(file, 0, 1000));
        lending.write(&copied).await.unwrap_err();
        drop(lending);
        assert_eq!(client.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_file_that_was_cut_ends_the_connection_where_it_ends() {
        let (mut lending, loans, mut client) = connected().await;
        let (file, body) = file(1000);
        let queue = [loans.lend(file, 300, 1000)].into();
        let error = write_all(&mut lending, queue).await.unwrap_err();
        assert!(error.to_string().contains("cut"), "{error}");
        drop(lending);
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, body[300..]);
    }

    #[tokio::test]
    async fn where_the_kernel_does_not_send_files_they_are_copied() {
        let (lending, _loans, mut client) = connected().await;
        let (file, body) = file(1000);
        assert_eq!(copy(&lending.stream, &file, 300, 400).unwrap(), 400);
        assert_eq!(copy(&lending.stream, &file, 700, 1000).unwrap(), 300);
        assert_eq!(copy(&lending.stream, &file, 1000, 1000).unwrap(), 0);
        drop(lending);
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, body[300..]);
    }

    /// A body of a known size.
    struct Sized<B>(B, u64);

    impl<B: Body + Unpin> Body for Sized<B> {
        type Data = B::Data;
        type Error = B::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
            Pin::new(&mut self.0).poll_frame(cx)
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.1)
        }
    }

    /// Serves one connection whose every answer is the file, piece by piece: the client's end, and how it will end.
    async fn served(
        file: Arc<File>,
        size: usize,
        limits: Limits,
    ) -> (
        TcpStream,
        impl Future<Output = Result<(), ConnectionError>> + Send,
    ) {
        let (lending, loans, client) = connected().await;
        let service = move |_, _| {
            let (file, loans) = (file.clone(), loans.clone());
            let pieces = (0..size).step_by(LARGEST).map(move |at| {
                let len = LARGEST.min(size - at);
                let piece = if at / LARGEST % 3 == 2 {
                    let mut read = vec![0; len];
                    file.read_exact_at(&mut read, at as u64).unwrap();
                    Bytes::from(read)
                } else {
                    loans.lend(file.clone(), at as u64, len)
                };
                Ok::<_, Infallible>(Frame::data(piece))
            });
            let body = Sized(StreamBody::new(stream::iter(pieces)), size as u64);
            async { Response::new(body) }
        };
        let end = async move {
            let (_stop, stopping) = watch::channel(false);
            serve(lending, service, &limits, false, stopping).await
        };
        (client, end)
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    const LAST_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn hyper_hands_on_what_it_gets_and_only_progress_keeps_a_slow_client_alive() {
        let (file, body) = file(20 * LARGEST + 1234);
        let limits = Limits {
            write_stall: Duration::from_millis(500),
            ..Limits::default()
        };
        let (mut client, end) = served(file.clone(), body.len(), limits.clone()).await;
        let end = tokio::spawn(end);
        client
            .write_all(&[REQUEST, LAST_REQUEST].concat())
            .await
            .unwrap();
        let mut received = Vec::new();
        let mut room = vec![0; LARGEST];
        loop {
            let size = client.read(&mut room).await.unwrap();
            if size == 0 {
                break;
            }
            received.extend_from_slice(&room[..size]);
            // Longer than the limit in all.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        end.await.unwrap().unwrap();
        let mut rest = received.as_slice();
        for answer in ["first", "second"] {
            let head = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            let (found, after) = rest[head.unwrap() + 4..].split_at(body.len());
            assert!(found == body, "{answer}");
            rest = after;
        }
        assert_eq!(rest, b"");

        let (mut client, end) = served(file, body.len(), limits).await;
        client.write_all(REQUEST).await.unwrap();
        assert!(matches!(end.await, Err(ConnectionError::Stalled)));
    }
}
