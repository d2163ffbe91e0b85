//! The smallest server: every message comes back as it went.
//!
//! `cargo run --release --example echo`, then connect to `ws://127.0.0.1:9001` with any client.

use stentor::{Config, Context, Handler, Message, Server};

struct Echo;

impl Handler for Echo {
    type State = ();

    fn message(&mut self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        ctx.send(message);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:9001".into());
    let server = Server::bind(Config::listen([address.parse()?]), Echo)?;
    println!("echo at ws://{}", server.endpoints()[0]);
    server.run()?;
    Ok(())
}
