//! Logs: lines to standard error, written by a thread of their own.
//!
//! The loop only puts a line into a bounded queue. When nobody takes the lines (a terminal that is
//! paused, a pipe that is full or closed), the queue fills, and what does not fit is dropped and
//! counted; the server goes on.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait for the writer: some hundred KiB, and a second of a busy debug log.
const CAPACITY: usize = 4096;

/// How long the end of the program waits for the last lines.
const PATIENCE: Duration = Duration::from_millis(500);

/// The thread that writes; [`finish`](Self::finish) waits for it.
#[derive(Debug)]
pub(super) struct Logs {
    lines: Queue,
    /// Disconnected when the writer has written everything.
    done: Receiver<()>,
}

/// Starts to log events of this level and above to standard error.
pub(super) fn start(level: LevelFilter) -> Logs {
    let (lines, queue) = Queue::new(CAPACITY);
    let (written, done) = sync_channel(0);
    let dropped = Arc::clone(&lines.dropped);
    // Without a thread there are no logs, and a server all the same.
    let _ = thread::Builder::new().name("logs".into()).spawn(move || {
        write_lines(&queue, &dropped, &mut io::stderr());
        drop(written);
    });
    let is_for_people = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(is_for_people)
        .with_target(false)
        .with_writer(lines.clone())
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
    Logs { lines, done }
}

impl Logs {
    /// Waits until what was logged is written, but not for a reader that does not read.
    pub(super) fn finish(self) {
        // If there is no room for it, nobody reads.
        let _ = self.lines.sender.try_send(Entry::End);
        let ended = self.done.recv_timeout(PATIENCE);
        debug_assert_ne!(ended, Ok(()), "nothing is ever sent");
    }
}

/// The bounded way to the writer.
#[derive(Clone, Debug)]
struct Queue {
    sender: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Entry {
    Line(Box<[u8]>),
    End,
}

impl Queue {
    fn new(capacity: usize) -> (Self, Receiver<Entry>) {
        let (sender, receiver) = sync_channel(capacity);
        let dropped = Arc::default();
        (Self { sender, dropped }, receiver)
    }
}

impl Write for &Queue {
    /// The subscriber writes each event whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Entry::Line(line.into())) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// Writes lines until the end, and says how many are missing as soon as there is room again.
fn write_lines(lines: &Receiver<Entry>, dropped: &AtomicU64, output: &mut impl Write) {
    while let Ok(Entry::Line(line)) = lines.recv() {
        // Where nobody listens there is nobody to tell that.
        let _ = output.write_all(&line);
        let missing = dropped.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let _ = writeln!(
                output,
                "{missing} lines were dropped: the log was read too slowly"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (queue, lines) = Queue::new(2);
        for line in [b"one\n", b"two\n", b"six\n"] {
            assert_eq!((&queue).write(line).unwrap(), 4);
        }
        let dropped = Arc::clone(&queue.dropped);
        drop(queue);
        let mut output = Vec::new();
        write_lines(&lines, &dropped, &mut output);
        let output = String::from_utf8(output).unwrap();
        assert_eq!(
            output,
            "one\n1 lines were dropped: the log was read too slowly\ntwo\n"
        );
    }

    #[test]
    fn an_output_that_fails_does_not_end_the_writer() {
        struct Broken(usize);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (queue, lines) = Queue::new(8);
        for _ in 0..3 {
            (&queue).write_all(b"line\n").unwrap();
        }
        let mut output = Broken(0);
        queue.sender.send(Entry::End).unwrap();
        write_lines(&lines, &queue.dropped, &mut output);
        assert_eq!(output.0, 3);
    }
}
