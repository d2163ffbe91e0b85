//! What the servers of this package have in common: the listener, one thread, topics.
//!
//! Knows nothing of WebSocket: that is what is measured, and stays in `bin/`.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::{env, io};

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::broadcast::{self, error::TryRecvError};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Runs `serve` on one thread, with the listener for the port that the command line names.
///
/// # Panics
///
/// If the port is not given, or taken: there is nothing to measure then.
pub fn run<F: Future<Output = ()>>(serve: impl FnOnce(TcpListener) -> F) {
    rlimit::increase_nofile_limit(u64::MAX).expect("the soft limit may rise to the hard one");
    let port = env::args()
        .nth(1)
        .and_then(|port| port.parse().ok())
        .expect("usage: PROGRAM PORT");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async { serve(listen(port).expect("a free port")).await });
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    socket.listen(4096)
}

/// Spawns `handle` for each connection.
pub async fn serve_each<F>(listener: TcpListener, mut handle: impl FnMut(TcpStream) -> F)
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    loop {
        match accept(&listener).await {
            // What ends a connection is the client's to report: load generators end thousands at once.
            Ok(stream) => drop(tokio::spawn(handle(stream))),
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The topic that a path asks for; without one, the connection is for echo.
pub fn topic_of(path: &str) -> Option<&str> {
    path.strip_prefix("/t/")
}

/// Messages a member may be behind. Each topic allocates that many slots, of a few words each.
const TOPIC_CAPACITY: usize = 4096;

/// One broadcast channel for each topic that has members.
pub struct Topics<M>(Arc<Mutex<HashMap<String, broadcast::Sender<M>>>>);

impl<M> Clone for Topics<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Clone> Default for Topics<M> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<M: Clone> Topics<M> {
    /// Makes a member of `topic`, and forgets the topics that have none left.
    ///
    /// # Panics
    ///
    /// Never: nothing panics while the lock is held.
    pub fn join(&self, topic: &str) -> Member<M> {
        let mut topics = self.0.lock().expect("never poisoned");
        topics.retain(|_, topic| topic.receiver_count() > 0);
        let topic = topics
            .entry(topic.to_owned())
            .or_insert_with(|| broadcast::Sender::new(TOPIC_CAPACITY))
            .clone();
        let published = topic.subscribe();
        Member { topic, published }
    }
}

/// Both ends of a topic.
pub struct Member<M> {
    pub topic: broadcast::Sender<M>,
    pub published: broadcast::Receiver<M>,
}

/// Publishes what a member sends, and sends it what the topic has, until either ends.
///
/// Flushes once for all that has been published meanwhile.
///
/// # Errors
///
/// If the connection fails, or is so far behind that messages were lost: better closed than silently wrong.
pub async fn relay<W, M, E>(socket: W, member: Member<M>, is_data: fn(&M) -> bool) -> Result<()>
where
    W: Stream<Item = std::result::Result<M, E>> + Sink<M, Error = E>,
    M: Clone,
    E: std::error::Error + Send + Sync + 'static,
{
    let mut socket = pin!(socket);
    let Member {
        topic,
        mut published,
    } = member;
    loop {
        tokio::select! {
            received = socket.next() => match received {
                Some(message) => publish(&topic, message?, is_data),
                None => return Ok(()),
            },
            message = next(&mut published) => {
                socket.feed(message?).await?;
                while let Some(message) = next_waiting(&mut published)? {
                    socket.feed(message).await?;
                }
                socket.flush().await?;
            }
        }
    }
}

fn publish<M>(topic: &broadcast::Sender<M>, message: M, is_data: fn(&M) -> bool) {
    if is_data(&message) {
        // Fails without members only, and the sender is one.
        let _ = topic.send(message);
    }
}

/// The next message of a topic, once there is one.
///
/// # Errors
///
/// If messages were lost; stderr says so as well.
pub async fn next<M: Clone>(published: &mut broadcast::Receiver<M>) -> Result<M> {
    published.recv().await.map_err(closing)
}

/// The next message of a topic, if there is one.
///
/// # Errors
///
/// If messages were lost; stderr says so as well.
pub fn next_waiting<M: Clone>(published: &mut broadcast::Receiver<M>) -> Result<Option<M>> {
    match published.try_recv() {
        Ok(message) => Ok(Some(message)),
        Err(TryRecvError::Empty) => Ok(None),
        Err(error) => Err(closing(error)),
    }
}

fn closing(
    error: impl std::error::Error + Send + Sync + 'static,
) -> Box<dyn std::error::Error + Send + Sync> {
    eprintln!("closing a slow member: {error}");
    error.into()
}
