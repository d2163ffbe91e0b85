use std::collections::HashMap;
use std::rc::Rc;

use stentor::Form;

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

pub(in crate::broadcast) const WITH_HEADER: Form = Form::custom(1);
pub(in crate::broadcast) const WITH_TOPIC: Form = Form::custom(2);
pub(in crate::broadcast) const AS_EVENTS: Form = Form::custom(3);
pub(in crate::broadcast) const AS_EVENTS_OF_PATTERN: Form = Form::custom(4);

/// The number of a seat, which is all that a connection keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeatId(u32);

/// The seats that are taken: one in memory for all connections there.
#[derive(Debug, Default)]
pub(super) struct Seats {
    ids: HashMap<Rc<Seat>, SeatId>,
    /// By number, each with how many connections are there; those without are `free`.
    slots: Vec<(Rc<Seat>, u32)>,
    free: Vec<SeatId>,
}

impl Seats {
    /// Gives a seat to one connection more.
    pub(super) fn take(&mut self, seat: Seat) -> (SeatId, Rc<Seat>) {
        if let Some(&id) = self.ids.get(&seat) {
            let (seat, taken) = &mut self.slots[id.0 as usize];
            *taken += 1;
            return (id, Rc::clone(seat));
        }
        let seat = Rc::new(seat);
        let slot = (Rc::clone(&seat), 1);
        let id = if let Some(id) = self.free.pop() {
            self.slots[id.0 as usize] = slot;
            id
        } else {
            self.slots.push(slot);
            let id = u32::try_from(self.slots.len() - 1);
            SeatId(id.expect("there are fewer connections"))
        };
        self.ids.insert(Rc::clone(&seat), id);
        (id, seat)
    }

    /// The seat of a connection.
    pub(super) fn get(&self, id: SeatId) -> &Rc<Seat> {
        &self.slots[id.0 as usize].0
    }

    /// A connection leaves its seat, and with the last one the seat is gone.
    pub(super) fn leave(&mut self, id: SeatId) {
        let (seat, taken) = &mut self.slots[id.0 as usize];
        *taken -= 1;
        if *taken == 0 {
            self.ids.remove(seat);
            *seat = Rc::default();
            self.free.push(id);
        }
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
        let (one, _) = seats.take(seat("a", Hearing::Plain));
        let (two, _) = seats.take(seat("a", Hearing::Plain));
        let (other, _) = seats.take(seat("a", Hearing::Events));
        assert!(one == two && one != other);
        seats.leave(one);
        assert_eq!(&*seats.get(two).topic, "a");
        assert_eq!(seats.ids.len(), 2);
        seats.leave(two);
        seats.leave(other);
        assert!(seats.ids.is_empty());
        let (again, _) = seats.take(seat("b", Hearing::Plain));
        assert!([one, other].contains(&again), "a free number is used again");
    }
}
