//! Bystanders: connections that have nothing to do with a broadcast, each alone in a topic of its own, and what the
//! broadcast costs them.
//!
//! They are served by a thread of their own, so that their latencies are not those of a load generator that is busy
//! with the broadcast. The loop is open: no message waits for the answer to another, and what leaves late is late because
//! of this machine alone. So latencies count from when a message left; how late that was is told beside them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::event::Event as Readiness;
use mio::{Events, Poll};
use serde::{Deserialize, Serialize};
use stentor::protocol::Event;

use super::schedule::Schedule;
use super::{LAST_MESSAGES, Options, TOPIC};
use crate::client::{Client, Fault, Shared, Width};
use crate::dial::{Dialer, Manners, Wanted};
use crate::failure::{Error, Failure, Failures};
use crate::latency::Latencies;
use crate::outcome::{Counted, Recorded};
use crate::scenario::stamp::now;
use crate::units::float;
use crate::wait::wait;
use crate::worker::{Job, Line, Said};

/// The highest priority of a thread that is scheduled as usual.
const HIGHEST: i32 = -20;

/// How many there are, and how often each speaks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bystanders {
    /// How many, in all processes; none by default.
    pub count: usize,
    /// Messages of each in a second.
    pub per_second: f64,
}

impl Default for Bystanders {
    fn default() -> Self {
        Bystanders {
            count: 0,
            per_second: PER_SECOND,
        }
    }
}

/// Messages of each in a second, unless told otherwise: ten bystanders have ten beyond the p99 of a second, and are
/// next to nothing for a server.
pub const PER_SECOND: f64 = 100.0;

/// How long the thread sleeps at most: it looks then whether the run is over.
const LOOK: Duration = Duration::from_millis(20);

/// The bystanders of one process, connected.
pub(super) struct Waiting {
    poll: Poll,
    shared: Shared,
    members: Vec<Option<Member>>,
    schedule: Schedule,
    pub(super) failures: Failures,
}

/// The bystanders of one process, at work.
pub(super) struct Working {
    window: Arc<Window>,
    thread: JoinHandle<Result<Found, Error>>,
}

/// The time in which messages count; nothing is sent after it.
struct Window {
    since: AtomicU64,
    until: AtomicU64,
}

/// What bystanders found.
pub(super) struct Found {
    /// Messages that left while counting, and came back.
    answered: u64,
    latencies: Latencies,
    /// How much later than they should messages left.
    lag: Latencies,
    pub(super) failures: Failures,
}

struct Member {
    client: Client,
    number: u32,
    /// Messages sent.
    sequence: u64,
    /// When those left that did not come back yet.
    unanswered: VecDeque<u64>,
}

impl Waiting {
    /// Connects this process' share of the bystanders; none if it has no share.
    pub(super) fn open(
        options: &Options,
        job: &Job,
        line: &mut Line<'_>,
        opened: usize,
    ) -> Result<Option<Self>, Error> {
        let (count, first) = job.share(options.bystanders.count);
        if count == 0 {
            return Ok(None);
        }
        if !job.target.path.contains(TOPIC) {
            let path = &job.target.path;
            let what = format!("--bystanders: {path} has no {TOPIC}, so that all would share one");
            return Err(Error::Local(what));
        }
        let mut poll = Poll::new().map_err(Error::local("epoll"))?;
        let mut shared = Shared::new(job.target.clone());
        let (mut clients, mut failures) = (Vec::new(), Failures::default());
        let mut dialer = Dialer {
            poll: &mut poll,
            shared: &mut shared,
            clients: &mut clients,
            failures: &mut failures,
            pace: job.pace,
        };
        let wanted = Wanted {
            places: 0..count,
            first: options.members() + first,
            path: &|place| path(&job.target.path, job.index, place),
            width: &|_| Width::Normal,
            manners: Manners::Silent,
        };
        dialer.open(wanted, |open| {
            // Nobody listens any more: the next who has to be heard finds out.
            let _ = line.say(&Said::Opened(opened + open));
        })?;
        let member = |(place, client): (usize, Option<Client>)| {
            Some(Member::new(client?, (first + place) as u32))
        };
        let rate = options.bystanders.per_second * float(count as u64);
        Ok(Some(Waiting {
            schedule: Schedule::new(rate, &poll)?,
            poll,
            shared,
            members: clients.into_iter().enumerate().map(member).collect(),
            failures,
        }))
    }

