//! Frames (RFC 6455 §5): headers by themselves, and streams of masked frames through a `Connection`
//! as a server's loop receives them.

mod texts;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use stentor::protocol::{
    Acceptance, Assembly, Connection, Event, FrameHeader, Opcode, Settings, write_masked_frame,
};
use texts::{TEXTS, repeated};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// One payload for each form of the length.
const HEADER_LENGTHS: [u64; 3] = [20, 1024, 65_536];

/// Short ones, those around the forms of the length, and two that leave the receive buffer.
const LENGTHS: [usize; 7] = [20, 125, 126, 1024, 16_384, 65_535, 65_536];

const TEXT_LENGTHS: [usize; 3] = [20, 1024, 16_384];

/// What a loop receives at once.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// A read that ends anywhere in a frame.
const ODD_READ: usize = 1021;

/// A multiple of every width that vector code may like.
const WIDEST: usize = 64;

fn header(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame/parse");
    for len in HEADER_LENGTHS {
        let mut masked = FrameHeader::unmasked(Opcode::Binary, len);
        masked.masking_key = Some(KEY);
        let (bytes, used) = masked.to_bytes();
        group.bench_with_input(
            BenchmarkId::from_parameter(len),
            &bytes[..used],
            |b, bytes| {
                b.iter(|| FrameHeader::parse(black_box(bytes)));
            },
        );
    }
    group.finish();
    let mut group = c.benchmark_group("frame/encode");
    for len in HEADER_LENGTHS {
        let mut output = Vec::with_capacity(FrameHeader::MAX_LEN);
        group.bench_with_input(BenchmarkId::from_parameter(len), &len, |b, &len| {
            b.iter(|| {
                output.clear();
                FrameHeader::unmasked(Opcode::Binary, black_box(len)).encode(&mut output);
                black_box(output.len())
            });
        });
    }
    group.finish();
}

/// Whole messages as a client sends them, one after the other.
struct Stream {
    bytes: Vec<u8>,
    /// How many bytes are in front of the first frame: they shift all addresses.
    lead: usize,
    messages: usize,
    payload: usize,
}

impl Stream {
    /// As many messages as one receive buffer holds, and at least two.
    fn of(opcode: Opcode, payload: &[u8]) -> Self {
        let mut message = Vec::new();
        write_masked_frame(opcode, payload, KEY, &mut message);
        Self::repeat(&message, payload.len())
    }

    /// The same with each message in frames of `fragment` bytes.
    fn fragmented(payload: &[u8], fragment: usize) -> Self {
        let mut message = Vec::new();
        let count = payload.len().div_ceil(fragment);
        for (index, part) in payload.chunks(fragment).enumerate() {
            let opcode = if index == 0 {
                Opcode::Binary
            } else {
                Opcode::Continuation
            };
            let start = message.len();
            write_masked_frame(opcode, part, KEY, &mut message);
            if index + 1 < count {
                message[start] &= 0x7F; // FIN
            }
        }
        Self::repeat(&message, payload.len())
    }

    fn repeat(message: &[u8], payload: usize) -> Self {
        let messages = (RECEIVE_BUFFER / message.len()).max(2);
        Self {
            bytes: message.repeat(messages),
            lead: 0,
            messages,
            payload: payload * messages,
        }
    }

    fn with_lead(mut self, lead: usize) -> Self {
        self.bytes.splice(..0, vec![0; lead]);
        self.lead = lead;
        self
    }
}

/// The server's end of a connection whose handshake is over, with all that it needs.
struct Server {
    connection: Connection,
    assembly: Assembly,
    output: Vec<u8>,
    buffer: Vec<u8>,
}

impl Server {
    fn open() -> Self {
        let mut connection = Connection::server(Arc::new(Settings::default()));
        let (mut assembly, mut output) = (Assembly::new(), Vec::new());
        let mut request = *b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\n\r\n";
        let (_, event) = connection.receive(&mut request, &mut assembly, &mut output);
        let Some(Event::Request(request)) = event else {
            panic!("a request, not {event:?}")
        };
        connection
            .accept(&request, &Acceptance::new(), &mut output)
            .expect("the request is an upgrade");
        Self {
            connection,
            assembly,
            output,
            buffer: Vec::new(),
        }
    }

