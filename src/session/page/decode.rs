//! Undoes the compression of a page (RFC 9110, section 8.4.1), while it passes.

use std::io::{self, Write};
use std::mem;

use brotli::DecompressorWriter;
use flate2::write::{GzDecoder, ZlibDecoder};

/// Brotli's buffer.
const BUFFER: usize = 16 * 1024;

/// One compressed page on its way.
pub struct Decoder(Box<dyn Undo + Send + Sync>);

/// What a coding's decoder can do.
trait Undo: Write {
    fn finish(&mut self) -> io::Result<()>;
    fn take(&mut self) -> Vec<u8>;
}

impl Undo for GzDecoder<Vec<u8>> {
    fn finish(&mut self) -> io::Result<()> {
        self.try_finish()
    }

    fn take(&mut self) -> Vec<u8> {
        mem::take(self.get_mut())
    }
}

impl Undo for ZlibDecoder<Vec<u8>> {
    fn finish(&mut self) -> io::Result<()> {
        self.try_finish()
    }

    fn take(&mut self) -> Vec<u8> {
        mem::take(self.get_mut())
    }
}

impl Undo for DecompressorWriter<Vec<u8>> {
    fn finish(&mut self) -> io::Result<()> {
        self.close()
    }

    fn take(&mut self) -> Vec<u8> {
        mem::take(self.get_mut())
    }
}

impl Decoder {
    /// For a `Content-Encoding`; `None` = not one that can be undone here.
    #[must_use]
    pub fn new(coding: &str) -> Option<Self> {
        let is = |name: &str| coding.trim().eq_ignore_ascii_case(name);
        Some(Self(if is("gzip") || is("x-gzip") {
            Box::new(GzDecoder::new(Vec::new()))
        } else if is("deflate") {
            Box::new(ZlibDecoder::new(Vec::new()))
        } else if is("br") {
            Box::new(DecompressorWriter::new(Vec::new(), BUFFER))
        } else {
            return None;
        }))
    }

    /// The next bytes; returns what they hold.
    ///
    /// # Errors
    /// When they are not what the coding says.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.0.write_all(bytes)?;
        self.0.flush()?;
        Ok(self.0.take())
    }

    /// The page is over; returns what was kept of it.
    ///
    /// # Errors
    /// When it breaks off before its end.
    pub fn end(&mut self) -> io::Result<Vec<u8>> {
        self.0.finish()?;
        Ok(self.0.take())
    }
}
