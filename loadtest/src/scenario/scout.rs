//! A client of Centrifugo's protocol that goes ahead of many: it learns where a channel stands, and publishes what they miss.

use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use stentor::protocol::Event;

use crate::centrifugo::{self, Arrival, Position, Said, Since, Subscription};
use crate::client::{Client, Fault, PATIENCE, Shared};
use crate::failure::Error;
use crate::target::Target;
use crate::wait::wait;

/// Payload bytes of what it publishes.
const SIZE: usize = 64;
/// How often it looks whether it waits too long.
const LOOK: Duration = Duration::from_millis(200);

/// A client with a channel.
pub(super) struct Scout {
    poll: Poll,
    shared: Shared,
    client: Client,
    channel: String,
}

impl Scout {
    /// Connects, subscribes to a channel and says where that stands.
    ///
    /// # Errors
    ///
    /// If that is refused, or the server keeps no history.
    pub(super) fn arrive(target: &Target, channel: &str) -> Result<(Self, Position), Error> {
        let poll = Poll::new().map_err(Error::local("epoll"))?;
        let shared = Shared::new(target.clone());
        let client = Client::connect(&shared, None, Token(0), poll.registry())
            .map_err(Error::local("connect"))?;
        let mut scout = Scout {
            poll,
            shared,
            client,
            channel: channel.to_owned(),
        };
        let subscription = Subscription {
            channel: channel.to_owned(),
            since: Since::Here,
        };
        let deadline = Instant::now() + PATIENCE;
        while !scout.client.is_open() {
            scout.turn(deadline, |_, _| Ok(()))?;
        }
        let mut arrival = Arrival::begin(&mut scout.client, Some(subscription)).map_err(told)?;
        while !arrival.is_over() {
            scout.turn(deadline, |client, message| arrival.hear(client, message))?;
        }
        let position = arrival.position().ok_or_else(|| {
            let what = format!("the server keeps no history of {channel}: nothing is recovered");
            Error::Server(what)
        })?;
        Ok((scout, position))
    }

    /// Publishes to the channel, and waits until the server has confirmed all of it.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub(super) fn publish(&mut self, count: usize) -> Result<(), Error> {
        for nth in 0..count as u64 {
            let (text, mut command) = (text(), Vec::new());
            centrifugo::publish(nth, &self.channel, &mut command, |out| out.extend(text));
            let command = str::from_utf8(&command).expect("letters were written");
            self.client.send(command);
        }
        self.client.flush().map_err(told)?;
        let (mut confirmed, deadline) = (0, Instant::now() + PATIENCE);
        while confirmed < count as u64 {
            self.turn(deadline, |client, message| {
                centrifugo::read(message, |said| {
                    match said {
                        Said::Publication(_) => {} // Its own.
                        Said::Ping => client.send(centrifugo::PONG),
                        Said::Reply(reply) => {
                            reply.require_published(confirmed)?;
                            confirmed += 1;
                        }
                    }
                    Ok(())
                })
            })?;
        }
        Ok(())
    }

    fn turn(
        &mut self,
        deadline: Instant,
        mut hear: impl FnMut(&mut Client, &[u8]) -> Result<(), Fault>,
    ) -> Result<(), Error> {
        if Instant::now() > deadline {
            let what = format!("Centrifugo: no answer within {PATIENCE:?}");
            return Err(Error::Server(what));
        }
        let mut events = Events::with_capacity(8);
        wait(&mut self.poll, &mut events, LOOK)?;
        for readiness in &events {
            self.client.ready(readiness).map_err(told)?;
            if !self.client.wants_receive(readiness) {
                continue;
            }
            let received = self
                .client
                .receive(&mut self.shared, |client, event| match event {
                    Event::Message(message) => hear(client, message.payload()),
                    _ => Ok(()),
                });
            received.map_err(told)?;
        }
        Ok(())
    }
}

fn text() -> impl Iterator<Item = u8> {
    std::iter::repeat_with(|| fastrand::alphanumeric() as u8).take(SIZE)
}

fn told(Fault(failure, what): Fault) -> Error {
    Error::Server(format!("{failure}: {what}"))
}
