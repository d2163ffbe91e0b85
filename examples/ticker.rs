//! A price ticker: a timer of the loop publishes to topics that clients choose.
//!
//! `cargo run --release --example ticker`, then connect to <ws://127.0.0.1:9001> with any client and
//! send `subscribe EUR` or `unsubscribe EUR`.

use std::time::Duration;

use stentor::{Config, Context, Handler, Message, Server};

const PERIOD: Duration = Duration::from_millis(250);

struct Ticker {
    /// Name and price in units of a hundredth of a cent.
    prices: Vec<(&'static str, u32)>,
    random: u32,
}

impl Handler for Ticker {
    type State = ();

    fn message(&mut self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        let command = message.as_text().and_then(|text| text.split_once(' '));
        let known = |name: &str| self.prices.iter().any(|(known, _)| *known == name);
        let answer = match command {
            Some(("subscribe", name)) if known(name) => match ctx.subscribe(name) {
                Ok(_) => format!("subscribed {name}"),
                Err(error) => format!("error {error}"),
            },
            Some(("unsubscribe", name)) if ctx.unsubscribe(name) => format!("unsubscribed {name}"),
            _ => {
                let names: Vec<_> = self.prices.iter().map(|(name, _)| *name).collect();
                format!("error: send `subscribe NAME`; names: {}", names.join(" "))
            }
        };
        ctx.send(&answer);
    }

    /// Each topic's price is encoded once and shared by its subscribers.
    fn timer(&mut self, ctx: &mut Context<'_, ()>, token: u64) {
        for (name, price) in &mut self.prices {
            *price = step(*price, &mut self.random);
            let (units, fraction) = (*price / 10_000, *price % 10_000);
            ctx.publish(name, &format!("{name} {units}.{fraction:04}"));
        }
        ctx.set_timer(PERIOD, token);
    }
}

/// A random walk in steps of up to 0.0015 (xorshift: no market depends on it).
fn step(price: u32, random: &mut u32) -> u32 {
    *random ^= *random << 13;
    *random ^= *random >> 17;
    *random ^= *random << 5;
    (price + *random % 31).saturating_sub(15).max(1)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:9001".into());
    let ticker = Ticker {
        prices: vec![("EUR", 10_842), ("GBP", 12_730), ("CHF", 11_215)],
        random: 2_463_534_242,
    };
    let server = Server::bind(Config::listen([address.parse()?]), ticker)?;
    println!("ticker at ws://{}", server.endpoints()[0]);
    // The first timer; each sets the next one.
    server.handle().run(|_, ctx| ctx.set_timer(PERIOD, 0))?;
    server.run()?;
    Ok(())
}
