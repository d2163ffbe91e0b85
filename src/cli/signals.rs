//! Signals: the first one shuts the server down in order, the second one ends it; SIGHUP has the
//! configuration read again.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Caught;
use stentor::{Handle, Handler};
use tracing::{info, warn};

/// SIGINT and SIGTERM, and SIGHUP if it means something, caught and not acted on yet.
pub(super) struct Signals(Caught);

impl Signals {
    /// From now on the signals do not kill the process, SIGHUP only if there is a file to read.
    ///
    /// # Errors
    ///
    /// The system has no file descriptor left for the pipe that they come through.
    pub(super) fn catch(has_file: bool) -> io::Result<Self> {
        let hangup = has_file.then_some(SIGHUP);
        Caught::new([SIGINT, SIGTERM].into_iter().chain(hangup)).map(Self)
    }

    /// Lets the signals end a server.
    ///
    /// The first closes its connections in order; the second ends it at once, whatever is unsent;
    /// a third, should the loop hang, ends the process. SIGHUP calls `reload`.
    ///
    /// # Errors
    ///
    /// The system starts no thread.
    pub(super) fn shut_down<H>(
        mut self,
        handle: Handle<H>,
        mut reload: Option<impl FnMut(&Handle<H>) + Send + 'static>,
    ) -> io::Result<Ending>
    where
        H: Handler + 'static,
    {
        let ending = Ending::default();
        let impatient = ending.clone();
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let mut count = 0;
                for signal in self.0.forever() {
                    if let (SIGHUP, Some(reload)) = (signal, &mut reload) {
                        reload(&handle);
                        continue;
                    }
                    count += 1;
                    match count {
                        1 => {
                            info!(
                                signal = name(signal),
                                "shuts down; a second signal ends at once"
                            );
                            let _ = handle.shut_down();
                        }
                        2 => {
                            warn!(signal = name(signal), "ends at once");
                            impatient.0.store(signal, Ordering::Release);
                            let _ = handle.stop();
                        }
                        _ => process::exit(128 + signal),
                    }
                }
            })?;
        Ok(ending)
    }
}

/// How the server came to its end.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending(Arc<AtomicI32>);

impl Ending {
    /// 0 after a shutdown in order; as a shell says it, 128 and the number of the signal, after
    /// one that cut it short.
    pub(super) fn exit_code(&self) -> process::ExitCode {
        match self.0.load(Ordering::Acquire) {
            0 => process::ExitCode::SUCCESS,
            signal => process::ExitCode::from(128 + signal.cast_unsigned() as u8),
        }
    }
}

fn name(signal: i32) -> &'static str {
    match signal {
        SIGINT => "SIGINT",
        SIGTERM => "SIGTERM",
        _ => "another",
    }
}
