//! fastwebsockets' `FragmentCollector`, which answers messages as the others do, over an async stream that is
//! always ready: no runtime has a part in it.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, Role, WebSocket};

use crate::{Client, Kind, Server};

/// A socket with its own buffers.
pub struct Fastwebsockets(FragmentCollector<Client>);

impl Server for Fastwebsockets {
    const NAME: &'static str = "fastwebsockets";
    type Payload = Vec<u8>;

    fn accept(client: Client) -> Self {
        let socket = WebSocket::after_handshake(client, Role::Server);
        Self(FragmentCollector::new(socket))
    }

    fn receive(&mut self, seen: impl FnOnce(Kind, &[u8])) {
        let frame = now(self.0.read_frame()).expect("the client sends messages");
        match frame.opcode {
            OpCode::Text => seen(Kind::Text, &frame.payload),
            OpCode::Binary => seen(Kind::Binary, &frame.payload),
            other => panic!("a message, not {other:?}"),
        }
    }

    fn reply(&mut self, payload: &Vec<u8>) {
        let frame = Frame::binary(Payload::Borrowed(payload));
        now(self.0.write_frame(frame)).expect("memory can be written");
    }

    fn sent(self) -> usize {
        self.0.into_inner().received()
    }
}

/// Polls a future that has nothing to wait for.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("memory is always ready"),
    }
}
