//! The body of an answer without its content coding (RFC 9110, section 8.4.1; zstd: RFC 9659).

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use zstd::stream::raw::{DParameter, Decoder as ZstdFrames, InBuffer, Operation, OutBuffer};

/// What is decoded at once, in bytes.
const STEP: usize = 64 * 1024;
/// What one call may give, in bytes. A call gets what was read at once, 64 KiB at most: a page that grows 128-fold is an
/// attack on our memory.
const MOST: usize = 8 * 1024 * 1024;
/// 8 MiB, the most that a window of this coding may have (RFC 9659, section 3).
const ZSTD_WINDOW_LOG: u32 = 23;

/// One body on its way through.
pub struct Decoder {
    coding: Coding,
    /// An empty body is whole in every coding: some servers send it so.
    begun: bool,
}

enum Coding {
    Identity(Out),
    Gzip(Box<MultiGzDecoder<Out>>),
    /// Before the first byte has said which of the two it is.
    Deflate,
    Zlib(Box<ZlibDecoder<Out>>),
    /// `deflate` without the wrapper that the coding asks for, as some servers send it.
    RawDeflate(Box<DeflateDecoder<Out>>),
    Brotli(Box<brotli::DecompressorWriter<Out>>),
    Zstd(Box<Zstd>),
}

/// Whether a coding can be undone here, without making ready for it.
#[must_use]
pub fn is_known(coding: &str) -> bool {
    ["identity", "gzip", "x-gzip", "deflate", "br", "zstd"]
        .iter()
        .any(|known| coding.trim().eq_ignore_ascii_case(known))
}

impl Decoder {
    /// `coding` is the value of `Content-Encoding`; `None` for one that we do not know, or for several.
    #[must_use]
    pub fn new(coding: &str) -> Option<Self> {
        let coding = match coding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Coding::Identity(Out::default()),
            "gzip" | "x-gzip" => Coding::Gzip(Box::new(MultiGzDecoder::new(Out::default()))),
            "deflate" => Coding::Deflate,
            "br" => Coding::Brotli(Box::new(brotli::DecompressorWriter::new(Out::default(), STEP))),
            "zstd" => Coding::Zstd(Box::new(Zstd::new().ok()?)),
            _ => return None,
        };
        Some(Self { coding, begun: false })
    }

    /// The next part of the body, decoded as far as that goes. After an error the body is over.
    pub fn write(&mut self, part: &[u8]) -> io::Result<Vec<u8>> {
        let Some(first) = part.first() else { return Ok(Vec::new()) };
        self.begun = true;
        if matches!(self.coding, Coding::Deflate) {
            self.coding = deflate(*first);
        }
        for step in part.chunks(STEP) {
            self.step(step)?;
        }
        Ok(self.take())
    }

    /// What was left. An error if the body is not whole.
    pub fn end(mut self) -> io::Result<Vec<u8>> {
        if !self.begun {
            return Ok(Vec::new());
        }
        match &mut self.coding {
            Coding::Identity(_) | Coding::Deflate => {}
            Coding::Gzip(decoder) => decoder.try_finish()?,
            Coding::Zlib(decoder) => decoder.try_finish()?,
            Coding::RawDeflate(decoder) => decoder.try_finish()?,
            Coding::Brotli(decoder) => decoder.close()?,
            Coding::Zstd(decoder) => decoder.end()?,
        }
        Ok(self.take())
    }

    fn step(&mut self, step: &[u8]) -> io::Result<()> {
        match &mut self.coding {
            Coding::Identity(out) => out.write_all(step),
            Coding::Gzip(decoder) => decoder.write_all(step).and_then(|()| decoder.flush()),
            Coding::Zlib(decoder) => decoder.write_all(step).and_then(|()| decoder.flush()),
            Coding::RawDeflate(decoder) => decoder.write_all(step).and_then(|()| decoder.flush()),
            Coding::Brotli(decoder) => decoder.write_all(step).and_then(|()| decoder.flush()),
            Coding::Zstd(decoder) => decoder.write(step),
            Coding::Deflate => Ok(()),
        }
    }

    fn take(&mut self) -> Vec<u8> {
        let out = match &mut self.coding {
            Coding::Identity(out) => out,
            Coding::Gzip(decoder) => decoder.get_mut(),
            Coding::Zlib(decoder) => decoder.get_mut(),
            Coding::RawDeflate(decoder) => decoder.get_mut(),
            Coding::Brotli(decoder) => decoder.get_mut(),
            Coding::Zstd(decoder) => &mut decoder.out,
            Coding::Deflate => return Vec::new(),
        };
        std::mem::take(&mut out.0)
    }
}

/// The wrapper begins with its method, 8, and a window of at most 32 KiB (RFC 1950, section 2.2). Without it a first byte
/// like this would begin a stored block with padding that is not zero, which no encoder writes.
fn deflate(first: u8) -> Coding {
    if first & 0x0f == 8 && first >> 4 <= 7 {
        Coding::Zlib(Box::new(ZlibDecoder::new(Out::default())))
    } else {
        Coding::RawDeflate(Box::new(DeflateDecoder::new(Out::default())))
    }
}

/// What was decoded since the last call.
#[derive(Default)]
struct Out(Vec<u8>);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a part of the body decodes to more than 8 MiB"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Frames one after another. The crate's own writer does not say whether the last one was whole.
struct Zstd {
    frames: ZstdFrames<'static>,
    room: Vec<u8>,
    /// Between two frames.
    whole: bool,
    out: Out,
}

impl Zstd {
    fn new() -> io::Result<Self> {
        let mut frames = ZstdFrames::new()?;
        frames.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))?;
        Ok(Self { frames, room: vec![0; STEP], whole: true, out: Out::default() })
    }

    fn write(&mut self, step: &[u8]) -> io::Result<()> {
        let mut input = InBuffer::around(step);
        loop {
            let mut output = OutBuffer::around(self.room.as_mut_slice());
            let before = input.pos();
            let hint = self.frames.run(&mut input, &mut output)?;
            let written = output.pos();
            let full = written == STEP;
            self.out.write_all(self.room.get(..written).unwrap_or_default())?;
            // A call that had nothing to do asks for the header of a next frame that need not come.
            if input.pos() > before || written > 0 {
                self.whole = hint == 0;
            }
            if input.pos() == step.len() && !full {
                return Ok(());
            }
        }
    }

    fn end(&self) -> io::Result<()> {
        if self.whole {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the zstd frame is not complete"))
    }
}
