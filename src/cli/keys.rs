//! Which keys a configuration file has, and what each of them sets: named and nested as Centrifugo
//! names them where they mean the same.

use stentor::broadcast::hooks::{HttpHook, HttpHookRules};
use stentor::broadcast::{
    ChannelOptions, DataFormat, Origins, Permission, RecoveryMode, Rules, TokenRules, Who,
};
use stentor::topic::NamespaceId;
use stentor::{Config, Endpoint};
use tracing::level_filters::LevelFilter;

use super::choice::{slow_policy, who};
use super::file::Section;
use super::flags::{TopicFlags, endpoint, origin};
use super::namespaces;
use super::values::{
    count, list, long_time, one_of, pairs, regex, size, some_text, text, time, word, yes,
};

/// What a file says, in the places where it is used; what it does not say is as it was.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) listen: Vec<Endpoint>,
    pub(super) admin_listen: Vec<Endpoint>,
    pub(super) log_level: Option<LevelFilter>,
    pub(super) config: Config,
    pub(super) rules: Rules,
    pub(super) hooks: HttpHookRules,
    pub(super) overview: Option<Who>,
    /// What the file says of `Limits::max_topics_per_connection`.
    pub(super) max_topics_per_connection: Option<usize>,
    /// ...and of `ClientOptions::channel_limit`.
    pub(super) channel_limit: Option<usize>,
}

impl Draft {
    /// Reads everything but the channels: what holds for them by default depends on the rest.
    pub(super) fn read(&mut self, root: &Section<'_>) {
        self.server(&root.section("server"));
        let timeout = &mut self.config.timeouts.drain;
        root.section("shutdown").set("timeout", timeout, time);
        let level = root.section("log").get("level", one_of(&LEVELS));
        self.log_level = level.or(self.log_level);
        self.transports(root);
        self.client(&root.section("client"));
        self.tokens(&root.section("client"));
        self.hooks(root);
        self.doors(root);
    }

    fn server(&mut self, server: &Section<'_>) {
        server.set("listen", &mut self.listen, list(endpoint));
        server.set("admin_listen", &mut self.admin_listen, list(endpoint));
        self.overview = server.get("overview", word(who)).or(self.overview);
        let limits = &mut self.config.limits;
        server.set(
            "max_fragments",
            &mut self.config.protocol.max_fragments,
            count,
        );
        let per_ip = server.get("max_connections_per_ip", count);
        limits.max_connections_per_ip = per_ip.or(limits.max_connections_per_ip);
        let posts = &mut self.rules.max_posts_per_ip;
        server.set("max_posts_per_ip", posts, count);
        server.set("outbox_soft", &mut limits.outbox_soft, size);
        server.set("max_topics", &mut limits.max_topics, count);
        self.max_topics_per_connection = server.get("max_topics_per_connection", count);
        server.set("max_patterns", &mut limits.max_patterns, count);
        server.set("max_pings", &mut limits.max_pings, count);
        server.set("max_input", &mut limits.max_input, size);
        server.set("max_output", &mut limits.max_output, size);
        server.set("max_history", &mut limits.max_history, size);
        server.set("max_topic_memory", &mut limits.max_topic_memory, size);
        server.set("receive_buffer", &mut limits.receive_buffer, size);
        let timeouts = &mut self.config.timeouts;
        server.set("idle_timeout", &mut timeouts.idle, time);
        server.set("pong_timeout", &mut timeouts.pong, time);
        server.set("handshake_timeout", &mut timeouts.handshake, time);
        server.set("message_timeout", &mut timeouts.message, time);
        server.set("write_timeout", &mut timeouts.write, time);
        server.set("lag_timeout", &mut timeouts.lag, time);
        server.set("idempotency_window", &mut timeouts.idempotency, time);
        server.set("close_timeout", &mut timeouts.close, time);
    }

    fn transports(&mut self, root: &Section<'_>) {
        let client = &mut self.rules.client;
        let largest = &mut self.config.protocol.max_message_size;
        root.section("websocket")
            .set("message_size_limit", largest, size);
        root.section("uni_websocket")
            .set("enabled", &mut client.uni_websocket, yes);
        root.section("uni_sse")
            .set("enabled", &mut client.uni_sse, yes);
    }

