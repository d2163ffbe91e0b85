//! Clients of Centrifugo's SDKs, with hooks in Rust: `cargo run --example hooks`, then connect the
//! JavaScript client to `ws://127.0.0.1:9001/connection/websocket` with a token `NAME:open-sesame`.

use std::thread;
use std::time::Duration;

use stentor::broadcast::hooks::{
    Answer, Ask, ConnectRequest, Connected, Hooks, Publish, PublishRequest, Refusal, Returned,
    RpcRequest,
};
use stentor::broadcast::{Broadcast, Rules};
use stentor::{Config, Server};

struct App;

impl Hooks for App {
    /// Who has the password is who they say.
    fn connect(&mut self, request: &ConnectRequest<'_>, _: Ask<Connected>) -> Answer<Connected> {
        let Some((name, "open-sesame")) = request.token.split_once(':') else {
            let reason = "no such user".into();
            return Answer::Now(Err(Refusal::Disconnect { code: 4501, reason }));
        };
        Answer::Now(Ok(Connected {
            user: name.into(),
            info: r#"{"since":"today"}"#.into(),
            ..Connected::default()
        }))
    }

    /// Only whom everybody knows may publish to `news`.
    fn publish(&mut self, request: &PublishRequest<'_>, _: Ask<Publish>) -> Answer<Publish> {
        if request.channel == "news" && request.client.user != "Homer" {
            return Answer::Now(Err(Refusal::Error {
                code: 403,
                message: "you are not Homer".into(),
                temporary: false,
            }));
        }
        Answer::Usual
    }

    /// What takes long is done elsewhere, and answered from there.
    fn rpc(&mut self, request: &RpcRequest<'_>, ask: Ask<Returned>) -> Answer<Returned> {
        let later = ask.later();
        let data = format!(r#"{{"method":"{}"}}"#, request.method.escape_default()).into();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            later.answer(Ok(Returned { data }));
        });
        Answer::Later
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:9001");
    let rules = Rules::default();
    let mut config = Config::listen([address.parse()?]);
    rules.configure(&mut config);
    let server = Server::bind(config, Broadcast::new(rules)?.with_hooks(App))?;
    for endpoint in server.endpoints() {
        println!("serves ws://{endpoint}/connection/websocket");
    }
    server.run()?;
    Ok(())
}
