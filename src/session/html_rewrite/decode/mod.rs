//! Decodes a response body's content coding (RFC 9110, section 8.4.1; zstd: RFC 9659).

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, GzDecoder, ZlibDecoder};
use zstd::stream::raw::{DParameter, Decoder as ZstdFrames, InBuffer, Operation, OutBuffer};

/// Bytes decoded at once.
const STEP: usize = 64 * 1024;
/// Upper limit of the bytes that one call returns. A call takes one read, 64 KiB at most: a page that grows 128-fold is a
/// decompression bomb.
const MAX_OUTPUT: usize = 8 * 1024 * 1024;
/// First byte of a gzip member (RFC 1952, section 2.3.1).
const GZIP: u8 = 0x1f;
/// 8 MiB, the largest window that this coding allows (RFC 9659, section 3).
const ZSTD_WINDOW_LOG: u32 = 23;

/// Decodes one body in parts.
pub struct Decoder {
    coding: Coding,
    /// An empty body is complete in every coding: some servers send one.
    started: bool,
    /// Bytes after the end of the encoded body are ignored, as browsers do.
    ended: bool,
    /// Returned by the call after the one that returned the last decoded bytes.
    error: Option<io::Error>,
}

enum Coding {
    Identity(Output),
    Gzip(Box<GzDecoder<Output>>),
    /// Zlib or raw, until the first byte decides.
    Deflate,
    Zlib(Box<ZlibDecoder<Output>>),
    /// `deflate` without the wrapper that the coding requires, as some servers send it.
    RawDeflate(Box<DeflateDecoder<Output>>),
    Brotli(Box<brotli::DecompressorWriter<Output>>),
    Zstd(Box<Zstd>),
}

/// Whether a coding can be decoded; builds no decoder.
#[must_use]
pub fn is_known(coding: &str) -> bool {
    ["identity", "gzip", "x-gzip", "deflate", "br", "zstd"]
        .iter()
        .any(|known| coding.trim().eq_ignore_ascii_case(known))
}

impl Decoder {
    /// `coding` is the value of `Content-Encoding`; `None` for an unknown coding or for several.
    #[must_use]
    pub fn new(coding: &str) -> Option<Self> {
        let coding = match coding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Coding::Identity(Output::default()),
            "gzip" | "x-gzip" => Coding::Gzip(Box::new(GzDecoder::new(Output::default()))),
            "deflate" => Coding::Deflate,
            "br" => Coding::Brotli(Box::new(brotli::DecompressorWriter::new(Output::default(), STEP))),
            "zstd" => Coding::Zstd(Box::new(Zstd::new().ok()?)),
            _ => return None,
        };
        Some(Self { coding, started: false, ended: false, error: None })
    }

    /// Decodes the next part of the body. Where the body is damaged, what was decoded before is returned first, and the next
    /// call fails.
    pub fn write(&mut self, part: &[u8]) -> io::Result<Vec<u8>> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let Some(first) = part.first() else { return Ok(Vec::new()) };
        self.started = true;
        if matches!(self.coding, Coding::Deflate) {
            self.coding = deflate(*first);
        }
        let outcome = part.chunks(STEP).try_for_each(|step| self.step(step));
        let decoded = self.take();
        match outcome {
            Err(error) if decoded.is_empty() => return Err(error),
            Err(error) => self.error = Some(error),
            Ok(()) => {}
        }
        Ok(decoded)
    }

    /// Ends the body; returns the rest. An error if the body is incomplete.
    pub fn end(mut self) -> io::Result<Vec<u8>> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if !self.started || self.ended {
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
        while !step.is_empty() && !self.ended {
            let taken = match &mut self.coding {
                Coding::Identity(out) => out.write(step)?,
                Coding::Gzip(decoder) => write_and_flush(decoder, step)?,
                Coding::Zlib(decoder) => write_and_flush(decoder, step)?,
                Coding::RawDeflate(decoder) => write_and_flush(decoder, step)?,
                Coding::Brotli(decoder) => write_and_drain(decoder, step)?,
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

    /// The decoder takes no more input: its part of the body is complete, or damaged. A gzip member may be followed by
    /// another one (RFC 1952, section 2.2).
    fn at_end(&mut self, next: Option<&u8>) -> io::Result<()> {
        self.ended = true;
        match &mut self.coding {
            Coding::Gzip(decoder) => {
                decoder.try_finish()?;
                if next == Some(&GZIP) {
                    let out = std::mem::take(decoder.get_mut());
                    **decoder = GzDecoder::new(out);
                    self.ended = false;
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

/// Decodes a step and flushes the output; returns how much of the step was taken.
fn write_and_flush(decoder: &mut impl Write, step: &[u8]) -> io::Result<usize> {
    let taken = decoder.write(step)?;
    decoder.flush()?;
    Ok(taken)
}

/// The same for brotli, whose decoder returns [`STEP`] bytes a call, holds back up to a window (16 MiB) of output, and has no
/// flush.
#[expect(clippy::unused_io_amount, reason = "an empty write makes the decoder release its output")]
fn write_and_drain(decoder: &mut brotli::DecompressorWriter<Output>, step: &[u8]) -> io::Result<usize> {
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
        Coding::Zlib(Box::new(ZlibDecoder::new(Output::default())))
    } else {
        Coding::RawDeflate(Box::new(DeflateDecoder::new(Output::default())))
    }
}

/// The bytes decoded since the last call.
#[derive(Default)]
struct Output(Vec<u8>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a part of the body decodes to more than 8 MiB"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decodes consecutive zstd frames. The crate's own writer does not tell whether the last frame was complete.
struct Zstd {
    frames: ZstdFrames<'static>,
    room: Vec<u8>,
    /// The last frame is complete.
    complete: bool,
    out: Output,
}

impl Zstd {
    fn new() -> io::Result<Self> {
        let mut frames = ZstdFrames::new()?;
        frames.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))?;
        Ok(Self { frames, room: vec![0; STEP], complete: true, out: Output::default() })
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
            // A call without input asks for the header of a next frame, which is optional.
            if input.pos() > before || written > 0 {
                self.complete = hint == 0;
            }
            if input.pos() == step.len() && !full {
                return Ok(step.len());
            }
        }
    }

    fn end(&self) -> io::Result<()> {
        if self.complete {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the zstd frame is not complete"))
    }
}
