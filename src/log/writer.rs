//! [`LineWriter`]: a thread that writes lines in batches, so that appending one costs a lock and a copy.

use std::{
    io, mem,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// Longest time that the exit waits for a reader of the last lines.
const FINAL_WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// Buffered bytes above which further lines are dropped and counted.
const MAX_BUFFERED_BYTES: usize = 1 << 20;
/// Buffered bytes from which the thread writes before its interval is over: busy clients fill the buffer within one.
const EARLY_WRITE_BYTES: usize = MAX_BUFFERED_BYTES / 4;

/// The end of a line writer.
pub trait LineSink: Send + 'static {
    /// Writes complete lines. `lost` lines before them were dropped for want of space. After the last call, `is_last`,
    /// the thread ends.
    fn write(&mut self, lines: &[u8], lost: u64, is_last: bool);

    /// When the sink wants to be called even if there are no lines.
    fn next_due(&self) -> Option<Instant> {
        None
    }
}

/// The writing thread. Dropping it writes the buffered lines, for [`FINAL_WRITE_TIMEOUT`] at most.
#[derive(Debug)]
pub struct LineWriter {
    lines: Lines,
    /// Disconnected when the thread ends.
    ended: mpsc::Receiver<()>,
}

/// Appends lines to the buffer of a [`LineWriter`]. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<LineQueue>);

#[derive(Debug, Default)]
struct LineQueue {
    buffered: Mutex<BufferedLines>,
    /// Signals the first line after an empty buffer, [`EARLY_WRITE_BYTES`], [`Lines::wake`], and the end.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct BufferedLines {
    text: Vec<u8>,
    /// Lines dropped since the last write.
    dropped: u64,
    /// The time of [`LineSink::next_due`] may have changed.
    is_woken: bool,
    /// Set when the process ends.
    is_closed: bool,
}

impl LineWriter {
    /// Starts a thread of this name that writes to `sink`, at most once in `interval` unless the buffer fills earlier.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(name: &str, interval: Duration, sink: impl LineSink) -> io::Result<Self> {
        let lines = Lines::default();
        let queue = lines.0.clone();
        let (alive, ended) = mpsc::channel();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _alive: mpsc::Sender<()> = alive;
                queue.write_to(sink, interval);
            })?;
        Ok(Self { lines, ended })
    }

    /// A handle that appends lines.
    pub fn lines(&self) -> Lines {
        self.lines.clone()
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        self.lines.0.buffered.lock().is_closed = true;
        self.lines.0.changed.notify_one();
        // Disconnected: the thread has ended. Timed out: nobody reads, and the exit must not wait for that.
        let _ = self.ended.recv_timeout(FINAL_WRITE_TIMEOUT);
    }
}

impl LineQueue {
    fn write_to(&self, mut sink: impl LineSink, interval: Duration) {
        let mut text = Vec::new();
        loop {
            let mut buffered = self.buffered.lock();
            while buffered.text.is_empty() && !buffered.is_closed && !buffered.is_woken {
                match sink.next_due() {
                    None => self.changed.wait(&mut buffered),
                    Some(due) if self.changed.wait_until(&mut buffered, due).timed_out() => break,
                    Some(_) => {}
                }
            }
            buffered.is_woken = false;
            if !buffered.text.is_empty() {
                let may_wait = |buffered: &mut BufferedLines| {
                    !buffered.is_closed && buffered.text.len() < EARLY_WRITE_BYTES
                };
                self.changed
                    .wait_while_for(&mut buffered, may_wait, interval);
            }
            mem::swap(&mut buffered.text, &mut text);
            let dropped = mem::take(&mut buffered.dropped);
            let is_closed = buffered.is_closed;
            drop(buffered);
            sink.write(&text, dropped, is_closed);
            if is_closed {
                return;
            }
            text.clear();
        }
    }
}

