//! Where a set of keys comes from: a file or an HTTP server, read again and again by a thread.
//!
//! Who verifies never waits for that: it finds the latest set that could be read.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use ureq::tls::{TlsConfig, TlsProvider};

use super::jwks::KeySet;

/// Of a set. One key takes less than a kilobyte.
const MAX_BYTES: u64 = 1024 * 1024;

/// For all of a request. An issuer that is slower is down.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks at a file, and between two requests whatever tokens name: forged ones must not
/// make this server a burden to the issuer.
const MIN_PERIOD: Duration = Duration::from_secs(1);

/// Between two requests that no token asked for. So long is a key good that was taken back, and it
/// is nothing for the issuer.
const URL_PERIOD: Duration = Duration::from_mins(1);

/// A set of keys that is kept up to date, until this is dropped.
#[derive(Debug)]
pub(super) struct KeySource {
    place: String,
    shared: Arc<Shared>,
}

/// What became of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct KeyCounts {
    /// Keys of the latest set.
    pub(in super::super) keys: usize,
    /// Keys of it that cannot be used.
    pub(in super::super) skipped: usize,
    /// Times that a set was read.
    pub(in super::super) loads: u64,
    /// Times that one could not be had, and the one before was kept.
    pub(in super::super) failures: u64,
    /// Why not, the last time.
    pub(in super::super) last_failure: Option<String>,
}

/// What the thread and who verifies have in common.
#[derive(Debug)]
struct Shared {
    /// Held for as long as it takes to copy a pointer.
    keys: Mutex<Arc<KeySet>>,
    counts: Mutex<KeyCounts>,
    wish: Mutex<Wish>,
    wished: Condvar,
}

#[derive(Debug, Default)]
struct Wish {
    is_wanted: bool,
    is_over: bool,
}

impl KeySource {
    /// Reads a set for the first time, which may take as long as one request may.
    ///
    /// # Errors
    ///
    /// In one line, if it cannot be had, or no key of it can be used.
    pub(super) fn open(place: &str) -> Result<Self, String> {
        let in_one_line =
            |problem: String| format!("{place}: {problem}").replace(['\n', '\r'], " ");
        let mut opened = Place::parse(place).map_err(in_one_line)?;
        let set = opened.load().map_err(in_one_line)?.unwrap_or_default();
        if set.len() == 0 {
            let problem = format!(
                "it has no key that can be used, and {} others",
                set.skipped()
            );
            return Err(in_one_line(problem));
        }
        let shared = Arc::new(Shared::new(set));
        let of_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name("stentor-keys".into())
            .spawn(move || of_thread.keep_up(&mut opened))
            .map_err(|error| in_one_line(error.to_string()))?;
        Ok(Self {
            place: place.into(),
            shared,
        })
    }

    /// Whether it is this place.
    pub(super) fn is_at(&self, place: &str) -> bool {
        self.place == place
    }

    /// The latest set.
    pub(super) fn keys(&self) -> Arc<KeySet> {
        Arc::clone(&lock(&self.shared.keys))
    }

    /// Has the set read again soon.
    pub(super) fn ask(&self) {
        lock(&self.shared.wish).is_wanted = true;
        self.shared.wished.notify_one();
    }

    pub(super) fn counts(&self) -> KeyCounts {
        lock(&self.shared.counts).clone()
    }

    /// What is there for as long as the thread is.
    #[cfg(test)]
    pub(super) fn life(&self) -> std::sync::Weak<impl Sized + use<>> {
        Arc::downgrade(&self.shared)
    }
}

impl Drop for KeySource {
    /// Lets the thread end. It is not waited for: a request may be under way.
    fn drop(&mut self) {
        lock(&self.shared.wish).is_over = true;
        self.shared.wished.notify_one();
    }
}

impl Shared {
    fn new(set: KeySet) -> Self {
        let shared = Self {
            keys: Mutex::default(),
            counts: Mutex::default(),
            wish: Mutex::default(),
            wished: Condvar::new(),
        };
        shared.put(set);
        shared
    }

