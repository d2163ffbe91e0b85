//! The loop on a thread of its own, beside the work of another program, which speaks to it through
//! a `Handle`: publish, send, close, run a closure on the loop, shut down.
//!
//! `cargo run --release --example embed`. It brings its own client, so that there is something to
//! see, and ends by itself.

use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;

use stentor::{CloseCode, Closed, Config, ConnectionId, Context, Endpoint, Handler, Server};
use tungstenite::{Message, WebSocket};

/// What the loop tells the rest of the program.
#[derive(Debug)]
enum News {
    Opened(ConnectionId),
    Said(ConnectionId, String),
    Closed(ConnectionId, CloseCode),
}

/// The application on the loop: it hands everything over and never blocks.
struct Front {
    news: mpsc::Sender<News>,
}

impl Front {
    fn tell(&self, news: News) {
        // Nobody listens any more when the program ends.
        let _ = self.news.send(news);
    }
}

impl Handler for Front {
    type State = ();

    fn open(&mut self, ctx: &mut Context<'_, ()>) {
        ctx.subscribe("news").expect("a good name");
        self.tell(News::Opened(ctx.id()));
    }

    fn message(&mut self, ctx: &mut Context<'_, ()>, message: stentor::Message<'_>) {
        let text = message.as_text().unwrap_or("(bytes)");
        self.tell(News::Said(ctx.id(), text.to_owned()));
    }

    fn close(&mut self, ctx: &mut Context<'_, ()>, closed: Closed<'_>) {
        self.tell(News::Closed(ctx.id(), closed.code));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:0".into());
    let (sender, news) = mpsc::channel();
    let server = Server::bind(Config::listen([address.parse()?]), Front { news: sender })?;
    let Endpoint::Tcp(address) = server.endpoints().remove(0) else {
        return Err("this example needs ADDRESS:PORT".into());
    };
    let handle = server.handle();
    let server = thread::spawn(move || server.run());
    println!("serves at ws://{address}");

    let (mut client, id) = connect(address, &news)?;
    let (mut other, other_id) = connect(address, &news)?;

    // What a client says comes here through the channel; the answer goes there through the handle.
    client.send(Message::text("6 * 7"))?;
    if let News::Said(id, text) = news.recv()? {
        println!("{id} asks {text:?}");
        handle.send(id, "42")?;
    }
    println!("the client gets {:?}", client.read()?.to_text()?);

    // Published once, encoded once, heard by both.
    handle.publish("news", "the harvest is in")?;
    for client in [&mut client, &mut other] {
        println!("a client gets {:?}", client.read()?.to_text()?);
    }

    // A closure sees the application and the loop, on the loop's thread.
    let (answer, answered) = mpsc::channel();
    handle.run(move |_, ctx| {
        let _ = answer.send((ctx.connection_count(), ctx.subscriber_count("news")));
    })?;
    println!("connections and subscribers: {:?}", answered.recv()?);

    // One connection is closed by the program, the other one by the shutdown of the server.
    handle.close(other_id, CloseCode::NORMAL, "that was all")?;
    println!("closed with {}", read_to_end(other));
    handle.shut_down()?;
    println!("closed with {}", read_to_end(client));
    server.join().expect("the loop does not panic")?;
    for news in news.try_iter() {
        if let News::Closed(id, code) = news {
            println!("the loop says that {id} was closed with {code}");
        }
    }
    println!("the loop has ended, {id} with it");
    Ok(())
}

type Client = WebSocket<TcpStream>;

/// Connects, and waits for the id of the connection on the server's side.
fn connect(
    address: std::net::SocketAddr,
    news: &mpsc::Receiver<News>,
) -> Result<(Client, ConnectionId), Box<dyn std::error::Error>> {
    let socket = TcpStream::connect(address)?;
    let (client, _) = tungstenite::client(format!("ws://{address}/"), socket)?;
    match news.recv()? {
        News::Opened(id) => Ok((client, id)),
        news => Err(format!("{news:?} before the opening").into()),
    }
}

/// Reads to the end: the library answers the Close frame meanwhile.
fn read_to_end(mut client: Client) -> String {
    let mut closed = String::from("no Close frame");
    loop {
        match client.read() {
            Ok(Message::Close(Some(frame))) => closed = frame.to_string(),
            Ok(_) => {}
            Err(_) => return closed,
        }
    }
}