    fn client(&mut self, client: &Section<'_>) {
        let options = &mut self.rules.client;
        client.set("insecure", &mut options.insecure, yes);
        let anonymous = &mut options.allow_anonymous_connect_without_token;
        client.set("allow_anonymous_connect_without_token", anonymous, yes);
        let anonymous = &mut options.disallow_anonymous_connection_tokens;
        client.set("disallow_anonymous_connection_tokens", anonymous, yes);
        client.set("ping_interval", &mut options.ping_interval, time);
        client.set("pong_timeout", &mut options.pong_timeout, time);
        client.set("stale_close_delay", &mut options.stale_close_delay, time);
        client.set(
            "expired_close_delay",
            &mut options.expired_close_delay,
            time,
        );
        client.set(
            "expired_sub_close_delay",
            &mut options.expired_sub_close_delay,
            time,
        );
        client.set(
            "user_connection_limit",
            &mut options.user_connection_limit,
            count,
        );
        let limit = &mut options.recovery_max_publication_limit;
        client.set("recovery_max_publication_limit", limit, count);
        let limit = &mut options.history_max_publication_limit;
        client.set("history_max_publication_limit", limit, count);
        if options.pong_timeout >= options.ping_interval {
            client.wrong(
                "pong_timeout",
                "is not shorter than ping_interval; make it shorter",
            );
        }
        self.channel_limit = client.get("channel_limit", count);
        // As there, 0 is no limit of its own.
        let limit = client
            .get("connection_limit", count)
            .filter(|&limit| limit > 0);
        let limits = &mut self.config.limits;
        limits.max_connections = limit.unwrap_or(limits.max_connections);
        client.set("queue_max_size", &mut limits.outbox_hard, size);
        if let Some(origins) = client.get("allowed_origins", list(origin)) {
            self.rules.origins = Origins::new(origins);
        }
        let personal = client.section("subscribe_to_user_personal_channel");
        let namespace = personal.get("personal_channel_namespace", some_text);
        if personal.get("enabled", yes) == Some(true) {
            self.rules.client.personal_channel = Some(namespace.flatten().unwrap_or_default());
        }
    }

    fn tokens(&mut self, client: &Section<'_>) {
        tokens(&client.section("token"), &mut self.rules.tokens);
        let section = client.section("subscription_token");
        let mut of_their_own = TokenRules::default();
        tokens(&section, &mut of_their_own);
        match section.get("enabled", yes) {
            Some(true) if !of_their_own.is_some() => {
                section.wrong(
                    "enabled",
                    "there is no key; add hmac_secret_key or another one",
                );
            }
            Some(true) => self.rules.subscription_tokens = Some(of_their_own),
            _ if of_their_own.is_some() => {
                section.wrong("enabled", "its keys would not be used; add enabled = true");
            }
            _ => {}
        }
    }

    fn hooks(&mut self, root: &Section<'_>) {
        let hooks = &mut self.hooks;
        let of_client = root.section("client").section("proxy");
        for (key, place) in [
            ("connect", &mut hooks.connect),
            ("refresh", &mut hooks.refresh),
        ] {
            let section = of_client.section(key);
            let is_enabled = section.get("enabled", yes) == Some(true);
            *place = hook(&section).filter(|_| is_enabled);
            if is_enabled && place.is_none() {
                section.wrong("enabled", "nobody is asked; add endpoint = \"http://…\"");
            }
        }
        let of_channels = root.section("channel").section("proxy");
        hooks.subscribe = hook(&of_channels.section("subscribe"));
        hooks.publish = hook(&of_channels.section("publish"));
        let rpc = root.section("rpc");
        let methods = rpc.section("without_namespace");
        let is_enabled = methods.get("proxy_enabled", yes) == Some(true);
        hooks.rpc = hook(&rpc.section("proxy")).filter(|_| is_enabled);
        if is_enabled && hooks.rpc.is_none() {
            methods.wrong("proxy_enabled", "nobody is asked; add rpc.proxy.endpoint");
        }
    }

    fn doors(&mut self, root: &Section<'_>) {
        let api = root.section("http_api");
        let rules = &mut self.rules;
        api.set("key", &mut rules.api.key, some_text);
        api.set("insecure", &mut rules.api.insecure, yes);
        let modes = [("", false), ("transport", true)];
        api.set(
            "error_mode",
            &mut rules.api.transport_errors,
            one_of(&modes),
        );
        let admin = root.section("admin");
        admin.set("enabled", &mut rules.console.enabled, yes);
        admin.set("password", &mut rules.console.admin_token, some_text);
    }

    /// Whether somebody says who clients are and what they may do.
    pub(super) fn is_guarded(&self) -> bool {
        let HttpHookRules {
            connect,
            refresh,
            subscribe,
            publish,
            rpc,
            ..
        } = &self.hooks;
        let hooks = [connect, refresh, subscribe, publish, rpc];
        let Rules {
            tokens,
            subscription_tokens,
            api,
            ..
        } = &self.rules;
        tokens.is_some()
            || subscription_tokens.is_some()
            || api.key.is_some()
            || hooks.iter().any(|hook| hook.is_some())
    }

