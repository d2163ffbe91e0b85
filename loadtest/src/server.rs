//! Server processes that are started to be measured, and the cores that they and the load are kept to.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::failure::Error;
use crate::process;

/// A server process that ends with this value.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

/// How long a server may take to listen.
const STARTUP: Duration = Duration::from_secs(20);
/// How long it may take to end once it is told to: where somebody waits for that, and else.
const SHUTDOWN: Duration = Duration::from_secs(20);
const ENDING: Duration = Duration::from_secs(1);
/// Between looks at either.
const LOOK: Duration = Duration::from_millis(10);

impl Server {
    /// Starts a command in a folder, on one core if there is one to choose, and waits until it listens.
    ///
    /// In each word `{port}` becomes a free port of 127.0.0.1. It is run without a shell, so that the
    /// process that is started is the server.
    ///
    /// # Errors
    ///
    /// If it cannot be started, ends, or does not listen.
    pub fn start(
        name: &str,
        words: &[String],
        folder: &Path,
        core: Option<usize>,
    ) -> Result<Self, Error> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(Error::local("no free port"))?;
        let port = address.port().to_string();
        let words: Vec<_> = words
            .iter()
            .map(|word| word.replace("{port}", &port))
            .collect();
        let (program, arguments) = words
            .split_first()
            .ok_or_else(|| Error::Local(format!("{name} has no command")))?;
        let before = sched_getaffinity(None).ok();
        if let Some(core) = core {
            pin(core)?; // Inherited by the child.
        }
        let spawned = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        if let Some(before) = before.filter(|_| core.is_some()) {
            // What was allowed before is allowed again.
            let _ = sched_setaffinity(None, &before);
        }
        let child = spawned.map_err(Error::local(program))?;
        let mut server = Server { child, address };
        server.await_listening(name)?;
        Ok(server)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as its operator would, and waits: whoever watched it has then written down what it did.
    ///
    /// # Errors
    ///
    /// If it does not end.
    pub fn end(mut self) -> Result<(), Error> {
        if self.ends_within(SHUTDOWN) {
            return Ok(());
        }
        let what = format!("the server has not ended {SHUTDOWN:?} after SIGTERM");
        Err(Error::Server(what))
    }

    /// Lets it end by itself: it may have children that only it knows of. Whether it did in time.
    fn ends_within(&mut self, patience: Duration) -> bool {
        // Its number is its own until it was waited for.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + patience;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    /// The process that it started, where that is what serves.
    ///
    /// # Errors
    ///
    /// If it does not start exactly one.
    pub fn only_child(&self) -> Result<u32, Error> {
        let deadline = Instant::now() + STARTUP;
        loop {
            let children = process::children(self.pid()).map_err(Error::local("its child"))?;
            match children[..] {
                [child] => return Ok(child),
                [] if Instant::now() < deadline => std::thread::sleep(LOOK),
                _ => {
                    let what = format!("it has {} children, not one", children.len());
                    return Err(Error::Server(what));
                }
            }
        }
    }

    fn await_listening(&mut self, name: &str) -> Result<(), Error> {
        let deadline = Instant::now() + STARTUP;
        while TcpStream::connect(self.address).is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                let what = format!("{name} ended before it listened: {status}");
                return Err(Error::Server(what));
            }
            if Instant::now() > deadline {
                return Err(Error::Server(format!(
                    "{name} does not listen on {} after {STARTUP:?}",
                    self.address
                )));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends_within(ENDING);
        // Either way it is gone after this.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Moves this thread, and whatever it starts, to one core.
///
/// # Errors
///
/// If there is no such core.
pub fn pin(core: usize) -> Result<(), Error> {
    let mut cores = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return Err(Error::Local(format!("there is no core {core}")));
    }
    cores.set(core);
    sched_setaffinity(None, &cores).map_err(|error| Error::Local(format!("core {core}: {error}")))
}

/// Moves this thread, and whatever it starts, off one core to the others it may run on.
///
/// # Errors
///
/// If there is no other.
pub fn keep_off(core: usize) -> Result<(), Error> {
    let wrong = |error| Error::Local(format!("cores beside {core}: {error}"));
    let mut cores = sched_getaffinity(None).map_err(wrong)?;
    if core < CpuSet::MAX_CPU {
        cores.unset(core);
    }
    sched_setaffinity(None, &cores).map_err(wrong)
}

/// How many cores this process may run on.
pub fn cores() -> usize {
    sched_getaffinity(None).map_or(1, |cores| cores.count() as usize)
}
