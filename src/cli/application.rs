//! The broadcast application with what the configuration says, at the start and later.

use stentor::broadcast::hooks::{HttpHookError, HttpHooks};
use stentor::broadcast::{Broadcast, Rules, TokenSetupError};
use stentor::{Config, Handle};
use tracing::{info, warn};

use super::SetupError;
use super::flags::Flags;
use super::logged::Logged;
use super::settings::{Room, Settings};

/// Makes the application, with the keys and the backends that it needs.
///
/// # Errors
///
/// A key for tokens, or what is said of a backend, cannot be used.
pub(super) fn of(settings: &Settings) -> Result<Broadcast, SetupError> {
    let rules = &settings.rules;
    let broadcast = Broadcast::new(rules.clone()).map_err(|error| {
        let alone = Rules {
            subscription_tokens: None,
            ..rules.clone()
        };
        let section = match Broadcast::new(alone) {
            Ok(_) => "client.subscription_token",
            Err(_) => "client.token",
        };
        about_tokens(section, &error)
    })?;
    let hooks = &settings.hooks;
    let all = [
        &hooks.connect,
        &hooks.refresh,
        &hooks.subscribe,
        &hooks.publish,
        &hooks.rpc,
    ];
    if all.iter().all(|hook| hook.is_none()) {
        return Ok(broadcast);
    }
    let hooks = HttpHooks::new(hooks.clone()).map_err(|error| about_hooks(&error))?;
    Ok(broadcast.with_http_hooks(hooks))
}

/// A way to have the configuration read again. If it is not good, a line of the log says so, and
/// all stays as it is.
pub(super) fn reload(
    flags: Flags,
    room: Room,
    config: &Config,
) -> impl FnMut(&Handle<Logged<Broadcast>>) + Send + use<> {
    let namespaces = namespaces(config);
    move |handle| {
        let settings = Settings::resolve(&flags, room);
        // Keys are tried here: the loop does not wait for what turns out to be wrong.
        let rules = settings.and_then(|settings| {
            check_namespaces(&namespaces, &settings.config)?;
            of(&settings).map(|_| settings.rules)
        });
        match rules {
            Ok(rules) => {
                let _ = handle.run(
                    |logged, ctx| match logged.application().reload(ctx, rules) {
                        Ok(()) => info!("read the configuration again"),
                        Err(error) => keep(&about_tokens("client.token", &error)),
                    },
                );
            }
            Err(error) => keep(&error),
        }
    }
}

fn keep(error: &SetupError) {
    for error in error.to_string().lines() {
        warn!(error, "keeps the configuration as it was");
    }
}

/// The engine knows its namespaces from the start on.
fn check_namespaces(known: &[String], config: &Config) -> Result<(), SetupError> {
    if namespaces(config) == known {
        return Ok(());
    }
    let problem = "namespaces come, go and change places with a start only, and so does the first \
                   presence; start again";
    Err(SetupError::new("channel.namespaces", problem))
}

fn namespaces(config: &Config) -> Vec<String> {
    config.topics.names().map(|(_, name)| name.into()).collect()
}

fn about_tokens(section: &str, error: &TokenSetupError) -> SetupError {
    let key = match error.key {
        "jwks" => "jwks_public_endpoint",
        key => key,
    };
    SetupError::new(&format!("{section}.{key}"), &error.problem)
}

fn about_hooks(error: &HttpHookError) -> SetupError {
    let Some((hook, field)) = error.key.split_once('.') else {
        return SetupError::new(&error.key, &error.reason);
    };
    let section = match hook {
        "connect" | "refresh" => format!("client.proxy.{hook}"),
        "subscribe" | "publish" => format!("channel.proxy.{hook}"),
        hook => format!("{hook}.proxy"),
    };
    SetupError::new(&format!("{section}.{field}"), &error.reason)
}