    fn put(&self, set: KeySet) {
        let mut counts = lock(&self.counts);
        (counts.keys, counts.skipped) = (set.len(), set.skipped());
        counts.loads += 1;
        drop(counts);
        *lock(&self.keys) = Arc::new(set);
    }

    fn keep_up(&self, place: &mut Place) {
        while self.wait(place.period()) {
            match place.load() {
                Ok(Some(set)) => self.put(set),
                Ok(None) => {}
                Err(problem) => {
                    let mut counts = lock(&self.counts);
                    counts.failures += 1;
                    counts.last_failure = Some(problem);
                }
            }
        }
    }

    /// Waits until it is time to read again; `false` when nobody needs that any more.
    fn wait(&self, period: Duration) -> bool {
        let wish = lock(&self.wish);
        let rest = |wish: &mut Wish| !wish.is_over;
        let (wish, _) = recovered(self.wished.wait_timeout_while(wish, MIN_PERIOD, rest));
        let rest = |wish: &mut Wish| !wish.is_over && !wish.is_wanted;
        let period = period.saturating_sub(MIN_PERIOD);
        let (mut wish, _) = recovered(self.wished.wait_timeout_while(wish, period, rest));
        // What is asked for while the answer is under way is asked for again.
        wish.is_wanted = false;
        !wish.is_over
    }
}

/// Nothing is left half done by a panic with a lock held: each is held for an assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    recovered(mutex.lock())
}

fn recovered<T>(result: Result<T, PoisonError<T>>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}

/// Where a set is.
pub(super) enum Place {
    File {
        path: PathBuf,
        /// As it was when it was read.
        seen: Option<(SystemTime, u64)>,
    },
    Url {
        url: String,
        agent: ureq::Agent,
    },
}

impl Place {
    pub(super) fn parse(place: &str) -> Result<Self, String> {
        if place.starts_with("http://") || place.starts_with("https://") {
            return Ok(Self::Url {
                url: place.into(),
                agent: agent(place.starts_with("https://")),
            });
        }
        let path = place.strip_prefix("file:").unwrap_or(place);
        let path = path
            .strip_prefix("//")
            .filter(|rest| rest.starts_with('/'))
            .unwrap_or(path);
        if path.is_empty() || path.contains("://") {
            return Err("it is neither a path nor an http or https URL".into());
        }
        Ok(Self::File {
            path: path.into(),
            seen: None,
        })
    }

    fn period(&self) -> Duration {
        match self {
            Self::File { .. } => MIN_PERIOD,
            Self::Url { .. } => URL_PERIOD,
        }
    }

    /// Reads the set; `None` if it is known to be the same.
    pub(super) fn load(&mut self) -> Result<Option<KeySet>, String> {
        match self {
            Self::File { path, seen } => {
                let mut file = File::open(path).map_err(|error| error.to_string())?;
                let metadata = file.metadata().map_err(|error| error.to_string())?;
                let modified = metadata.modified().map_err(|error| error.to_string())?;
                let found = Some((modified, metadata.len()));
                if *seen == found {
                    return Ok(None);
                }
                let set = KeySet::parse(&read(&mut file)?)?;
                *seen = found;
                Ok(Some(set))
            }
            Self::Url { url, agent } => {
                let call = agent.get(url.as_str()).call();
                let mut body = call.map_err(|error| error.to_string())?.into_body();
                Ok(Some(KeySet::parse(&read(&mut body.as_reader())?)?))
            }
        }
    }
}

fn read(from: &mut dyn Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = from.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes"));
    }
    Ok(bytes)
}

/// A client that does not leave TLS where it began with it.
fn agent(is_secure: bool) -> ureq::Agent {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(provider)
        .build();
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .https_only(is_secure)
        .tls_config(tls)
        .user_agent(concat!("stentor/", env!("CARGO_PKG_VERSION")))
        .build();
    config.new_agent()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_granted_once() {
        let shared = Shared::new(KeySet::default());
        lock(&shared.wish).is_wanted = true;
        assert!(
            shared.wait(Duration::MAX),
            "it does not wait for its period"
        );
        assert!(!lock(&shared.wish).is_wanted);
        lock(&shared.wish).is_over = true;
        assert!(!shared.wait(Duration::MAX));
    }
}