    /// Lets them speak, each for itself, until [`Working::stop`].
    pub(super) fn start(self) -> Working {
        let window = Arc::new(Window {
            since: AtomicU64::new(u64::MAX),
            until: AtomicU64::new(u64::MAX),
        });
        let watched = Arc::clone(&window);
        Working {
            window,
            thread: thread::spawn(move || {
                // They are to wait for the server, and not for the load beside them: on Linux this
                // is the thread's own priority. Who may not raise it measures with what there is.
                let _ = rustix::process::setpriority_process(None, HIGHEST);
                Loop::new(self, watched).run()
            }),
        }
    }
}

impl Working {
    /// From now on messages count.
    pub(super) fn start_counting(&self) {
        self.window.since.store(now(), Ordering::Relaxed);
    }

    /// From now on nothing is sent.
    pub(super) fn stop(&self) {
        self.window.until.store(now(), Ordering::Relaxed);
    }

    /// What came of it, when the last messages have come back or will not.
    pub(super) fn join(self) -> Result<Found, Error> {
        self.thread.join().unwrap_or_else(|_| {
            let what = "the thread of the bystanders panicked";
            Err(Error::Local(what.to_owned()))
        })
    }
}

impl Found {
    pub(super) fn counted(&self) -> Counted {
        Counted::new("bystander_messages", "bystander message", self.answered)
    }

    pub(super) fn latencies(&self) -> [Recorded; 2] {
        [
            Recorded::new("bystander", "bystander", &self.latencies),
            Recorded::new("bystander_lag", "bystander lag", &self.lag),
        ]
    }
}

struct Loop {
    poll: Poll,
    shared: Shared,
    /// A bystander that failed leaves its place empty.
    members: Vec<Option<Member>>,
    schedule: Schedule,
    window: Arc<Window>,
    found: Found,
}

impl Loop {
    fn new(waiting: Waiting, window: Arc<Window>) -> Self {
        let Waiting {
            poll,
            shared,
            members,
            schedule,
            failures,
        } = waiting;
        Loop {
            poll,
            shared,
            members,
            schedule,
            window,
            found: Found {
                answered: 0,
                latencies: Latencies::default(),
                lag: Latencies::default(),
                failures,
            },
        }
    }

    fn run(mut self) -> Result<Found, Error> {
        let mut events = Events::with_capacity(1024);
        self.schedule.start = now();
        while now() < self.window.until() {
            let timeout = self.schedule.arm(LOOK)?;
            self.turn(&mut events, timeout)?;
        }
        let mut last_answer = now();
        while self.unanswered() > 0 && now() - last_answer < LAST_MESSAGES.as_nanos() as u64 {
            let unanswered = self.unanswered();
            self.turn(&mut events, LOOK)?;
            if self.unanswered() < unanswered {
                last_answer = now();
            }
        }
        // An answer too many shows only now.
        self.turn(&mut events, LOOK)?;
        self.count_unanswered();
        Ok(self.found)
    }

    fn turn(&mut self, events: &mut Events, timeout: Duration) -> Result<(), Error> {
        wait(&mut self.poll, events, timeout)?;
        self.speak_on_schedule();
        for readiness in events.iter() {
            self.with(readiness.token().0, |member, shared, found, since| {
                member.hear(readiness, shared, found, since)
            });
        }
        Ok(())
    }

    /// Sends every message whose time has come.
    fn speak_on_schedule(&mut self) {
        let now = now().min(self.window.until());
        while self.schedule.next() < now {
            let intended = self.schedule.next();
            let place = self.schedule.advance(self.members.len());
            self.with(place, |member, _, found, since| {
                let left = self::now();
                if left >= since {
                    found.lag.record(Duration::from_nanos(left - intended));
                }
                member.speak(left)
            });
        }
    }

    /// Does something with a bystander that still lives, and buries it if that fails.
    fn with(
        &mut self,
        place: usize,
        action: impl FnOnce(&mut Member, &mut Shared, &mut Found, u64) -> Result<(), Fault>,
    ) {
        let Some(Some(member)) = self.members.get_mut(place) else {
            return; // Or the timer's token, which has no place.
        };
        let since = self.window.since.load(Ordering::Relaxed);
        let result = action(member, &mut self.shared, &mut self.found, since);
        if let Err(Fault(failure, what)) = result {
            let (number, unanswered) = (member.number, member.unanswered.len() as u64);
            let failures = &mut self.found.failures;
            failures.add(failure, format_args!("bystander {number}: {what}"));
            if unanswered > 0 {
                failures.add_many(Failure::Unanswered, unanswered, what);
            }
            self.members[place] = None;
        }
    }

