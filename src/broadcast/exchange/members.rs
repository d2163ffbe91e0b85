//! Who is in a channel.

use std::collections::HashSet;

use stentor::Context;

use super::super::Place;
use super::super::client::{ClientInfo, Codec, Record, client_info, info_record, listed};

/// The members by their id.
pub(super) fn presence(ctx: &Context<'_, Place>, codec: Codec, channel: &str) -> Vec<u8> {
    let members = listed(ctx, channel);
    let members = members.iter().map(|member| {
        let info = client_info(&member.info, member.id);
        let id = ClientInfo::of(&info).client.into_owned();
        (id, info_record(codec, &info).into_owned())
    });
    Record::new(codec).map(("presence", 1), members).end()
}

/// How many they are, and how many users.
pub(super) fn stats(ctx: &Context<'_, Place>, codec: Codec, channel: &str) -> Vec<u8> {
    let members = listed(ctx, channel);
    let mut users: HashSet<String> = HashSet::new();
    for member in &members {
        let info = client_info(&member.info, member.id);
        users.insert(ClientInfo::of(&info).user.into_owned());
    }
    Record::new(codec)
        .always_number(("num_clients", 1), members.len() as u64)
        .always_number(("num_users", 2), users.len() as u64)
        .end()
}
