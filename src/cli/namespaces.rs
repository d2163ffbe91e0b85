//! Namespaces as the command line names them: `chat: history-size=100, history-ttl=5m`, and what
//! goes together in one.

use stentor::broadcast::{ChannelOptions, RecoveryMode};

use super::choice::{hint, slow_policy, who, yes_or_no};
use super::flags::TopicFlags;
use super::units::{count, duration, long_duration, size};

/// A namespace, and what is said of its topics.
#[derive(Clone, Debug)]
pub(super) struct NamespaceFlag {
    pub(super) name: String,
    pub(super) options: TopicFlags,
}

const KEYS: [&str; 9] = [
    "history-size",
    "history-ttl",
    "history-meta-ttl",
    "slow",
    "max-queued",
    "max-age",
    "presence",
    "publish",
    "subscribe",
];

/// Reads a namespace.
///
/// # Errors
///
/// What is wrong, with the key that it is wrong with.
pub(super) fn namespace(text: &str) -> Result<NamespaceFlag, String> {
    let usage =
        "is not NAME: KEY=VALUE, KEY=VALUE, such as `chat: history-size=100, history-ttl=5m`";
    // A pattern may hold a colon, the keys and their values hold none.
    let (name, pairs) = text.rsplit_once(':').ok_or(usage)?;
    let mut options = TopicFlags::default();
    for pair in pairs.split(',') {
        let (key, value) = pair.split_once('=').ok_or(usage)?;
        let (key, value) = (key.trim(), value.trim());
        let problem = |problem: String| match problem.strip_prefix("is ") {
            Some(_) => format!("{key}: `{}` {problem}", value.escape_debug()),
            None => problem,
        };
        set(&mut options, key, value).map_err(problem)?;
    }
    Ok(NamespaceFlag {
        name: name.trim().into(),
        options,
    })
}

fn set(options: &mut TopicFlags, key: &str, value: &str) -> Result<(), String> {
    match key {
        "history-size" => once(&mut options.history_size, count(value)?),
        "history-ttl" => once(&mut options.history_ttl, long_duration(value)?),
        "history-meta-ttl" => once(&mut options.history_meta_ttl, long_duration(value)?),
        "slow" => once(&mut options.slow, slow_policy(value)?),
        "max-queued" => once(&mut options.max_queued, size(value)?),
        "max-age" => once(&mut options.max_age, duration(value)?),
        "presence" => once(&mut options.presence, yes_or_no(value)?),
        "publish" => once(&mut options.publish, who(value)?),
        "subscribe" => once(&mut options.subscribe, who(value)?),
        _ => {
            let hint = match hint(key, &KEYS) {
                none if none.is_empty() => format!("; there are {}", KEYS.join(", ")),
                hint => hint,
            };
            return Err(format!("`{}` is no key{hint}", key.escape_debug()));
        }
    }
    .then_some(())
    .ok_or_else(|| format!("{key}: stands there twice; drop one"))
}

/// Sets what is not set yet; answers whether it was not.
fn once<T>(place: &mut Option<T>, value: T) -> bool {
    place.replace(value).is_none()
}

/// Sets what the flags say.
pub(super) fn overlay(options: &mut ChannelOptions, flags: &TopicFlags) {
    let TopicFlags {
        publish,
        subscribe,
        history_size,
        history_ttl,
        history_meta_ttl,
        slow,
        max_queued,
        max_age,
        presence,
    } = flags;
    let (access, topic) = (&mut options.access, &mut options.topic);
    access.publish = publish.unwrap_or(access.publish);
    access.subscribe = subscribe.unwrap_or(access.subscribe);
    topic.history_size = history_size.unwrap_or(topic.history_size);
    topic.history_ttl = history_ttl.unwrap_or(topic.history_ttl);
    topic.history_meta_ttl = history_meta_ttl.unwrap_or(topic.history_meta_ttl);
    topic.slow = slow.unwrap_or(topic.slow);
    topic.max_queued = max_queued.or(topic.max_queued);
    topic.max_age = max_age.or(topic.max_age);
    options.presence = presence.unwrap_or(options.presence);
}

