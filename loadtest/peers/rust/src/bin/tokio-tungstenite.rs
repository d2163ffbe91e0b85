//! tokio-tungstenite: echo as in its `echo-server.rs`, broadcast through a tokio channel.

use std::future;

use futures_util::{StreamExt, TryStreamExt};
use peers::{Result, Topics, relay, topic_of};
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

/// tungstenite fills that many bytes with zeros before each read: with its default of 128 KiB, that is most of the
/// work for a small message. Its change log names 4 to 8 KiB for servers with many connections.
const READ_BUFFER: usize = 8 * 1024;

fn main() {
    peers::run(async |listener| {
        let topics = Topics::default();
        peers::serve_each(listener, move |stream| handle(stream, topics.clone())).await;
    });
}

#[expect(clippy::result_large_err, reason = "tungstenite's callback has it so")]
async fn handle(stream: TcpStream, topics: Topics<Message>) -> Result<()> {
    let mut path = String::new();
    let note_path =
        |request: &Request, response: Response| -> std::result::Result<Response, ErrorResponse> {
            request.uri().path().clone_into(&mut path);
            Ok(response)
        };
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
    let socket = accept_hdr_async_with_config(stream, note_path, Some(config)).await?;
    match topic_of(&path) {
        Some(topic) => relay(socket, topics.join(topic), is_data).await,
        None => unconstrained(echo(socket)).await.map_err(Into::into),
    }
}

/// `forward` flushes when nothing more can be read.
async fn echo(socket: WebSocketStream<TcpStream>) -> std::result::Result<(), Error> {
    let (sink, stream) = socket.split();
    stream
        .try_filter(|message| future::ready(is_data(message)))
        .forward(sink)
        .await
}

fn is_data(message: &Message) -> bool {
    message.is_text() || message.is_binary()
}
