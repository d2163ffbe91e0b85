//! tokio-websockets: configured as in its `echo_server.rs`, broadcast through a tokio channel.

use futures_util::{SinkExt, StreamExt};
use peers::{Result, Topics, relay, topic_of};
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio_websockets::{Config, Limits, Message, ServerBuilder, WebSocketStream};

/// Messages echoed with one flush, at most.
const ECHOED_TOGETHER: usize = 256;

/// Bytes that may wait for a flush; by default 8 KiB.
const FLUSH_THRESHOLD: usize = 64 * 1024;

fn main() {
    peers::run(async |listener| {
        let topics = Topics::default();
        peers::serve_each(listener, move |stream| handle(stream, topics.clone())).await;
    });
}

async fn handle(stream: TcpStream, topics: Topics<Message>) -> Result<()> {
    let (request, socket) = ServerBuilder::new()
        .config(
            Config::default()
                .frame_size(usize::MAX)
                .flush_threshold(FLUSH_THRESHOLD),
        )
        .limits(Limits::unlimited())
        .accept(stream)
        .await?;
    match topic_of(request.uri().path()) {
        Some(topic) => relay(socket, topics.join(topic), is_data).await,
        None => unconstrained(echo(socket)).await.map_err(Into::into),
    }
}

/// Reading flushes, so what has arrived is read before the first reply is queued.
async fn echo(
    socket: WebSocketStream<TcpStream>,
) -> std::result::Result<(), tokio_websockets::Error> {
    let (mut sink, stream) = socket.split();
    let mut arrived = stream.ready_chunks(ECHOED_TOGETHER);
    while let Some(messages) = arrived.next().await {
        for message in messages {
            let message = message?;
            if is_data(&message) {
                sink.feed(message).await?;
            }
        }
        sink.flush().await?;
    }
    Ok(())
}

fn is_data(message: &Message) -> bool {
    message.is_text() || message.is_binary()
}