impl Lines {
    /// Appends a line, which ends with a line feed. Returns whether there was space for it.
    pub fn push(&self, line: &[u8]) -> bool {
        let mut buffered = self.0.buffered.lock();
        let before = buffered.text.len();
        let has_space = before + line.len() <= MAX_BUFFERED_BYTES;
        if has_space {
            buffered.text.extend_from_slice(line);
        } else {
            buffered.dropped += 1;
        }
        let after = buffered.text.len();
        drop(buffered);
        if before == 0 || (before < EARLY_WRITE_BYTES && after >= EARLY_WRITE_BYTES) {
            self.0.changed.notify_one();
        }
        has_space
    }

    /// Makes the thread ask [`LineSink::next_due`] again.
    pub(super) fn wake(&self) {
        self.0.buffered.lock().is_woken = true;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sink that waits for permission before each write and sends on the lines of each call.
    struct SlowSink(mpsc::Sender<(Vec<u8>, u64)>, mpsc::Receiver<()>);

    impl LineSink for SlowSink {
        fn write(&mut self, lines: &[u8], lost: u64, _: bool) {
            let _ = self.1.recv();
            let _ = self.0.send((lines.to_vec(), lost));
        }
    }

    type Written = mpsc::Receiver<(Vec<u8>, u64)>;

    fn slow_writer() -> (LineWriter, Written, mpsc::Sender<()>) {
        let (sender, written) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let sink = SlowSink(sender, wait);
        let interval = Duration::from_millis(20);
        (
            LineWriter::start("test", interval, sink).unwrap(),
            written,
            go,
        )
    }

    #[test]
    fn writes_lines_in_batches_and_the_rest_on_drop() {
        let (writer, written, go) = slow_writer();
        let lines = writer.lines();
        for line in ["one\n", "two\n", "three\n"] {
            assert!(lines.push(line.as_bytes()));
        }
        go.send(()).unwrap();
        assert_eq!(written.recv().unwrap().0, b"one\ntwo\nthree\n");
        lines.push(b"four\n");
        drop(go);
        drop(writer);
        assert_eq!(written.recv().unwrap().0, b"four\n");
        assert!(written.recv().is_err());
    }

    #[test]
    fn writes_before_the_interval_is_over_when_the_buffer_fills() {
        let (sender, written) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        drop(go);
        let an_hour = Duration::from_secs(3600);
        let writer = LineWriter::start("test", an_hour, SlowSink(sender, wait)).unwrap();
        let line = vec![b'x'; EARLY_WRITE_BYTES / 2];
        assert!(writer.lines().push(&line));
        assert!(writer.lines().push(&line));
        let (text, lost) = written.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!((text.len(), lost), (2 * line.len(), 0));
    }

    #[test]
    fn drops_and_counts_lines_when_the_reader_is_slow() {
        let (writer, written, go) = slow_writer();
        let line = [b'x'; 1000];
        let lines = writer.lines();
        let total = 3 * MAX_BUFFERED_BYTES / line.len();
        let kept = (0..total).filter(|_| lines.push(&line)).count();
        assert!(writer.lines.0.buffered.lock().text.capacity() <= 2 * MAX_BUFFERED_BYTES);
        drop(go);
        drop(writer);
        let (texts, lost): (Vec<_>, Vec<_>) = written.iter().unzip();
        assert!(kept < total);
        assert_eq!(lost.iter().sum::<u64>(), (total - kept) as u64);
        assert_eq!(texts.concat().len(), kept * line.len());
    }

    /// A sink that counts its calls, and is due at once until the third.
    struct DueSink(mpsc::Sender<()>, u32);

    impl LineSink for DueSink {
        fn write(&mut self, _: &[u8], _: u64, _: bool) {
            self.1 += 1;
            let _ = self.0.send(());
        }

        fn next_due(&self) -> Option<Instant> {
            (self.1 < 3).then(Instant::now)
        }
    }

    #[test]
    fn calls_the_sink_when_it_is_due_without_lines() {
        let (sender, calls) = mpsc::channel();
        let sink = DueSink(sender, 0);
        let writer = LineWriter::start("test", Duration::ZERO, sink).unwrap();
        for _ in 0..3 {
            calls.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        assert!(calls.recv_timeout(Duration::from_millis(50)).is_err());
        writer.lines().wake();
        calls.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
