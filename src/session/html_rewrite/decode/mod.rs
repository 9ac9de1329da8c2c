//! The body of an answer without its content coding (RFC 9110, section 8.4.1; zstd: RFC 9659).

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, GzDecoder, ZlibDecoder};
use zstd::stream::raw::{DParameter, Decoder as ZstdFrames, InBuffer, Operation, OutBuffer};

/// What is decoded at once, in bytes.
const STEP: usize = 64 * 1024;
/// What one call may give, in bytes. A call gets what was read at once, 64 KiB at most: a page that grows 128-fold is an
/// attack on our memory.
const MOST: usize = 8 * 1024 * 1024;
/// What a member of gzip begins with (RFC 1952, section 2.3.1).
const GZIP: u8 = 0x1f;
/// 8 MiB, the most that a window of this coding may have (RFC 9659, section 3).
const ZSTD_WINDOW_LOG: u32 = 23;

/// One body on its way through.
pub struct Decoder {
    coding: Coding,
    /// An empty body is whole in every coding: some servers send it so.
    begun: bool,
    /// What follows the end of the coded body is ignored, as browsers do.
    over: bool,
    /// Comes after what could be decoded before it.
    failed: Option<io::Error>,
}

enum Coding {
    Identity(Out),
    Gzip(Box<GzDecoder<Out>>),
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
            "gzip" | "x-gzip" => Coding::Gzip(Box::new(GzDecoder::new(Out::default()))),
            "deflate" => Coding::Deflate,
            "br" => Coding::Brotli(Box::new(brotli::DecompressorWriter::new(Out::default(), STEP))),
            "zstd" => Coding::Zstd(Box::new(Zstd::new().ok()?)),
            _ => return None,
        };
        Some(Self { coding, begun: false, over: false, failed: None })
    }

    /// The next part of the body, decoded as far as that goes. Where it is damaged, the next call is an error; then the
    /// body is over.
    pub fn write(&mut self, part: &[u8]) -> io::Result<Vec<u8>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let Some(first) = part.first() else { return Ok(Vec::new()) };
        self.begun = true;
        if matches!(self.coding, Coding::Deflate) {
            self.coding = deflate(*first);
        }
        let outcome = part.chunks(STEP).try_for_each(|step| self.step(step));
        let decoded = self.take();
        match outcome {
            Err(error) if decoded.is_empty() => return Err(error),
            Err(error) => self.failed = Some(error),
            Ok(()) => {}
        }
        Ok(decoded)
    }

    /// What was left. An error if the body is not whole.
    pub fn end(mut self) -> io::Result<Vec<u8>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if !self.begun || self.over {
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

    fn step(&mut self, mut step: &[u8]) -> io::Result<()> {
        while !step.is_empty() && !self.over {
            let taken = match &mut self.coding {
                Coding::Identity(out) => out.write(step)?,
                Coding::Gzip(decoder) => flushed(decoder, step)?,
                Coding::Zlib(decoder) => flushed(decoder, step)?,
                Coding::RawDeflate(decoder) => flushed(decoder, step)?,
                Coding::Brotli(decoder) => drained(decoder, step)?,
                Coding::Zstd(decoder) => decoder.write(step)?,
                Coding::Deflate => return Ok(()),
            };
            if taken == 0 {
                self.at_end(step.first())?;
            }
            step = step.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// A decoder takes nothing more: its part of the body is whole, or damaged. Behind a member of gzip another one may
    /// begin (RFC 1952, section 2.2).
    fn at_end(&mut self, next: Option<&u8>) -> io::Result<()> {
        self.over = true;
        match &mut self.coding {
            Coding::Gzip(decoder) => {
                decoder.try_finish()?;
                if next == Some(&GZIP) {
                    let out = std::mem::take(decoder.get_mut());
                    **decoder = GzDecoder::new(out);
                    self.over = false;
                }
                Ok(())
            }
            Coding::Zlib(decoder) => decoder.try_finish(),
            Coding::RawDeflate(decoder) => decoder.try_finish(),
            Coding::Brotli(decoder) => decoder.close(),
            Coding::Identity(_) | Coding::Deflate | Coding::Zstd(_) => Ok(()),
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

/// How much of the step was taken; what it decodes to is not held back.
fn flushed(decoder: &mut impl Write, step: &[u8]) -> io::Result<usize> {
    let taken = decoder.write(step)?;
    decoder.flush()?;
    Ok(taken)
}

/// The same for brotli, whose decoder gives [`STEP`] bytes a call, keeps up to a window (16 MiB) of what is decoded, and
/// has no flush.
#[expect(clippy::unused_io_amount, reason = "an empty write takes nothing: it makes the decoder give what it kept")]
fn drained(decoder: &mut brotli::DecompressorWriter<Out>, step: &[u8]) -> io::Result<usize> {
    let taken = decoder.write(step)?;
    loop {
        let before = decoder.get_ref().0.len();
        decoder.write(&[])?;
        if decoder.get_ref().0.len() == before {
            return Ok(taken);
        }
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

    /// Takes the whole step.
    fn write(&mut self, step: &[u8]) -> io::Result<usize> {
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
                return Ok(step.len());
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
