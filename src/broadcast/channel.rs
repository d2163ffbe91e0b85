//! What holds for the channels of a namespace, named as Centrifugo names it; a channel is a topic.

use regex::Regex;
use stentor::TopicOptions;

use super::Access;

/// The options of a namespace of channels; all off by default.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are switches of the configuration"
)]
pub struct ChannelOptions {
    /// What the engine does for its topics: history, and who reads too slowly. Its `presence` is
    /// not looked at.
    pub topic: TopicOptions,
    /// Who uses its topics without a protocol. What anyone may do there, any client may do here.
    pub access: Access,
    /// It is kept who is subscribed.
    pub presence: bool,
    /// Who subscribes and who leaves is told to those who ask for it.
    pub join_leave: bool,
    /// ...and to all others.
    pub force_push_join_leave: bool,
    /// Subscribers are told the position in the stream.
    pub force_positioning: bool,
    /// ...if they ask for it.
    pub allow_positioning: bool,
    /// Subscribers recover what they missed.
    pub force_recovery: bool,
    /// ...if they ask for it.
    pub allow_recovery: bool,
    /// What recovery means.
    pub recovery_mode: RecoveryMode,
    /// In cache mode the latest publication comes to each subscriber, asked for or not.
    pub auto_cache_recover: bool,
    /// Clients with a user may subscribe.
    pub allow_subscribe_for_client: bool,
    /// ...and those without.
    pub allow_subscribe_for_anonymous: bool,
    /// Who may publish.
    pub publish: Permission,
    /// Who may ask who is there.
    pub see_presence: Permission,
    /// Who may read the history.
    pub see_history: Permission,
    /// A name that ends in `#ID,ID` is for these users.
    pub allow_user_limited_channels: bool,
    /// What the name behind the namespace must look like; without it, ASCII.
    pub channel_regex: Option<Regex>,
    /// What a publication must be.
    pub publication_data_format: DataFormat,
    /// Subscribing is asked of the hooks.
    pub subscribe_proxy_enabled: bool,
    /// Publishing is asked of the hooks.
    pub publish_proxy_enabled: bool,
}

/// What a subscriber that comes back gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryMode {
    /// All publications that it missed.
    #[default]
    Stream,
    /// The latest one: a publication is the state and not a change of it.
    Cache,
}

/// What a publication must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataFormat {
    /// Anything but nothing.
    #[default]
    Any,
    /// JSON.
    Json,
    /// A JSON object.
    JsonObject,
    /// Anything, even nothing.
    Binary,
}

/// Who may do something in a channel. `anonymous` alone allows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permission {
    /// Every client.
    pub client: bool,
    /// Those who are subscribed.
    pub subscriber: bool,
    /// Those without a user as well.
    pub anonymous: bool,
}

impl Permission {
    /// Whether a client may; `user` is empty for an anonymous one.
    pub(super) fn allows(self, user: &str, is_subscribed: bool) -> bool {
        (self.client || self.subscriber && is_subscribed) && (!user.is_empty() || self.anonymous)
    }
}

impl ChannelOptions {
    /// What the engine has to do.
    pub(super) fn topic_options(&self) -> TopicOptions {
        TopicOptions {
            presence: self.presence || self.join_leave,
            ..self.topic.clone()
        }
    }

    /// Whether a history is kept.
    pub fn keeps_history(&self) -> bool {
        self.topic.history_size > 0 && !self.topic.history_ttl.is_zero()
    }
}

/// What a name says of its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name<'n> {
    /// The text before the first colon, without a leading `$`.
    pub(super) namespace: Option<&'n str>,
    /// What is behind that.
    pub(super) rest: &'n str,
    /// It begins with `$`: subscribing takes a token.
    pub(super) is_private: bool,
    /// The users behind the last `#`, with commas in between.
    pub(super) users: Option<&'n str>,
}

impl<'n> Name<'n> {
    pub(super) fn of(channel: &'n str) -> Self {
        let public = channel.strip_prefix('$');
        let name = public.unwrap_or(channel);
        let (namespace, rest) = match name.split_once(':') {
            Some((namespace, rest)) => (Some(namespace), rest),
            None => (None, name),
        };
        Self {
            namespace,
            rest,
            is_private: public.is_some(),
            users: name.rsplit_once('#').map(|(_, users)| users),
        }
    }

    /// Whether the name is for this user among others.
    pub(super) fn names(&self, user: &str) -> bool {
        let is_it = |users: &str| users.split(',').any(|named| named == user);
        !user.is_empty() && self.users.is_some_and(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_namespace_and_its_users() {
        let of = |name| {
            let name = Name::of(name);
            (name.namespace, name.rest, name.is_private, name.users)
        };
        assert_eq!(of("news"), (None, "news", false, None));
        assert_eq!(of("$news"), (None, "news", true, None));
        assert_eq!(of("a:b:c"), (Some("a"), "b:c", false, None));
        assert_eq!(of("$a:b"), (Some("a"), "b", true, None));
        assert_eq!(
            of("a:b#1#42,43"),
            (Some("a"), "b#1#42,43", false, Some("42,43"))
        );
        assert!(Name::of("b#42,43").names("43"));
        assert!(!Name::of("b#42,43").names("4"));
        assert!(!Name::of("b#").names(""));
    }

    #[test]
    fn anonymous_alone_allows_nothing() {
        let permission = |client, subscriber, anonymous| Permission {
            client,
            subscriber,
            anonymous,
        };
        assert!(!permission(false, false, true).allows("", true));
        assert!(!permission(true, false, false).allows("", true));
        assert!(permission(true, false, true).allows("", false));
        assert!(permission(false, true, false).allows("42", true));
        assert!(!permission(false, true, false).allows("42", false));
    }
}
