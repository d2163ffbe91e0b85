//! The physical yardstick: socket work as a WebSocket server cannot avoid it, and no WebSocket work at all.
//!
//! One thread, one edge-triggered epoll, one receive buffer for all. Read and write interest is registered
//! once at accept. A readiness costs one receive and one send: a receive that did not fill the buffer has
//! drained the socket, so none follows to hear `EAGAIN`. Nothing received is ever looked at; what is sent
//! was written before. A server's rate divided by this program's, in the same run, is how much of what the
//! machine can do reaches its users.
//!
//! A [`Variant`] does one thing otherwise, so that the two rates say what it costs.

mod peer;
mod program;
mod reply;
mod trigger;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use loadtest::frame::{self, Opcode};
use loadtest::process;
use loadtest::units::ByteSize;

use crate::peer::{Reach, Work};
use crate::program::Program;
use crate::reply::{Assembler, Assembly};

/// Socket work without WebSocket work: what the machine can do at most.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answers every N bytes received with M bytes; what came in one receive leaves in one send
    Echo(Exchange),
    /// Sends M bytes to everyone for every N bytes received from anyone, with one send each a turn
    Fanout(Exchange),
    /// Accepts, receives, answers with the same 101 always, and closes when the peer does
    Connect(Socketing),
}

#[derive(Args)]
struct Exchange {
    #[command(flatten)]
    socketing: Socketing,
    /// Bytes of a client's frame, header and mask included (6 more than a payload below 126)
    #[arg(long, value_name = "BYTES")]
    frame_in: ByteSize,
    /// Bytes of a server's frame, header included (2 more than a payload below 126)
    #[arg(long, value_name = "BYTES")]
    frame_out: ByteSize,
    #[command(flatten, next_help_heading = "Variants")]
    variant: Variant,
}

/// What is done otherwise than at the limit.
#[derive(Args, Clone, Copy, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line, and they combine"
)]
struct Variant {
    /// Receive until EAGAIN, even after a receive that did not fill the buffer
    #[arg(long)]
    second_recv: bool,
    /// Use level-triggered epoll: registered for input or, while a send is incomplete, for room
    #[arg(long)]
    level_triggered: bool,
    /// Receive once from everyone who is ready before anything is sent (fanout always sends last)
    #[arg(long)]
    staged: bool,
    /// Give each connection a receive buffer of its own, as long as --buffer, when it is accepted
    #[arg(long)]
    own_buffer: bool,
    /// Copy header and payload of each reply into one send buffer
    #[arg(long, conflicts_with = "vectored")]
    copy: bool,
    /// Send header and payload of each reply from where they are, up to 512 replies in one writev
    #[arg(long)]
    vectored: bool,
}

impl Variant {
    fn assembly(self) -> Assembly {
        match self {
            Variant { copy: true, .. } => Assembly::Copied,
            Variant { vectored: true, .. } => Assembly::Vectored,
            _ => Assembly::Prebuilt,
        }
    }
}

#[derive(Args)]
struct Socketing {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9101")]
    listen: SocketAddr,
    /// The receive buffer that all connections share
    #[arg(long, value_name = "BYTES", default_value = "256KiB")]
    buffer: ByteSize,
}

/// Bytes of frames kept ready at most: one send of more meets the end of any socket's buffer first.
const MAX_READY: usize = 8 << 20;

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Echo(exchange) => exchange.work(Reach::Sender),
        Command::Fanout(exchange) => exchange.work(Reach::Everyone),
        Command::Connect(socketing) => Ok((Work::Connect, socketing, Variant::default())),
    };
    let (work, socketing, variant) = match result {
        Ok(valid) => valid,
        Err(wrong) => {
            eprintln!("limit: {wrong}");
            return ExitCode::from(2);
        }
    };
    process::raise_descriptor_limit();
    let program = Program::listen(work, &socketing, variant);
    match program.and_then(|mut program| program.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("limit: {}: {error}", socketing.listen);
            ExitCode::FAILURE
        }
    }
}

impl Exchange {
    fn work(self, reach: Reach) -> Result<(Work, Socketing, Variant), String> {
        let (ByteSize(frame_in), ByteSize(frame_out)) = (self.frame_in, self.frame_out);
        frame::client_payload_len(frame_in)
            .ok_or_else(|| format!("no client frame is {frame_in} bytes long"))?;
        let payload = frame::server_payload_len(frame_out)
            .ok_or_else(|| format!("no server frame is {frame_out} bytes long"))?;
        let mut reply = Vec::with_capacity(frame_out);
        frame::push_server_frame(&mut reply, Opcode::Binary, &vec![b'.'; payload]);
        let assembly = self.variant.assembly();
        let most = assembly.max_frames().min(MAX_READY / frame_out).max(1);
        let frames = reply
            .repeat(self.frames_at_once(reach).min(most))
            .into_boxed_slice();
        let work = Work::Exchange {
            reach,
            frame_in,
            frame_out,
            frames,
            assembler: Assembler::new(assembly, frame_out, payload),
        };
        Ok((work, self.socketing, self.variant))
    }

    /// How many replies there may be to send to one peer at once.
    fn frames_at_once(&self, reach: Reach) -> usize {
        match reach {
            // One more than fits the buffer: the receive that completes a message begun before.
            Reach::Sender => self.socketing.buffer.0 / self.frame_in.0 + 1,
            // A turn may receive from everyone, and from each more than once.
            Reach::Everyone => usize::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(line: &str) -> Result<Work, String> {
        let (exchange, reach) = match Arguments::parse_from(line.split(' ')).command {
            Command::Echo(exchange) => (exchange, Reach::Sender),
            Command::Fanout(exchange) => (exchange, Reach::Everyone),
            Command::Connect(_) => unreachable!("no test of this helper says connect"),
        };
        exchange.work(reach).map(|(work, ..)| work)
    }

    fn bytes_ready(line: &str) -> usize {
        match work(line) {
            Ok(Work::Exchange { frames, .. }) => frames.len(),
            _ => panic!("no frames"),
        }
    }

    #[test]
    fn replies_to_a_full_buffer_are_ready_for_one_send() {
        let line = "limit echo --buffer 4KiB --frame-in 26 --frame-out 22";
        assert_eq!(bytes_ready(line), (4096 / 26 + 1) * 22);
    }

    #[test]
    fn messages_of_many_talkers_are_ready_for_one_send() {
        let line = "limit fanout --buffer 4KiB --frame-in 26 --frame-out 22";
        assert_eq!(bytes_ready(line), MAX_READY / 22 * 22);
    }

    #[test]
    fn vectored_send_has_as_many_slices_as_the_kernel_takes() {
        let line = "limit fanout --frame-in 26 --frame-out 22 --vectored";
        assert_eq!(bytes_ready(line), 1024 / 2 * 22);
    }

    #[test]
    fn lengths_that_no_frame_has_are_refused() {
        for (frame_in, frame_out) in [(5, 22), (26, 1), (26, 128)] {
            let line = format!("limit echo --frame-in {frame_in} --frame-out {frame_out}");
            assert!(work(&line).is_err());
        }
    }
}
