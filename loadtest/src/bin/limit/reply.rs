//! From the frames that are owed to the socket: with nothing to assemble, or as a server with one payload at a
//! time would have to do it.

use std::io::{self, IoSlice, Write};

use loadtest::frame;

/// How the frames of one send are put together.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Assembly {
    /// They are ready, one behind the other.
    Prebuilt,
    /// Each header and each payload is copied into one send buffer.
    Copied,
    /// One vectored send takes headers and payloads from where they are.
    Vectored,
}

impl Assembly {
    /// The most frames that one send can take.
    pub(crate) const fn max_frames(self) -> usize {
        match self {
            Assembly::Prebuilt | Assembly::Copied => usize::MAX,
            // UIO_MAXIOV is 1,024, and a frame is two slices.
            Assembly::Vectored => 512,
        }
    }
}

/// Assembles frames of one length.
pub(crate) struct Assembler {
    assembly: Assembly,
    frame: usize,
    header: usize,
    /// What [`Assembly::Copied`] copies to.
    buffer: Vec<u8>,
}

impl Assembler {
    /// For frames of that many bytes, of which `payload` come last.
    pub(crate) fn new(assembly: Assembly, frame: usize, payload: usize) -> Self {
        Assembler {
            assembly,
            frame,
            header: frame::header_len(payload),
            buffer: Vec::new(),
        }
    }

    /// A stream whose writes go through this assembler.
    pub(crate) fn to<W: Write>(&mut self, stream: W) -> Assembled<'_, W> {
        Assembled {
            assembler: self,
            stream,
        }
    }
}

/// Takes bytes that end where a frame ends, and sends them as its assembler has it.
pub(crate) struct Assembled<'a, W> {
    assembler: &'a mut Assembler,
    stream: W,
}

impl<W: Write> Write for Assembled<'_, W> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.assembler.assembly {
            Assembly::Prebuilt => self.stream.write(bytes),
            Assembly::Copied => self.write_copied(bytes),
            Assembly::Vectored => self.write_vectored(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<W: Write> Assembled<'_, W> {
    fn write_copied(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Assembler {
            frame,
            header,
            buffer,
            ..
        } = &mut *self.assembler;
        buffer.clear();
        for piece in pieces(bytes, *frame, *header) {
            buffer.extend_from_slice(piece);
        }
        self.stream.write(buffer)
    }

    fn write_vectored(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Assembler { frame, header, .. } = *self.assembler;
        if bytes.len() == frame {
            // The common case needs no list on the heap.
            let (header, payload) = bytes.split_at(header);
            return self
                .stream
                .write_vectored(&[IoSlice::new(header), IoSlice::new(payload)]);
        }
        let slices: Vec<_> = pieces(bytes, frame, header).map(IoSlice::new).collect();
        self.stream.write_vectored(&slices)
    }
}

/// Headers and payloads of frames, of which the first may have begun before.
fn pieces(bytes: &[u8], frame: usize, header: usize) -> impl Iterator<Item = &[u8]> {
    let (begun, whole) = bytes.split_at(bytes.len() % frame);
    let begun = begun.split_at(begun.len().saturating_sub(frame - header));
    let whole = whole
        .chunks_exact(frame)
        .map(move |frame| frame.split_at(header));
    std::iter::once(begun)
        .chain(whole)
        .flat_map(|(header, payload)| [header, payload])
        .filter(|piece| !piece.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts calls and slices.
    #[derive(Default)]
    struct Socket {
        taken: Vec<u8>,
        calls: usize,
        slices: usize,
    }

    impl Write for &mut Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            self.calls += 1;
            self.slices += slices.len();
            for slice in slices {
                self.taken.extend_from_slice(slice);
            }
            Ok(slices.iter().map(|slice| slice.len()).sum())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_assembly_sends_the_same_bytes_in_one_call() {
        let frames = b"<>aaaa<>bbbb<>cccc";
        for assembly in [Assembly::Prebuilt, Assembly::Copied, Assembly::Vectored] {
            let mut assembler = Assembler::new(assembly, 6, 4);
            for start in 0..frames.len() {
                let mut socket = Socket::default();
                let sent = assembler.to(&mut socket).write(&frames[start..]).unwrap();
                assert_eq!(sent, frames.len() - start);
                assert_eq!(socket.taken, frames[start..], "{assembly:?} from {start}");
                assert_eq!(socket.calls, 1);
            }
        }
    }

    #[test]
    fn only_a_vectored_frame_is_two_slices() {
        for (assembly, slices) in [
            (Assembly::Prebuilt, 1),
            (Assembly::Copied, 1),
            (Assembly::Vectored, 2),
        ] {
            let mut socket = Socket::default();
            let mut assembler = Assembler::new(assembly, 6, 4);
            assembler.to(&mut socket).write_all(b"<>aaaa").unwrap();
            assert_eq!(socket.slices, slices, "{assembly:?}");
        }
    }
}
