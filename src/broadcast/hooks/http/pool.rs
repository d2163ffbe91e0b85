//! Threads that carry questions to backends and answers back.

use std::fmt;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs;
use ureq::http::header::HeaderMap;
use ureq::http::{Method, Request, StatusCode};
use ureq::tls::TlsConfig;
use ureq::{Agent, Error};

use super::super::{Later, Refusal};
use super::answer::{self, BadAnswer, Readable};
use super::rules::{Endpoint, HttpHookError};

/// A queue, and threads that share it. They end when it is closed and empty.
pub(super) struct Pool {
    queue: Sender<Job>,
    max_in_flight: usize,
    counters: Arc<Counters>,
}

type Job = Box<dyn FnOnce(&Agent) + Send>;

impl Pool {
    pub(super) fn new(threads: usize, max_in_flight: usize) -> Result<Self, HttpHookError> {
        if threads == 0 || threads > MAX_THREADS {
            let reason = format!("at least 1 and at most {MAX_THREADS}");
            return Err(HttpHookError::new("threads", reason));
        }
        if max_in_flight == 0 {
            return Err(HttpHookError::new("max_in_flight", "at least 1"));
        }
        let (queue, jobs) = mpsc::channel();
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..threads {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new()
                .name("stentor-hooks".into())
                .spawn(move || work(&jobs))
                .map_err(|e| HttpHookError::new("threads", e.to_string()))?;
        }
        Ok(Self {
            queue,
            max_in_flight,
            counters: Arc::default(),
        })
    }

    pub(super) fn stats(&self) -> HttpHookStats {
        HttpHookStats(Arc::clone(&self.counters))
    }

    /// Has a thread make the call, unless there are too many already.
    pub(super) fn ask<T: Readable>(
        &self,
        call: Call,
        later: impl FnOnce() -> Later<T>,
    ) -> Result<(), Refusal> {
        let place = self
            .take_place()
            .ok_or_else(|| self.counters.note(Failure::Busy))?;
        let later = later();
        let job = move |agent: &Agent| {
            let result = call.make(agent).and_then(|body| Ok(answer::read(&body)?));
            let result = place.0.note_result(result);
            drop(place); // Before the answer: who has it finds the place free.
            later.answer(result);
        };
        // Fails only when no thread is left; then the job answers as it is dropped.
        let _ = self.queue.send(Box::new(job));
        Ok(())
    }

    fn take_place(&self) -> Option<Place> {
        let in_flight = &self.counters.in_flight;
        if in_flight.fetch_add(1, Ordering::Relaxed) < self.max_in_flight {
            Some(Place(Arc::clone(&self.counters)))
        } else {
            in_flight.fetch_sub(1, Ordering::Relaxed);
            None
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("max_in_flight", &self.max_in_flight)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// One of those that may be in flight.
struct Place(Arc<Counters>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Works until the queue is closed and empty.
fn work(jobs: &Mutex<Receiver<Job>>) {
    // A panic costs the one answer and the connections, not the thread.
    while catch_unwind(|| work_through(jobs)).is_err() {}
}

fn work_through(jobs: &Mutex<Receiver<Job>>) {
    let agent = agent();
    loop {
        // One waits for a job and the others for the lock; none holds it while it works.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(&agent),
            Err(_) => return,
        }
    }
}

fn agent() -> Agent {
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None) // A backend is no site: the environment has no say.
        .user_agent("stentor")
        .accept("application/json")
        .accept_encoding("identity")
        .max_idle_age(MAX_IDLE)
        .build()
        .new_agent()
}

/// One question on its way.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) deadline: Instant,
}

impl Call {
    /// Brings the body of the answer.
    pub(super) fn make(self, agent: &Agent) -> Result<Vec<u8>, Failure> {
        // None for one that has waited too long for a thread: it fails without being asked.
        let left = self.deadline.saturating_duration_since(Instant::now());
        let mut request = Request::new(self.body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.uri.clone();
        *request.headers_mut() = self.headers;
        let request = agent
            .configure_request(request)
            .timeout_global(Some(left))
            .build();
        let mut response = agent.run(request)?;
        if response.status() != StatusCode::OK {
            return Err(Failure::Status);
        }
        // The limit is the first length that is refused.
        let body = response.body_mut().with_config().limit(MAX_ANSWER + 1);
        Ok(body.read_to_vec()?)
    }
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Busy,
    Timeout,
    Connection,
    Status,
    Answer,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Timeout(_) => Self::Timeout,
            Error::Protocol(_) | Error::BodyExceedsLimit(_) | Error::LargeResponseHeader(..) => {
                Self::Answer
            }
            _ => Self::Connection,
        }
    }
}

