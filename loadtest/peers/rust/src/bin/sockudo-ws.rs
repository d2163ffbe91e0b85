//! sockudo-ws: echo with its batching, broadcast with its own `PubSub`.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use peers::{Result, topic_of};
use sockudo_ws::{Config, Http1, Message, PubSub, WebSocketStream};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::unconstrained;

type Server = sockudo_ws::server::WebSocketServer<Http1>;

fn main() {
    sockudo_ws::init_clock(); // Calibrates for up to 200 ms.
    // The load tool's connections may be silent for long, and do not answer pings while it only counts.
    let config = Config::builder()
        .max_payload_length(64 << 20)
        .idle_timeout(0)
        .auto_ping(false)
        .build();
    let server = Arc::new(Server::new(config));
    let topics = Arc::new(PubSub::new());
    peers::run(async |listener| {
        peers::serve_each(listener, move |stream| {
            handle(stream, Arc::clone(&server), Arc::clone(&topics))
        })
        .await;
    });
}

async fn handle(stream: TcpStream, server: Arc<Server>, topics: Arc<PubSub>) -> Result<()> {
    let (socket, handshake) = server.accept_raw(stream).await?;
    match topic_of(&handshake.path) {
        Some(topic) => broadcast(socket, &topics, topic).await,
        None => unconstrained(echo(socket)).await,
    }
}

/// `next` flushes before it waits for more input.
async fn echo(mut socket: WebSocketStream<TcpStream>) -> Result<()> {
    while let Some(message) = socket.next().await {
        let message = message?;
        if is_data(&message) {
            socket.feed(message).await?;
        }
    }
    Ok(())
}

async fn broadcast(socket: WebSocketStream<TcpStream>, topics: &PubSub, topic: &str) -> Result<()> {
    let (sender, published) = mpsc::unbounded_channel();
    let subscriber = topics.create_subscriber(sender);
    topics.subscribe(subscriber, topic);
    let result = relay(socket, topics, topic, published).await;
    topics.remove_subscriber(subscriber);
    result
}

async fn relay(
    mut socket: WebSocketStream<TcpStream>,
    topics: &PubSub,
    topic: &str,
    mut published: mpsc::UnboundedReceiver<Message>,
) -> Result<()> {
    loop {
        tokio::select! {
            received = socket.next() => match received.transpose()? {
                Some(message) if is_data(&message) => drop(topics.publish(topic, message)),
                Some(_) => {}
                None => return Ok(()),
            },
            Some(message) = published.recv() => {
                socket.feed(message).await?;
                while let Ok(message) = published.try_recv() {
                    socket.feed(message).await?;
                }
                socket.flush().await?;
            }
        }
    }
}

fn is_data(message: &Message) -> bool {
    matches!(message, Message::Text(_) | Message::Binary(_))
}
