//! What is kept of a connection: where it is and how it hears, which it shares with its neighbours.

use std::collections::HashSet;
use std::rc::Rc;

use stentor::Form;

use super::wish::Wish;

/// The state of a connection.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(super) seat: Rc<Seat>,
    /// What it asked for, until it is open.
    pub(super) wish: Option<Box<Wish>>,
}

/// A topic or a pattern, and how it is heard: the same for all connections that do it alike.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Seat {
    pub(super) topic: Box<str>,
    pub(super) hearing: Hearing,
    pub(super) speaking: Speaking,
}

/// How publications reach a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Hearing {
    /// As they were published.
    #[default]
    Plain,
    /// With a header, and beside them what the server has to say of them.
    Header,
    /// With a header, and beside them who comes and goes.
    Presence,
    /// As server-sent events.
    Events,
}

/// What a message of the connection comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Speaking {
    #[default]
    Published,
    /// A topic is published to, not a pattern.
    ToPattern,
    Forbidden,
}

impl Seat {
    /// How publications are written for the connections here.
    pub(super) fn form(&self) -> Form {
        let is_pattern = self.speaking == Speaking::ToPattern;
        match (self.hearing, is_pattern) {
            (Hearing::Plain, _) => Form::PLAIN,
            (Hearing::Header | Hearing::Presence, false) => WITH_HEADER,
            (Hearing::Header | Hearing::Presence, true) => WITH_TOPIC,
            (Hearing::Events, false) => AS_EVENTS,
            (Hearing::Events, true) => AS_EVENTS_OF_PATTERN,
        }
    }
}

pub(super) const WITH_HEADER: Form = Form::custom(1);
pub(super) const WITH_TOPIC: Form = Form::custom(2);
pub(super) const AS_EVENTS: Form = Form::custom(3);
pub(super) const AS_EVENTS_OF_PATTERN: Form = Form::custom(4);

/// The seats that are taken: one in memory for all connections there.
#[derive(Debug, Default)]
pub(super) struct Seats(HashSet<Rc<Seat>>);

impl Seats {
    pub(super) fn take(&mut self, seat: Seat) -> Rc<Seat> {
        if let Some(seat) = self.0.get(&seat) {
            return Rc::clone(seat);
        }
        let seat = Rc::new(seat);
        self.0.insert(Rc::clone(&seat));
        seat
    }

    /// A connection leaves its seat, and with the last one the seat is gone.
    pub(super) fn leave(&mut self, seat: Rc<Seat>) {
        if Rc::strong_count(&seat) <= 2 {
            self.0.remove(&seat);
        }
        drop(seat);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(topic: &str, hearing: Hearing) -> Seat {
        Seat {
            topic: topic.into(),
            hearing,
            speaking: Speaking::Published,
        }
    }

    #[test]
    fn a_seat_is_shared_and_goes_with_its_last_connection() {
        let mut seats = Seats::default();
        let one = seats.take(seat("a", Hearing::Plain));
        let two = seats.take(seat("a", Hearing::Plain));
        let other = seats.take(seat("a", Hearing::Events));
        assert!(Rc::ptr_eq(&one, &two) && !Rc::ptr_eq(&one, &other));
        seats.leave(one);
        assert_eq!(seats.0.len(), 2);
        seats.leave(two);
        seats.leave(other);
        assert!(seats.0.is_empty());
    }

    #[test]
    fn a_connection_keeps_two_words() {
        assert_eq!(size_of::<Option<Place>>(), 16);
    }
}