impl From<BadAnswer> for Failure {
    fn from(_: BadAnswer) -> Self {
        Self::Answer
    }
}

#[derive(Debug, Default)]
struct Counters {
    in_flight: AtomicUsize,
    answered: AtomicU64,
    busy: AtomicU64,
    timeout: AtomicU64,
    connection: AtomicU64,
    status: AtomicU64,
    answer: AtomicU64,
}

impl Counters {
    fn note_result<T>(&self, result: Result<Result<T, Refusal>, Failure>) -> Result<T, Refusal> {
        match result {
            Ok(result) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                result
            }
            Err(failure) => Err(self.note(failure)),
        }
    }

    /// Counts it and says what a client hears of it.
    fn note(&self, failure: Failure) -> Refusal {
        let counter = match failure {
            Failure::Busy => &self.busy,
            Failure::Timeout => &self.timeout,
            Failure::Connection => &self.connection,
            Failure::Status => &self.status,
            Failure::Answer => &self.answer,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Refusal::internal()
    }
}

/// What [`HttpHooks`](super::HttpHooks) count, also when they have been given away.
#[derive(Clone, Debug)]
pub struct HttpHookStats(Arc<Counters>);

impl HttpHookStats {
    /// What it has come to.
    pub fn counts(&self) -> HttpHookCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HttpHookCounts {
            in_flight: self.0.in_flight.load(Ordering::Relaxed),
            answered: count(&self.0.answered),
            busy: count(&self.0.busy),
            timeouts: count(&self.0.timeout),
            connections: count(&self.0.connection),
            statuses: count(&self.0.status),
            bad_answers: count(&self.0.answer),
        }
    }
}

/// How many questions came to what. Those but for the first only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpHookCounts {
    /// Neither answered nor failed yet.
    pub in_flight: usize,
    /// Answered with a result, an error or a disconnect.
    pub answered: u64,
    /// Not asked: too many were in flight.
    pub busy: u64,
    /// Not answered in time.
    pub timeouts: u64,
    /// Without a connection, or with one that broke.
    pub connections: u64,
    /// Answered with another status than 200.
    pub statuses: u64,
    /// Answered with something else than the JSON asked for, or with more than 1 MiB.
    pub bad_answers: u64,
}

/// Beyond it the switches between threads cost more than waiting does.
const MAX_THREADS: usize = 1024;

/// What a client gets has to fit into its outgoing queue, 1 MiB by default.
const MAX_ANSWER: u64 = 1024 * 1024;

/// Just below the 5 s after which Node.js and others close idle connections: a question on one that
/// is being closed would fail.
const MAX_IDLE: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::rules::HttpHook;
    use super::*;

    #[test]
    fn question_that_waited_too_long_is_not_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hook = HttpHook {
            endpoint: format!("http://{}/", listener.local_addr().unwrap()),
            ..HttpHook::default()
        };
        let endpoint = Arc::new(Endpoint::new("rpc", &hook).unwrap());
        let call = Call {
            headers: endpoint.headers(&[]),
            endpoint,
            body: Vec::new(),
            deadline: Instant::now(),
        };
        assert_eq!(call.make(&agent()).unwrap_err(), Failure::Timeout);
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err());
    }

    #[test]
    fn sizes_have_bounds() {
        let refused = |threads, max_in_flight| {
            let error = Pool::new(threads, max_in_flight).unwrap_err();
            error.to_string()
        };
        assert_eq!(refused(0, 1), "threads: at least 1 and at most 1024");
        assert_eq!(refused(1025, 1), "threads: at least 1 and at most 1024");
        assert_eq!(refused(1, 0), "max_in_flight: at least 1");
    }

    #[test]
    fn thread_outlives_a_job_that_panics() {
        let pool = Pool::new(1, 1).unwrap();
        let panics = |_: &Agent| std::panic::resume_unwind(Box::new("a job of the test"));
        pool.queue.send(Box::new(panics)).unwrap();
        let (done, wait) = mpsc::channel();
        let job = move |_: &Agent| done.send(()).unwrap();
        pool.queue.send(Box::new(job)).unwrap();
        assert_eq!(wait.recv_timeout(Duration::from_secs(20)), Ok(()));
    }
}
