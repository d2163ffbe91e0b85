//! Many connections, opened as fast as is asked for and no faster.

use std::ops::Range;
use std::time::{Duration, Instant};

use mio::event::Event as Readiness;
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};
use stentor::protocol::Event;

use crate::centrifugo::{Arrival, Subscription, answer_pings};
use crate::client::{Client, Fault, PATIENCE, Shared, Width};
use crate::failure::{Error, Failure, Failures};
use crate::target;
use crate::units::float;
use crate::wait::wait;

/// How connections are opened.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Pace {
    /// The most that begin in a second; by default as many as go.
    pub per_second: Option<f64>,
    /// The most that are being opened at a time; by default 256: half of the shortest queue of
    /// connections that servers commonly ask for.
    pub at_once: Option<usize>,
}

const AT_ONCE: usize = 256;
/// How often a look is taken at what takes too long, and progress is told.
const LOOK: Duration = Duration::from_millis(200);

/// Which connections to open.
pub struct Wanted<'a> {
    /// Their places among the clients of this loop, which are their tokens too.
    pub places: Range<usize>,
    /// The number that place 0 has among the connections of all processes, for its source address.
    pub first: usize,
    /// The path of the one at a place.
    pub path: &'a dyn Fn(usize) -> String,
    /// How wide the one at a place is.
    pub width: &'a dyn Fn(usize) -> Width,
    /// What is said before a connection counts as open.
    pub manners: Manners<'a>,
}

/// What is said before a connection counts as open, and by whom.
pub enum Manners<'a> {
    /// Nothing: a server that speaks first fails.
    Silent,
    /// Whatever the server says; nobody listens.
    Talkative,
    /// The first words of Centrifugo's protocol, with this subscription of the one at a place, and the replies.
    Centrifugo(&'a dyn Fn(usize) -> Subscription),
}

/// The loop on which connections are opened.
pub struct Dialer<'a> {
    /// The loop.
    pub poll: &'a mut Poll,
    /// What its clients share.
    pub shared: &'a mut Shared,
    /// Its clients by place. A place whose connection failed is empty.
    pub clients: &'a mut Vec<Option<Client>>,
    /// Where failures are counted.
    pub failures: &'a mut Failures,
    /// How fast.
    pub pace: Pace,
}

impl Dialer<'_> {
    /// Opens the connections, and tells `progress` now and then how many are open.
    ///
    /// Clients that are open already are served meanwhile: their Pings are answered.
    ///
    /// # Errors
    ///
    /// If no connection can be made at all: when that of place 0 fails before any was opened.
    pub fn open(
        &mut self,
        wanted: Wanted<'_>,
        mut progress: impl FnMut(usize),
    ) -> Result<(), Error> {
        let len = wanted.places.end.max(self.clients.len());
        self.clients.resize_with(len, || None);
        let mut events = Events::with_capacity(1024);
        let mut dialing = Dialing::new(wanted, self);
        let mut looked = Instant::now();
        while !dialing.is_over() {
            dialing.begin_some()?;
            dialing.wait(&mut events)?;
            for event in &events {
                dialing.serve(event)?;
            }
            if looked.elapsed() > LOOK {
                looked = Instant::now();
                dialing.give_up_late()?;
                progress(dialing.opened);
            }
        }
        progress(dialing.opened);
        Ok(())
    }
}

struct Dialing<'a, 'd> {
    wanted: Wanted<'a>,
    dialer: &'a mut Dialer<'d>,
    attempts: Vec<Option<Attempt>>,
    began: Instant,
    begun: usize,
    ended: usize,
    opened: usize,
}

struct Attempt {
    client: Client,
    since: Instant,
    /// Of Centrifugo's protocol, once the handshake is over.
    arrival: Option<Arrival>,
}

impl<'a, 'd> Dialing<'a, 'd> {
    fn new(wanted: Wanted<'a>, dialer: &'a mut Dialer<'d>) -> Self {
        let mut attempts = Vec::new();
        attempts.resize_with(wanted.places.len(), || None);
        Dialing {
            wanted,
            dialer,
            attempts,
            began: Instant::now(),
            begun: 0,
            ended: 0,
            opened: 0,
        }
    }

    fn is_over(&self) -> bool {
        self.ended == self.attempts.len()
    }

    fn begin_some(&mut self) -> Result<(), Error> {
        let at_once = self.dialer.pace.at_once.unwrap_or(AT_ONCE).max(1);
        while self.begun < self.attempts.len()
            && self.begun - self.ended < at_once
            && self.due().is_zero()
        {
            let index = self.begun;
            self.begun += 1;
            let place = self.wanted.places.start + index;
            let shared = &*self.dialer.shared;
            let connecting = Client::connect_at(
                shared,
                &(self.wanted.path)(place),
                (self.wanted.width)(place),
                target::source(self.wanted.first + place, shared.target()),
                Token(place),
                self.dialer.poll.registry(),
            );
            match connecting {
                Ok(client) => {
                    let since = Instant::now();
                    self.attempts[index] = Some(Attempt {
                        client,
                        since,
                        arrival: None,
                    });
                }
                Err(error) => self.fail(index, Fault(Failure::Connect, error.to_string()))?,
            }
        }
        Ok(())
    }