/// The first option of a namespace that does not go with the others, by its key in a file, and what
/// would mend it.
pub(super) fn contradiction(options: &ChannelOptions) -> Option<(&'static str, &'static str)> {
    let topic = &options.topic;
    let (size, ttl) = (topic.history_size, topic.history_ttl);
    let is_cache = options.recovery_mode == RecoveryMode::Cache;
    let recovers = options.force_recovery || options.allow_recovery;
    let recovery = if options.force_recovery {
        "force_recovery"
    } else {
        "allow_recovery"
    };
    [
        (
            size > 0 && ttl.is_zero(),
            "history_size",
            "nothing is kept without a time; add history_ttl, such as 10m",
        ),
        (
            size == 0 && !ttl.is_zero(),
            "history_ttl",
            "nothing is kept without a number; add history_size, such as 100",
        ),
        (
            size > 0 && topic.history_meta_ttl < ttl,
            "history_meta_ttl",
            "is shorter than history_ttl; make it as long at least",
        ),
        (
            recovers && size == 0,
            recovery,
            "there is nothing to recover; add history_size and history_ttl",
        ),
        (
            options.auto_cache_recover && !(options.force_recovery && is_cache),
            "auto_cache_recover",
            "does nothing alone; add force_recovery = true and force_recovery_mode = \"cache\"",
        ),
        (
            options.force_push_join_leave && !options.join_leave,
            "force_push_join_leave",
            "there is nothing to push; add join_leave = true",
        ),
    ]
    .into_iter()
    .find_map(|(is_wrong, key, problem)| is_wrong.then_some((key, problem)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use stentor::SlowPolicy;
    use stentor::broadcast::Who;

    #[test]
    fn a_namespace_is_a_name_and_what_holds_in_it() {
        let NamespaceFlag { name, options } = namespace(
            "chat: history-size=100, history-ttl=5m,history-meta-ttl=60d , slow = drop-oldest, \
             max-queued=64KiB, max-age=3s, presence=yes, publish=nobody, subscribe=anyone",
        )
        .unwrap();
        assert_eq!(name, "chat");
        assert_eq!(options.history_size, Some(100));
        assert_eq!(options.history_ttl, Some(Duration::from_mins(5)));
        assert_eq!(
            options.history_meta_ttl,
            Some(Duration::from_hours(60 * 24))
        );
        assert_eq!(options.slow, Some(SlowPolicy::DropOldest));
        assert_eq!(options.max_queued, Some(64 << 10));
        assert_eq!(options.max_age, Some(Duration::from_secs(3)));
        assert_eq!(options.presence, Some(true));
        assert_eq!(options.publish, Some(Who::Nobody));
        assert_eq!(options.subscribe, Some(Who::Anyone));
        assert_eq!(namespace("a:b.*:presence=no").unwrap().name, "a:b.*");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_key_and_the_remedy() {
        for (text, key, remedy) in [
            ("chat", "is not NAME", "chat: history-size=100"),
            ("chat:", "is not NAME", "chat: history-size=100"),
            ("chat: presence", "is not NAME", "chat: history-size=100"),
            (
                "chat: histori-size=1",
                "`histori-size` is no key; is",
                "`history-size` meant?",
            ),
            ("chat: x=1", "`x` is no key; there are", "subscribe"),
            ("chat: history-size=x", "history-size: `x` is not", "1000"),
            ("chat: history-ttl=5", "history-ttl: `5` is not", "25s"),
            ("chat: slow=drop", "slow: `drop` is none of", "latest"),
            ("chat: presence=true", "presence: `true` is none", "yes, no"),
            (
                "chat: publish=anybody",
                "publish: `anybody` is",
                "anyone, nobody",
            ),
            (
                "chat: presence=no, presence=yes",
                "presence: stands",
                "drop one",
            ),
        ] {
            let problem = namespace(text).unwrap_err();
            assert!(problem.starts_with(key), "{text}: {problem}");
            assert!(problem.contains(remedy), "{text}: {problem}");
        }
    }
}