    fn unanswered(&self) -> usize {
        let members = self.members.iter().flatten();
        members.map(|member| member.unanswered.len()).sum()
    }

    fn count_unanswered(&mut self) {
        let unanswered = self.unanswered() as u64;
        if unanswered > 0 {
            let what = format_args!("{unanswered} messages of bystanders did not come back");
            let failures = &mut self.found.failures;
            failures.add_many(Failure::Unanswered, unanswered, what);
        }
    }
}

impl Window {
    fn until(&self) -> u64 {
        self.until.load(Ordering::Relaxed)
    }
}

impl Member {
    fn new(client: Client, number: u32) -> Self {
        Member {
            client,
            number,
            sequence: 0,
            unanswered: VecDeque::new(),
        }
    }

    fn speak(&mut self, left: u64) -> Result<(), Fault> {
        let payload = payload(self.number, self.sequence, left);
        self.sequence += 1;
        self.unanswered.push_back(left);
        self.client.send(&payload[..]);
        self.client.flush()
    }

    fn hear(
        &mut self,
        readiness: &Readiness,
        shared: &mut Shared,
        found: &mut Found,
        since: u64,
    ) -> Result<(), Fault> {
        let Member {
            client,
            number,
            sequence,
            unanswered,
        } = self;
        client.ready(readiness)?;
        if !client.wants_receive(readiness) {
            return Ok(());
        }
        client.receive(shared, |_, event| {
            let Event::Message(message) = event else {
                return Ok(());
            };
            let left = expect(*number, *sequence, unanswered, message.payload())?;
            unanswered.pop_front();
            if left >= since {
                found.answered += 1;
                let latency = now().saturating_sub(left);
                found.latencies.record(Duration::from_nanos(latency));
            }
            Ok(())
        })
    }
}

/// When the message left that this one answers: none but the first that was not answered.
fn expect(
    number: u32,
    sequence: u64,
    unanswered: &VecDeque<u64>,
    message: &[u8],
) -> Result<u64, Fault> {
    let Some(&left) = unanswered.front() else {
        let what = "a message that it did not send".to_owned();
        return Err(Fault(Failure::Surplus, what));
    };
    let expected = sequence - unanswered.len() as u64;
    if *message != payload(number, expected, left) {
        let len = message.len();
        let what = format!("a message of {len} bytes that is not its message {expected}");
        return Err(Fault(Failure::Corrupt, what));
    }
    Ok(left)
}

/// Whose message it is, the how-manieth, and when it left: no two are alike.
fn payload(number: u32, sequence: u64, left: u64) -> [u8; 20] {
    let mut payload = [0; 20];
    payload[..4].copy_from_slice(&number.to_le_bytes());
    payload[4..12].copy_from_slice(&sequence.to_le_bytes());
    payload[12..].copy_from_slice(&left.to_le_bytes());
    payload
}

/// The path of a bystander: the topic of nobody else.
fn path(template: &str, process: usize, place: usize) -> String {
    template.replace(TOPIC, &format!("bystander-{process}-{place}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bystander_has_a_topic_of_its_own() {
        assert_eq!(path("/t/{topic}", 1, 7), "/t/bystander-1-7");
        assert_eq!(
            path("/{topic}?{topic}", 0, 0),
            "/bystander-0-0?bystander-0-0"
        );
    }

    #[test]
    fn only_the_oldest_message_without_an_answer_is_answered() {
        let unanswered = VecDeque::from([500, 600]);
        let heard = |sequence, left| {
            let message = payload(3, sequence, left);
            expect(3, 9, &unanswered, &message).map_err(|Fault(failure, _)| failure)
        };
        assert_eq!(heard(7, 500), Ok(500));
        assert_eq!(heard(8, 600), Err(Failure::Corrupt));
        assert_eq!(heard(7, 501), Err(Failure::Corrupt));
        let nobody = expect(3, 9, &VecDeque::new(), &payload(3, 8, 600));
        assert_eq!(nobody.unwrap_err().0, Failure::Surplus);
    }
}