    /// Reads what holds for channels: `usual` where nothing is said, also in namespaces, which do not
    /// follow what is said of channels without one. Of these, the flags have the last word.
    pub(super) fn channels(
        &mut self,
        root: &Section<'_>,
        mut usual: ChannelOptions,
        flags: &TopicFlags,
    ) {
        let channel = root.section("channel");
        channel.set(
            "max_length",
            &mut self.rules.client.channel_max_length,
            count,
        );
        if !(1..=255).contains(&self.rules.client.channel_max_length) {
            channel.wrong("max_length", "is not from 1 to 255; 255 is good for all");
        }
        channel.set(
            "history_meta_ttl",
            &mut usual.topic.history_meta_ttl,
            long_time,
        );
        let without = channel.section("without_namespace");
        let mut default = usual.clone();
        read_channel(&without, &mut default);
        namespaces::overlay(&mut default, flags);
        self.check_channel(&without, &default);
        *self.rules.channels.get_mut(NamespaceId::DEFAULT) = default;
        for section in channel.sections("namespaces") {
            let name = section.get("name", text);
            let mut options = usual.clone();
            read_channel(&section, &mut options);
            self.check_channel(&section, &options);
            let Some(name) = name else {
                section.wrong("name", "a namespace has one; add name = \"…\"");
                continue;
            };
            if let Err(error) = self.rules.channels.insert(&name, options) {
                let name = name.escape_debug();
                section.wrong(
                    "name",
                    format_args!("`{name}`: {error}; give it another one"),
                );
            }
        }
        self.personal_channel(root);
    }

    fn check_channel(&self, section: &Section<'_>, options: &ChannelOptions) {
        if let Some((key, problem)) = namespaces::contradiction(options) {
            section.wrong(key, problem);
        }
        if options.subscribe_proxy_enabled && self.hooks.subscribe.is_none() {
            let problem = "nobody is asked; add channel.proxy.subscribe.endpoint";
            section.wrong("subscribe_proxy_enabled", problem);
        }
        if options.publish_proxy_enabled && self.hooks.publish.is_none() {
            let problem = "nobody is asked; add channel.proxy.publish.endpoint";
            section.wrong("publish_proxy_enabled", problem);
        }
    }

    fn personal_channel(&self, root: &Section<'_>) {
        let Some(name) = &self.rules.client.personal_channel else {
            return;
        };
        let mut names = self.rules.channels.names();
        if !name.is_empty() && names.all(|(_, known)| known != name) {
            let section = root
                .section("client")
                .section("subscribe_to_user_personal_channel");
            let problem = "is none of channel.namespaces; add it there";
            section.wrong("personal_channel_namespace", problem);
        }
    }
}

fn read_channel(section: &Section<'_>, options: &mut ChannelOptions) {
    topic_options(section, options);
    subscriber_options(section, options);
    permissions(section, options);
}

fn tokens(section: &Section<'_>, rules: &mut TokenRules) {
    section.set("hmac_secret_key", &mut rules.hmac_secret_key, some_text);
    let previous = &mut rules.hmac_previous_secret_key;
    section.set("hmac_previous_secret_key", previous, some_text);
    section.set("rsa_public_key", &mut rules.rsa_public_key, some_text);
    section.set("ecdsa_public_key", &mut rules.ecdsa_public_key, some_text);
    section.set("jwks_public_endpoint", &mut rules.jwks, some_text);
    section.set("audience", &mut rules.audience, some_text);
    section.set("audience_regex", &mut rules.audience_regex, regex);
    section.set("issuer", &mut rules.issuer, some_text);
    section.set("issuer_regex", &mut rules.issuer_regex, regex);
    section.set("user_id_claim", &mut rules.user_id_claim, some_text);
}

/// A backend that is asked, if the section names one.
fn hook(section: &Section<'_>) -> Option<HttpHook> {
    let mut hook = HttpHook::default();
    section.set("timeout", &mut hook.timeout, time);
    section.set(
        "http_headers",
        &mut hook.http_headers,
        list(|name| Ok(name.into())),
    );
    section
        .section("http")
        .set("static_headers", &mut hook.static_headers, pairs);
    hook.endpoint = section.get("endpoint", some_text)??;
    Some(hook)
}

