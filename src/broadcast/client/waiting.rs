//! Questions to hooks, and their answers: at once, or later from other threads.

use std::sync::mpsc;

use stentor::{ConnectionId, Context, Sent};

use super::command::{Command, Method};
use super::state::{Client, ClientKey, Waiting};
use super::{Clients, Failure, Flow, World, codes};
use crate::broadcast::Place;
use crate::broadcast::hooks::{Answers, Outcomes, Ticket};

impl Clients {
    /// The ticket of the next question about a client, and where the answer goes.
    pub(super) fn ask(&mut self, ctx: &Context<'_, Place>, key: ClientKey) -> (Ticket, Answers) {
        let client = &mut self.all[key.0 as usize];
        client.asked = client.asked.wrapping_add(1);
        let ticket = Ticket {
            id: client.id,
            number: client.asked,
        };
        let answers = self.answers.get_or_insert_with(|| {
            let (sender, inbox) = mpsc::channel();
            self.inbox = Some(inbox);
            let waker = ctx.waker();
            Answers { sender, waker }
        });
        (ticket, answers.clone())
    }

    /// Other threads have answered.
    pub(in crate::broadcast) fn wake(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
    ) {
        for id in std::mem::take(&mut self.paused) {
            self.resume(ctx, world, id);
        }
        let Some(inbox) = &self.inbox else { return };
        let outcomes: Vec<_> = inbox.try_iter().collect();
        for (ticket, outcome) in outcomes {
            let Some(Place::Client(key)) = ctx.state_of(ticket.id).map(|place| *place) else {
                continue; // It has gone meanwhile.
            };
            self.hear(ctx, world, key, ticket.number, outcome);
        }
    }

    /// A hook has answered about a client.
    pub(super) fn hear(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
        number: u32,
        outcome: Outcomes,
    ) {
        let Some(rare) = &mut self.all[key.0 as usize].rare else {
            return;
        };
        // One answer is enough for each question.
        if let Outcomes::Refresh(refreshed) = outcome {
            if rare.refreshing.take_if(|asked| *asked == number).is_some() {
                self.refreshed(ctx, world.rules, key, refreshed);
            }
            return;
        }
        let answered = rare.waiting.take_if(|waiting| waiting.number == number);
        let Some(Waiting {
            command: Some(command),
            rest,
            ..
        }) = answered
        else {
            return;
        };
        let id = command.id;
        let done = match (command.method, outcome) {
            (Method::Connect(connect), Outcomes::Connect(result)) => {
                self.all[key.0 as usize].is_hooked = true;
                let flow = self.connect_with(ctx, world, key, id, &connect, result);
                self.flush(ctx, key);
                if flow == Flow::Next && !self.all[key.0 as usize].codec().is_blank(&rest) {
                    self.commands(ctx, world, key, &rest);
                }
                return;
            }
            (Method::Subscribe(subscribe), Outcomes::Subscribe(result)) => result
                .map_err(Failure::from)
                .and_then(|grant| self.subscribe_with(ctx, world, key, id, &subscribe, &grant)),
            (Method::Publish(publish), Outcomes::Publish(result)) => result
                .map_err(Failure::from)
                .and_then(|how| self.publish_with(ctx, world, key, id, &publish, &how)),
            (Method::Rpc(_), Outcomes::Rpc(result)) => result
                .map_err(Failure::from)
                .map(|returned| self.returned(key, id, &returned)),
            _ => Err(codes::INTERNAL.into()),
        };
        let flow = match done {
            Ok(()) => Flow::Next,
            Err(failure) => self.fail(ctx, key, id, failure),
        };
        self.flush(ctx, key);
        if flow == Flow::Next && !self.all[key.0 as usize].codec().is_blank(&rest) {
            self.commands(ctx, world, key, &rest);
        }
    }

    /// A client goes on in the next turn, or when it has read what it asked for; `rest` is what it
    /// has said and is not done.
    pub(super) fn pause(&mut self, ctx: &mut Context<'_, Place>, key: ClientKey, rest: &[u8]) {
        let sent = self.flush(ctx, key);
        self.hold(key, rest);
        if sent != Sent::Backpressure {
            self.paused.push(self.all[key.0 as usize].id);
            ctx.waker().wake();
        }
    }

    /// A client goes on when it has read what it asked for.
    pub(super) fn hold(&mut self, key: ClientKey, rest: &[u8]) {
        let client = &mut self.all[key.0 as usize];
        if client.codec().is_blank(rest) {
            return;
        }
        client.asked = client.asked.wrapping_add(1); // No answer is for this.
        client.rare().waiting = Some(Waiting {
            number: client.asked,
            command: None,
            rest: rest.to_vec(),
        });
    }

    /// A client may go on.
    pub(super) fn resume(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        id: ConnectionId,
    ) {
        let Some(Place::Client(key)) = ctx.state_of(id).map(|place| *place) else {
            return; // It has gone meanwhile.
        };
        let Some(rare) = &mut self.all[key.0 as usize].rare else {
            return;
        };
        let waiting = rare.waiting.take_if(|waiting| waiting.command.is_none());
        if let Some(Waiting { rest, .. }) = waiting {
            self.commands(ctx, world, key, &rest);
        }
    }

    /// The command waits for an answer.
    pub(super) fn wait(&mut self, key: ClientKey, id: u32, method: Method) {
        let client = &mut self.all[key.0 as usize];
        let waiting = Waiting {
            number: client.asked,
            command: Some(Command { id, method }),
            rest: Vec::new(),
        };
        client.rare().waiting = Some(waiting);
    }
}

impl Client {
    /// What the client says goes on waiting.
    pub(super) fn keep_waiting(&mut self, rest: &[u8]) {
        if let Some(waiting) = &mut self.rare().waiting {
            waiting.rest.extend_from_slice(rest);
        }
    }
}
