//! Which connections a user has, and what is done with all of them.

use std::collections::HashMap;
use std::rc::Rc;

use stentor::Context;

use super::codes::{self, Disconnect, ErrorReply};
use super::connect::lifetime;
use super::record::Record;
use super::state::{Client, ClientKey, Stage};
use super::{Clients, Failure, command, push};
use crate::broadcast::hooks::Subscribed;
use crate::broadcast::{Place, Rules};

/// The connections of each user. Anonymous ones are in no list: they may be very many, and nobody
/// means them all.
#[derive(Debug, Default)]
pub(super) struct Users(HashMap<Rc<str>, Vec<ClientKey>>);

impl Users {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn of(&self, user: &str) -> &[ClientKey] {
        self.0.get(user).map_or(&[], |keys| keys)
    }
}

/// Some connections of a user; what is empty does not narrow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::broadcast) struct Selection<'a> {
    pub(in crate::broadcast) user: &'a str,
    pub(in crate::broadcast) client: &'a str,
    pub(in crate::broadcast) session: &'a str,
}

impl Clients {
    /// Enters a client among the connections of its user.
    pub(super) fn join_user(&mut self, key: ClientKey, user: &str) {
        let client = &mut self.all[key.0 as usize];
        if user.is_empty() {
            return;
        }
        let users = &mut self.users.0;
        // One name in memory for all connections of a user.
        let name = match users.get_key_value(user) {
            Some((name, _)) => Rc::clone(name),
            None => user.into(),
        };
        let keys = users.entry(Rc::clone(&name)).or_default();
        client.user = name;
        client.place = keys.len() as u32;
        keys.push(key);
    }

    /// A client does not count among the connections of its user any more.
    pub(super) fn leave_user(&mut self, key: ClientKey) {
        let client = &mut self.all[key.0 as usize];
        let place = std::mem::replace(&mut client.place, u32::MAX) as usize;
        let user = Rc::clone(&client.user);
        let Some(keys) = self.users.0.get_mut(&user) else {
            return;
        };
        if keys.get(place) != Some(&key) {
            return; // It has left before.
        }
        keys.swap_remove(place);
        if let Some(&moved) = keys.get(place) {
            self.all[moved.0 as usize].place = place as u32;
        }
        if keys.is_empty() {
            self.users.0.remove(&user);
        }
    }

    /// The connections that are meant.
    fn select(&self, selection: &Selection<'_>) -> Vec<ClientKey> {
        let Selection {
            user,
            client,
            session,
        } = *selection;
        let is_meant = |one: &Client| {
            let uuid = one.uuid.text();
            let is_it = |named: &str| named.is_empty() || named == uuid;
            one.stage == Stage::Connected && is_it(client) && is_it(session)
        };
        if !user.is_empty() {
            let keys = self.users.of(user).iter().copied();
            return keys
                .filter(|key| is_meant(&self.all[key.0 as usize]))
                .collect();
        }
        let all = self.all.iter();
        let anonymous = all.filter(|(_, one)| one.user.is_empty() && is_meant(one));
        anonymous.map(|(key, _)| ClientKey(key as u32)).collect()
    }

    /// Subscribes the connections of a user.
    pub(in crate::broadcast) fn subscribe_user(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        selection: &Selection<'_>,
        channel: &str,
        grant: &Subscribed,
        since: Option<(u64, &str)>,
    ) -> Result<(), ErrorReply> {
        let mut done = Ok(());
        for key in self.select(selection) {
            if self.all[key.0 as usize].sub(channel).is_some() {
                done = Err(codes::INTERNAL); // As the reference server answers it.
                continue;
            }
            let since = since.map(|(offset, epoch)| command::Since {
                recover: true,
                offset,
                epoch: epoch.into(),
            });
            match self.bring(ctx, rules, key, channel, grant, since) {
                Ok(pushes) => {
                    for push in &pushes {
                        self.push(ctx, key, push);
                    }
                    self.fresh.clear();
                    self.look_again(ctx, rules, key);
                }
                Err(Failure::Error(error)) => done = Err(error),
                Err(Failure::Disconnect(end)) => self.disconnect(ctx, key, &end),
            }
        }
        done
    }

    /// Ends a subscription of the connections of a user.
    pub(in crate::broadcast) fn unsubscribe_user(
        &mut self,
        ctx: &mut Context<'_, Place>,
        selection: &Selection<'_>,
        channel: &str,
    ) {
        for key in self.select(selection) {
            if self.all[key.0 as usize].sub(channel).is_some() {
                self.drop_sub(ctx, key, channel);
                let codec = self.all[key.0 as usize].codec();
                let push = push::unsubscribe(codec, channel, 2000, "server unsubscribe");
                self.push(ctx, key, &push);
            }
        }
    }

    /// Ends the connections of a user, but for those that are listed.
    pub(in crate::broadcast) fn disconnect_user(
        &mut self,
        ctx: &mut Context<'_, Place>,
        selection: &Selection<'_>,
        whitelist: &[String],
        disconnect: &Disconnect,
    ) {
        for key in self.select(selection) {
            let uuid = self.all[key.0 as usize].uuid.text();
            if !whitelist.contains(&uuid) {
                self.disconnect(ctx, key, disconnect);
            }
        }
    }

    /// Gives the connections of a user more time, or none.
    pub(in crate::broadcast) fn refresh_user(
        &mut self,
        ctx: &mut Context<'_, Place>,
        rules: &Rules,
        selection: &Selection<'_>,
        expired: bool,
        expire_at: Option<u64>,
        info: Option<&str>,
    ) {
        for key in self.select(selection) {
            if expired {
                self.disconnect(ctx, key, &codes::CONNECTION_EXPIRED);
                continue;
            }
            if let Some(info) = info {
                self.all[key.0 as usize].rare().info = info.into();
            }
            if let Some(expire_at) = expire_at {
                if expire_at != 0 && expire_at <= super::unix_now() {
                    self.disconnect(ctx, key, &codes::CONNECTION_EXPIRED);
                    continue;
                }
                let client = &mut self.all[key.0 as usize];
                client.expire_at = expire_at;
                let codec = client.codec();
                let lifetime = lifetime(codec, expire_at).end();
                let push = Record::new(codec).record(("refresh", 12), &lifetime);
                self.push(ctx, key, &push.end());
                self.look_again(ctx, rules, key);
            }
        }
    }
}