/// What the engine does.
fn topic_options(section: &Section<'_>, options: &mut ChannelOptions) {
    let topic = &mut options.topic;
    section.set("history_size", &mut topic.history_size, count);
    section.set("history_ttl", &mut topic.history_ttl, long_time);
    // As there, 0 is what holds for all.
    let meta_ttl = section.get("history_meta_ttl", long_time);
    let meta_ttl = meta_ttl.filter(|ttl| !ttl.is_zero());
    topic.history_meta_ttl = meta_ttl.unwrap_or(topic.history_meta_ttl);
    section.set("slow", &mut topic.slow, word(slow_policy));
    topic.max_queued = section.get("max_queued", size).or(topic.max_queued);
    topic.max_age = section.get("max_age", time).or(topic.max_age);
    section.set("publish", &mut options.access.publish, word(who));
    section.set("subscribe", &mut options.access.subscribe, word(who));
    let format = &mut options.publication_data_format;
    section.set("publication_data_format", format, one_of(&FORMATS));
}

/// What subscribers get.
fn subscriber_options(section: &Section<'_>, options: &mut ChannelOptions) {
    section.set("presence", &mut options.presence, yes);
    section.set("join_leave", &mut options.join_leave, yes);
    section.set(
        "force_push_join_leave",
        &mut options.force_push_join_leave,
        yes,
    );
    section.set("force_positioning", &mut options.force_positioning, yes);
    section.set("allow_positioning", &mut options.allow_positioning, yes);
    section.set("force_recovery", &mut options.force_recovery, yes);
    section.set("allow_recovery", &mut options.allow_recovery, yes);
    section.set(
        "force_recovery_mode",
        &mut options.recovery_mode,
        one_of(&MODES),
    );
    section.set("auto_cache_recover", &mut options.auto_cache_recover, yes);
}

/// Who may do what.
fn permissions(section: &Section<'_>, options: &mut ChannelOptions) {
    let client = &mut options.allow_subscribe_for_client;
    section.set("allow_subscribe_for_client", client, yes);
    let anonymous = &mut options.allow_subscribe_for_anonymous;
    section.set("allow_subscribe_for_anonymous", anonymous, yes);
    let permission = |what: &str, permission: &mut Permission| {
        let key = |whom| format!("allow_{what}_for_{whom}");
        section.set(&key("client"), &mut permission.client, yes);
        section.set(&key("subscriber"), &mut permission.subscriber, yes);
        section.set(&key("anonymous"), &mut permission.anonymous, yes);
    };
    permission("publish", &mut options.publish);
    permission("presence", &mut options.see_presence);
    permission("history", &mut options.see_history);
    let limited = &mut options.allow_user_limited_channels;
    section.set("allow_user_limited_channels", limited, yes);
    section.set("channel_regex", &mut options.channel_regex, regex);
    section.set(
        "subscribe_proxy_enabled",
        &mut options.subscribe_proxy_enabled,
        yes,
    );
    section.set(
        "publish_proxy_enabled",
        &mut options.publish_proxy_enabled,
        yes,
    );
}

const LEVELS: [(&str, LevelFilter); 7] = [
    ("none", LevelFilter::OFF),
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

const FORMATS: [(&str, DataFormat); 4] = [
    ("", DataFormat::Any),
    ("json", DataFormat::Json),
    ("json_object", DataFormat::JsonObject),
    ("binary", DataFormat::Binary),
];

const MODES: [(&str, RecoveryMode); 3] = [
    ("", RecoveryMode::Stream),
    ("stream", RecoveryMode::Stream),
    ("cache", RecoveryMode::Cache),
];

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::file::File;
    use super::*;

    /// Each key stands in the table of its section.
    #[test]
    fn the_document_names_all_keys_and_no_others() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/MIGRATE.md");
        let document = fs::read_to_string(path).unwrap();
        let (_, document) = document.split_once("## Keys\n").unwrap();
        let (document, _) = document.split_once("\n## ").unwrap();
        let mut documented = Vec::new();
        for part in document.split("\n### ").skip(1) {
            let (title, rows) = part.split_once('\n').unwrap();
            let sections: Vec<&str> = title.split('`').skip(1).step_by(2).collect();
            let cells = rows.lines().filter_map(|row| row.strip_prefix("| `"));
            for cell in cells {
                let (names, _) = cell.split_once(" |").unwrap();
                for name in names.trim_end_matches('`').split("`, `") {
                    documented.extend(sections.iter().map(|section| format!("{section}.{name}")));
                }
            }
        }
        documented.sort();
        let mut keys = File::keys(|root| {
            let mut draft = Draft::default();
            draft.read(root);
            draft.channels(root, ChannelOptions::default(), &TopicFlags::default());
        });
        keys.sort();
        assert_eq!(documented, keys);
    }
}
