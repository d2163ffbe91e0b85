//! fastwebsockets: echo as in its `echo_server.rs`, behind hyper; broadcast with its split halves and a tokio channel.

use std::future;

use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{
    FragmentCollector, FragmentCollectorRead, Frame, OpCode, Payload, WebSocketError,
    WebSocketWrite,
};
use futures_util::try_join;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use peers::{Member, Result, Topics, next, next_waiting, topic_of};
use tokio::io::{BufWriter, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc};
use tokio::task::{consume_budget, unconstrained};

type Reader = FragmentCollectorRead<ReadHalf<TokioIo<Upgraded>>>;
type Writer = WebSocketWrite<BufWriter<WriteHalf<TokioIo<Upgraded>>>>;

/// What a topic shares: a frame cannot be cloned.
#[derive(Clone)]
struct Message {
    opcode: OpCode,
    payload: Bytes,
}

fn main() {
    peers::run(async |listener| {
        let topics = Topics::default();
        peers::serve_each(listener, move |stream| handle(stream, topics.clone())).await;
    });
}

async fn handle(stream: TcpStream, topics: Topics<Message>) -> Result<()> {
    let service = service_fn(|request| future::ready(accept(request, &topics)));
    http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await
        .map_err(Into::into)
}

fn accept(
    mut request: Request<Incoming>,
    topics: &Topics<Message>,
) -> std::result::Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgraded) = upgrade(&mut request)?;
    match topic_of(request.uri().path()) {
        Some(topic) => drop(tokio::spawn(broadcast(upgraded, topics.join(topic)))),
        None => drop(tokio::spawn(unconstrained(echo(upgraded)))),
    }
    Ok(response)
}

async fn echo(upgraded: UpgradeFut) -> std::result::Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(upgraded.await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}

/// Two halves, because reading a frame must not be cancelled.
async fn broadcast(upgraded: UpgradeFut, member: Member<Message>) -> Result<()> {
    let Member { topic, published } = member;
    let (reader, writer) = upgraded.await?.split(|stream| {
        let (reader, writer) = tokio::io::split(stream);
        (reader, BufWriter::new(writer))
    });
    let (replies, due) = mpsc::unbounded_channel();
    let reader = FragmentCollectorRead::new(reader);
    // Sending first: receiving may use up what tokio lets a task do in one turn.
    try_join!(
        send(writer, published, due),
        receive(reader, topic, replies)
    )?;
    Ok(())
}

/// Publishes what arrives; `replies` takes the pongs and the close that are due.
async fn receive(
    mut reader: Reader,
    topic: broadcast::Sender<Message>,
    replies: mpsc::UnboundedSender<Frame<'static>>,
) -> Result<()> {
    loop {
        let frame = reader
            .read_frame(&mut |reply| future::ready(replies.send(reply)))
            .await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => {
                let message = Message {
                    opcode: frame.opcode,
                    payload: share(frame.payload),
                };
                let _ = topic.send(message); // Fails without members only.
                // hyper reads far ahead: without it, a burst fills the topic before a member sends any of it.
                consume_budget().await;
            }
            _ => {}
        }
    }
}

/// Sends replies and what the topic has, with one flush for all that has been published meanwhile.
async fn send(
    mut writer: Writer,
    mut published: broadcast::Receiver<Message>,
    mut due: mpsc::UnboundedReceiver<Frame<'static>>,
) -> Result<()> {
    loop {
        tokio::select! {
            reply = due.recv() => match reply {
                Some(reply) => writer.write_frame(reply).await?,
                None => return Ok(()),
            },
            message = next(&mut published) => {
                writer.write_frame(frame_of(&message?)).await?;
                while let Some(message) = next_waiting(&mut published)? {
                    writer.write_frame(frame_of(&message)).await?;
                }
            }
        }
        writer.flush().await?;
    }
}

fn share(payload: Payload<'_>) -> Bytes {
    match payload {
        Payload::Bytes(bytes) => bytes.freeze(),
        other => Bytes::from(Vec::from(other)),
    }
}

fn frame_of(message: &Message) -> Frame<'_> {
    Frame::new(
        true,
        message.opcode,
        None,
        Payload::Borrowed(&message.payload),
    )
}
