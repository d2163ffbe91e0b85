//! What happens when time passes: pings, and clients that are late.

use stentor::Context;

use super::dues::{self, Tick, ticks};
use super::record::Record;
use super::state::{ClientKey, Stage, Transport};
use super::{Clients, World, codes, connect};
use crate::broadcast::{CLIENT_TIMER, Place, Rules};

impl Clients {
    /// A timer of here is due.
    pub(in crate::broadcast) fn timer(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
    ) {
        let Some(dues) = &mut self.dues else { return };
        let now = dues.tick(ctx.now());
        dues.disarm(now);
        while let Some(key) = self.dues.as_mut().and_then(|dues| dues.next(now)) {
            let key = ClientKey(key);
            self.all[key.0 as usize].due = 0;
            self.look_at(ctx, world, key);
            let is_there = self.all.get(key.0 as usize);
            if is_there.is_some_and(|client| client.stage != Stage::Over) {
                self.look_again(ctx, world.rules, key);
            }
        }
        self.arm(ctx);
    }

    pub(super) fn arm(&mut self, ctx: &mut Context<'_, Place>) {
        let now = ctx.now();
        if let Some(after) = self.dues.as_mut().and_then(|dues| dues.arm(now)) {
            ctx.set_timer(after, CLIENT_TIMER);
        }
    }

    /// Something about a client may be due.
    pub(super) fn look_at(
        &mut self,
        ctx: &mut Context<'_, Place>,
        world: &mut World<'_>,
        key: ClientKey,
    ) {
        let Some(now) = self.dues.as_ref().map(|dues| dues.tick(ctx.now())) else {
            return;
        };
        let options = &world.rules.client;
        let client = &mut self.all[key.0 as usize];
        if client.stage == Stage::Over {
            // It was refused, and has not left.
            return self.disconnect(ctx, key, &codes::STALE);
        }
        if client.stage == Stage::Fresh {
            if now >= client.since + ticks(options.stale_close_delay) {
                self.disconnect(ctx, key, &codes::STALE);
            }
            return;
        }
        if client.ping_at != 0 && now >= client.ping_at {
            if client.is_pinged && client.is_waiting() {
                // So may its pong.
                client.ping_at = now + ticks(options.pong_timeout);
            } else if client.is_pinged {
                return self.disconnect(ctx, key, &codes::NO_PONG);
            } else {
                self.ping(ctx, world.rules, key, now);
            }
        }
        self.look_at_expiry(ctx, world, key);
    }

    pub(super) fn ping(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        key: ClientKey,
        now: dues::Tick,
    ) {
        let options = &rules.client;
        let client = &mut self.all[key.0 as usize];
        match client.transport {
            Transport::UniSse => ctx.write_to(client.id, b"data: {}\n\n"),
            Transport::UniWebSocket | Transport::WebSocket(_) => {
                let codec = client.codec();
                let mut nothing = Vec::new();
                codec.append(&Record::new(codec).end(), &mut nothing);
                ctx.send_to(client.id, codec.frame(&nothing))
            }
        };
        client.is_pinged = !client.transport.is_uni();
        client.ping_at = now
            + if client.is_pinged {
                ticks(options.pong_timeout)
            } else {
                ticks(options.ping_interval)
            };
    }

    /// Notes when to look at a client next.
    pub(super) fn look_again(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        key: ClientKey,
    ) {
        let now = ctx.now();
        let Some(dues) = &mut self.dues else { return };
        let tick = dues.tick(now);
        let client = &mut self.all[key.0 as usize];
        let due = match client.stage {
            Stage::Over => 0,
            Stage::Fresh => client.since + ticks(rules.client.stale_close_delay),
            Stage::Connected => {
                let expiry = connect::expiry(client, rules, tick);
                let ping = Some(client.ping_at).filter(|&at| at != Tick::MAX);
                expiry.into_iter().chain(ping).min().unwrap_or(0)
            }
        };
        let due = if due == 0 { 0 } else { due.max(tick + 1) };
        dues.set(key.0, client.due, due);
        client.due = due;
        self.arm(ctx);
    }
}
