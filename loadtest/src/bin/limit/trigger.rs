//! Epoll registrations: edge-triggered once and for all, or level-triggered for what is waited for.
//!
//! mio has edge triggers only. Level-triggered descriptors join its epoll instance behind its back, with its own
//! tokens, so that both kinds go through one loop.

use std::io;
use std::os::fd::AsFd;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use rustix::event::epoll::{self, EventData, EventFlags};

/// When epoll speaks of a connection.
#[derive(Debug)]
pub(crate) enum Trigger {
    /// When input or room appears: registered for both, once.
    Edge,
    /// As long as there is what `flags` name: registered anew whenever they change.
    Level { flags: EventFlags },
}

impl Trigger {
    /// Registers for edges.
    pub(crate) fn edge(
        registry: &Registry,
        source: &mut impl Source,
        token: Token,
    ) -> io::Result<Self> {
        registry.register(source, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Trigger::Edge)
    }

    /// Registers for as long as there is input.
    pub(crate) fn level(registry: &Registry, source: impl AsFd, token: Token) -> io::Result<Self> {
        epoll::add(registry, source, data(token), INPUT)?;
        Ok(Trigger::Level { flags: INPUT })
    }

    /// Whoever has something left to send waits for room, everyone else for input.
    ///
    /// An edge trigger needs not be told; a level trigger would not let the loop sleep otherwise.
    pub(crate) fn await_next(
        &mut self,
        registry: &Registry,
        source: impl AsFd,
        token: Token,
        wants_room: bool,
    ) -> io::Result<()> {
        let wanted = if wants_room { EventFlags::OUT } else { INPUT };
        match self {
            Trigger::Level { flags } if *flags != wanted => {
                epoll::modify(registry, source, data(token), wanted)?;
                *flags = wanted;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

const INPUT: EventFlags = EventFlags::IN.union(EventFlags::RDHUP);

fn data(token: Token) -> EventData {
    EventData::new_u64(token.0 as u64)
}