    /// Receives the stream in reads of at most `read` bytes; answers how long that took.
    ///
    /// The bytes are put in place before the clock starts: payloads are unmasked where they are.
    fn receive(&mut self, stream: &Stream, read: usize) -> Duration {
        let lead = self.align(stream);
        let start = Instant::now();
        let messages = self.receive_reads(lead, read);
        let elapsed = start.elapsed();
        assert_eq!(messages, stream.messages, "all messages arrive");
        elapsed
    }

    /// Copies the stream so that its lead ends at the same offset from an aligned address each
    /// time; answers where in the buffer the first frame is.
    fn align(&mut self, stream: &Stream) -> usize {
        self.buffer.resize(stream.bytes.len() + WIDEST, 0);
        let offset = self.buffer.as_ptr().align_offset(WIDEST);
        self.buffer[offset..offset + stream.bytes.len()].copy_from_slice(&stream.bytes);
        self.buffer.truncate(offset + stream.bytes.len());
        offset + stream.lead
    }

    fn receive_reads(&mut self, first: usize, read: usize) -> usize {
        let mut messages = 0;
        let mut start = first;
        let mut end = start;
        while end < self.buffer.len() {
            end = self.buffer.len().min(end + read);
            loop {
                let input = &mut self.buffer[start..end];
                let (consumed, event) =
                    self.connection
                        .receive(input, &mut self.assembly, &mut self.output);
                start += consumed;
                match event {
                    Some(Event::Message(message)) => {
                        black_box(message.payload());
                        messages += 1;
                    }
                    Some(event) => panic!("a message, not {event:?}"),
                    None => break,
                }
            }
        }
        messages
    }
}

fn bench(group: &mut BenchmarkGroup<'_, WallTime>, id: BenchmarkId, stream: &Stream, read: usize) {
    let mut server = Server::open();
    group.throughput(Throughput::ElementsAndBytes {
        elements: stream.messages as u64,
        bytes: stream.payload as u64,
    });
    group.bench_function(id, |b| {
        b.iter_custom(|times| (0..times).map(|_| server.receive(stream, read)).sum());
    });
}

fn binary(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame/receive/binary");
    for len in LENGTHS {
        let stream = Stream::of(Opcode::Binary, &vec![0xA5; len]);
        bench(
            &mut group,
            BenchmarkId::from_parameter(len),
            &stream,
            RECEIVE_BUFFER,
        );
    }
    group.finish();
}

fn text(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame/receive/text");
    for (name, text) in TEXTS {
        for len in TEXT_LENGTHS {
            let stream = Stream::of(Opcode::Text, repeated(text, len).as_bytes());
            bench(
                &mut group,
                BenchmarkId::new(name, len),
                &stream,
                RECEIVE_BUFFER,
            );
        }
    }
    group.finish();
}

/// Frames of 1,032 bytes keep the address of each payload where the lead puts it, modulo 8.
fn alignment(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame/receive/alignment");
    for lead in [0, 1, 4, 7] {
        let stream = Stream::of(Opcode::Binary, &[0xA5; 1024]).with_lead(lead);
        bench(
            &mut group,
            BenchmarkId::from_parameter(lead),
            &stream,
            RECEIVE_BUFFER,
        );
    }
    group.finish();
}

fn fragmented(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame/receive/fragmented");
    for fragment in [64, 1024] {
        let stream = Stream::fragmented(&[0xA5; 16_384], fragment);
        bench(
            &mut group,
            BenchmarkId::from_parameter(fragment),
            &stream,
            RECEIVE_BUFFER,
        );
    }
    group.finish();
}

fn split(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame/receive/split");
    for read in [1, ODD_READ] {
        for len in [20, 1024] {
            let stream = Stream::of(Opcode::Text, repeated(TEXTS[0].1, len).as_bytes());
            let id = BenchmarkId::new(format!("reads of {read}"), len);
            bench(&mut group, id, &stream, read);
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300));
    targets = header, binary, text, alignment, fragmented, split
}
criterion_main!(benches);