    /// How long until one more may begin.
    fn due(&self) -> Duration {
        self.dialer.pace.per_second.map_or(Duration::ZERO, |pace| {
            let due = Duration::from_secs_f64(float(self.begun as u64) / pace);
            due.saturating_sub(self.began.elapsed())
        })
    }

    fn wait(&mut self, events: &mut Events) -> Result<(), Error> {
        let timeout = match self.due() {
            Duration::ZERO => LOOK,
            due => due.min(LOOK),
        };
        wait(self.dialer.poll, events, timeout)
    }

    fn serve(&mut self, readiness: &Readiness) -> Result<(), Error> {
        let Token(place) = readiness.token();
        let index = place.checked_sub(self.wanted.places.start);
        let attempt = index.and_then(|index| self.attempts.get_mut(index)?.take());
        let Some((index, mut attempt)) = index.zip(attempt) else {
            self.serve_open(place, readiness);
            return Ok(());
        };
        match attempt.proceed(place, readiness, self.dialer.shared, &self.wanted.manners) {
            Err(fault) => self.fail(index, fault)?,
            Ok(()) if attempt.is_over(&self.wanted.manners) => {
                self.dialer.clients[place] = Some(attempt.client);
                self.opened += 1;
                self.ended += 1;
            }
            Ok(()) => self.attempts[index] = Some(attempt),
        }
        Ok(())
    }

    fn serve_open(&mut self, place: usize, readiness: &Readiness) {
        let Some(Some(client)) = self.dialer.clients.get_mut(place) else {
            return; // An event of a connection that failed earlier in this turn.
        };
        let (shared, manners) = (&mut *self.dialer.shared, &self.wanted.manners);
        let heard = proceed(client, readiness, shared, |client, message| {
            manners.hear(client, None, message)
        });
        if let Err(Fault(failure, what)) = heard {
            self.dialer.clients[place] = None;
            self.count(failure, place, &what);
        }
    }

    fn give_up_late(&mut self) -> Result<(), Error> {
        for index in 0..self.begun {
            let is_late = |attempt: &mut Attempt| attempt.since.elapsed() > PATIENCE;
            if self.attempts[index].take_if(is_late).is_some() {
                let what = format!("no answer within {PATIENCE:?}");
                self.fail(index, Fault(Failure::Handshake, what))?;
            }
        }
        Ok(())
    }

    fn fail(&mut self, index: usize, Fault(failure, what): Fault) -> Result<(), Error> {
        self.ended += 1;
        let place = self.wanted.places.start + index;
        if place == 0 && self.opened == 0 {
            return Err(Error::Server(format!("{failure}: {what}")));
        }
        self.count(failure, place, &what);
        Ok(())
    }

    fn count(&mut self, failure: Failure, place: usize, what: &str) {
        self.dialer
            .failures
            .add(failure, format_args!("connection {place}: {what}"));
    }
}

impl Attempt {
    fn proceed(
        &mut self,
        place: usize,
        readiness: &Readiness,
        shared: &mut Shared,
        manners: &Manners<'_>,
    ) -> Result<(), Fault> {
        let Attempt {
            client, arrival, ..
        } = self;
        proceed(client, readiness, shared, |client, message| {
            manners.hear(client, arrival.as_mut(), message)
        })?;
        if let Manners::Centrifugo(subscription) = manners
            && client.is_open()
            && arrival.is_none()
        {
            *arrival = Some(Arrival::begin(client, Some(subscription(place)))?);
        }
        Ok(())
    }

    fn is_over(&self, manners: &Manners<'_>) -> bool {
        match manners {
            Manners::Silent | Manners::Talkative => self.client.is_open(),
            Manners::Centrifugo(_) => self.arrival.as_ref().is_some_and(Arrival::is_over),
        }
    }
}

impl Manners<'_> {
    fn hear(
        &self,
        client: &mut Client,
        arrival: Option<&mut Arrival>,
        message: &[u8],
    ) -> Result<(), Fault> {
        match (self, arrival) {
            (Manners::Silent, _) => Err(Fault(Failure::Surplus, "the server spoke first".into())),
            (Manners::Talkative, _) => Ok(()),
            (Manners::Centrifugo(_), Some(arrival)) => arrival.hear(client, message),
            (Manners::Centrifugo(_), None) => answer_pings(client, message).map(drop),
        }
    }
}

/// Goes on with a connection as far as it goes: through its handshake, or hearing and answering.
fn proceed(
    client: &mut Client,
    readiness: &Readiness,
    shared: &mut Shared,
    mut hear: impl FnMut(&mut Client, &[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    client.ready(readiness)?;
    if !client.wants_receive(readiness) {
        return Ok(());
    }
    client.receive(shared, |client, event| match event {
        Event::Message(message) => hear(client, message.payload()),
        _ => Ok(()),
    })
}
