//! Commands are carried out.

use std::collections::BTreeMap;

use serde::Serialize;
use stentor::Context;
use stentor::topic::Position;

use super::super::client::codes::BAD_REQUEST;
use super::super::client::{Clients, Codec, text};
use super::super::exchange::{self, Draft, Exchange};
use super::super::raw::line;
use super::super::{OWN, Place, Rules};
use super::command::{Command, Leave, Pattern, Publish, Refresh, Subscribe, Unsubscribe};
use super::glob;
use super::reply::{self, Outcome};

/// All that commands act on.
pub(super) struct Desk<'d, 'c> {
    pub(super) clients: &'d mut Clients,
    pub(super) exchange: &'d mut Exchange,
    pub(super) ctx: &'d mut Context<'c, Place>,
    pub(super) rules: &'d Rules,
}

impl Desk<'_, '_> {
    /// Carries out a command.
    ///
    /// # Errors
    ///
    /// Those of the protocol.
    pub(super) fn run(&mut self, command: &Command<'_>) -> Outcome {
        match command {
            Command::Publish(publish) => self.publish(publish),
            Command::Broadcast(publish) => self.broadcast(publish),
            Command::Subscribe(subscribe) => self.subscribe(subscribe),
            Command::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe),
            Command::Disconnect(leave) => self.disconnect(leave),
            Command::Refresh(refresh) => self.refresh(refresh),
            Command::Presence(asked) => {
                Exchange::presence(self.ctx, self.rules, Codec::Json, &asked.channel).map(text)
            }
            Command::PresenceStats(asked) => {
                Exchange::presence_stats(self.ctx, self.rules, Codec::Json, &asked.channel)
                    .map(text)
            }
            Command::History(asked) => {
                let query = asked.query();
                Exchange::history(self.ctx, self.rules, Codec::Json, &asked.channel, &query)
                    .map(text)
            }
            Command::HistoryRemove(asked) => {
                Exchange::clear_history(self.ctx, self.rules, &asked.channel).map(nothing)
            }
            Command::Channels(asked) => self.channels(asked),
            Command::Info => Ok(self.info()),
        }
    }

    // ---- publishing ----

    fn publish(&mut self, publish: &Publish<'_>) -> Outcome {
        let content = publish.content()?;
        self.publish_draft(&publish.draft(&content))
    }

    fn broadcast(&mut self, publish: &Publish<'_>) -> Outcome {
        if publish.channels.is_empty() {
            return Err(BAD_REQUEST);
        }
        let content = publish.content()?;
        let draft = publish.draft(&content);
        let responses = publish.channels.iter().map(|channel| {
            let outcome = self.publish_draft(&Draft { channel, ..draft });
            reply::tell(outcome)
        });
        let responses: Vec<String> = responses.collect();
        Ok(format!("{{\"responses\":[{}]}}", responses.join(",")))
    }

    fn publish_draft(&mut self, draft: &Draft<'_>) -> Outcome {
        let position = self.exchange.publish(self.ctx, self.rules, draft)?;
        Ok(match position {
            Some(Position { epoch, offset }) => {
                format!("{{\"offset\":{offset},\"epoch\":\"{epoch}\"}}")
            }
            None => nothing(()),
        })
    }

    // ---- the connections of a user ----

    fn subscribe(&mut self, subscribe: &Subscribe<'_>) -> Outcome {
        exchange::options_of(self.rules, &subscribe.channel)?;
        let (select, grant) = (subscribe.select()?, subscribe.grant()?);
        let (channel, since) = (&subscribe.channel, subscribe.since());
        self.clients
            .subscribe_user(self.ctx, self.rules, &select, channel, &grant, since)
            .map(nothing)
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe) -> Outcome {
        exchange::options_of(self.rules, &unsubscribe.channel)?;
        let (select, channel) = (unsubscribe.select()?, &unsubscribe.channel);
        self.clients.unsubscribe_user(self.ctx, &select, channel);
        Ok(nothing(()))
    }

    fn disconnect(&mut self, leave: &Leave) -> Outcome {
        let (select, disconnect) = (leave.select()?, leave.disconnect()?);
        self.clients
            .disconnect_user(self.ctx, &select, &leave.whitelist, &disconnect);
        Ok(nothing(()))
    }

    fn refresh(&mut self, refresh: &Refresh<'_>) -> Outcome {
        let (select, info) = (refresh.select()?, refresh.info());
        let (expired, expire_at) = (refresh.expired, Some(refresh.expire_at));
        self.clients.refresh_user(
            self.ctx,
            self.rules,
            &select,
            expired,
            expire_at,
            info.as_deref(),
        );
        Ok(nothing(()))
    }

    // ---- what there is ----

    fn channels(&self, asked: &Pattern) -> Outcome {
        let is_meant: Box<dyn Fn(&str) -> bool> = if asked.pattern.is_empty() {
            Box::new(|_| true)
        } else {
            let pattern = glob::compile(&asked.pattern).ok_or(BAD_REQUEST)?;
            Box::new(move |name| pattern.is_match(name))
        };
        let counted = |(name, num_clients)| (name, Counted { num_clients });
        let channels = self.peer_channels().filter(|(name, _)| is_meant(name));
        Ok(line(&Channels {
            channels: channels.map(counted).collect(),
        }))
    }

    fn info(&self) -> String {
        let (mut num_channels, mut num_subs) = (0, 0);
        for (_, subscribers) in self.peer_channels() {
            num_channels += 1;
            num_subs += subscribers;
        }
        let node = self.exchange.node();
        let uptime = self.ctx.now().saturating_duration_since(node.started);
        let described = Described {
            uid: &node.uid,
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            num_clients: self.clients.count(),
            num_users: self.clients.user_count(),
            num_channels,
            num_subs,
            uptime: uptime.as_secs(),
        };
        line(&Nodes { nodes: [described] })
    }

    /// The channels that have a subscriber, with how many they have, without those of the server.
    fn peer_channels(&self) -> impl Iterator<Item = (&str, usize)> {
        self.ctx.topics().filter(|(name, _)| !name.starts_with(OWN))
    }
}

/// The result of what returns none.
fn nothing((): ()) -> String {
    "{}".to_owned()
}

#[derive(Serialize)]
struct Channels<'a> {
    channels: BTreeMap<&'a str, Counted>,
}

#[derive(Serialize)]
struct Counted {
    num_clients: usize,
}

#[derive(Serialize)]
struct Nodes<'a> {
    nodes: [Described<'a>; 1],
}

#[derive(Serialize)]
struct Described<'a> {
    uid: &'a str,
    name: &'a str,
    version: &'a str,
    num_clients: usize,
    num_users: usize,
    num_channels: usize,
    num_subs: usize,
    uptime: u64,
}
