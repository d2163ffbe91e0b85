//! axum: `extract::ws`, with tokio-tungstenite inside; broadcast through a tokio channel, as in its chat example.

use std::future;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::any;
use axum::serve::ListenerExt;
use futures_util::{StreamExt, TryStreamExt};
use peers::{Topics, relay};
use tokio::net::TcpListener;
use tokio::task::unconstrained;

/// See `tokio-tungstenite.rs`.
const READ_BUFFER: usize = 8 * 1024;

fn main() {
    peers::run(serve);
}

async fn serve(listener: TcpListener) {
    let router = Router::new()
        .route("/", any(echo))
        .route("/t/{topic}", any(broadcast))
        .with_state(Topics::default());
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            eprintln!("{error}");
        }
    });
    axum::serve(listener, router).await.expect("never fails");
}

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade
        .read_buffer_size(READ_BUFFER)
        .on_upgrade(async |socket| {
            let _ = unconstrained(echo_all(socket)).await; // Ends when the client does.
        })
}

/// `forward` flushes when nothing more can be read.
async fn echo_all(socket: WebSocket) -> Result<(), axum::Error> {
    let (sink, stream) = socket.split();
    stream
        .try_filter(|message| future::ready(is_data(message)))
        .forward(sink)
        .await
}

async fn broadcast(
    upgrade: WebSocketUpgrade,
    Path(topic): Path<String>,
    State(topics): State<Topics<Message>>,
) -> Response {
    upgrade
        .read_buffer_size(READ_BUFFER)
        .on_upgrade(async move |socket| {
            let _ = relay(socket, topics.join(&topic), is_data).await; // Ends when the client does.
        })
}

fn is_data(message: &Message) -> bool {
    matches!(message, Message::Text(_) | Message::Binary(_))
}
