use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use proptest::prelude::*;

use super::*;

fn encode(coding: &str, body: &[u8]) -> Vec<u8> {
    match coding {
        "identity" => body.to_vec(),
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "raw" => {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "br" => {
            let mut out = Vec::new();
            brotli::CompressorWriter::new(&mut out, 4096, 2, 20).write_all(body).unwrap();
            out
        }
        "zstd" => zstd::encode_all(body, 1).unwrap(),
        other => panic!("{other}"),
    }
}

const CODINGS: &[&str] = &["identity", "gzip", "deflate", "raw", "br", "zstd"];
const COMPRESSED: &[&str] = &["gzip", "deflate", "raw", "br", "zstd"];

fn decoder(coding: &str) -> Decoder {
    Decoder::new(if coding == "raw" { "deflate" } else { coding }).unwrap()
}

fn decode(coding: &str, body: &[u8], part: usize) -> io::Result<Vec<u8>> {
    let mut decoder = decoder(coding);
    let mut out = Vec::new();
    for part in body.chunks(part) {
        out.extend(decoder.write(part)?);
    }
    out.extend(decoder.end()?);
    Ok(out)
}

/// Text that does not compress to nothing.
fn text(len: usize) -> Vec<u8> {
    let mut n = 1u32;
    let mut next = || {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"abcdefghijklmnop"[(n >> 28) as usize]
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn every_coding_is_taken_off_however_the_body_is_cut() {
    for coding in CODINGS {
        for len in [0, 1, 1000, 300_000] {
            let (body, encoded) = (text(len), encode(coding, &text(len)));
            for part in [1, 7, 4096, 1_000_000] {
                assert!(decode(coding, &encoded, part).unwrap() == body, "{coding}, {len} in parts of {part}");
            }
        }
    }
}

#[test]
fn a_body_that_streams_is_decoded_as_far_as_it_came() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(b"first").unwrap();
    encoder.flush().unwrap();
    assert_eq!(decoder("gzip").write(encoder.get_ref()).unwrap(), b"first");

    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(b"first").unwrap();
    encoder.flush().unwrap();
    assert_eq!(decoder("zstd").write(encoder.get_ref()).unwrap(), b"first");

    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 2, 20);
    encoder.write_all(b"first").unwrap();
    encoder.flush().unwrap();
    assert_eq!(decoder("br").write(encoder.get_ref()).unwrap(), b"first");
}

#[test]
fn a_body_that_ends_early_is_an_error() {
    for coding in COMPRESSED {
        let encoded = encode(coding, &text(10_000));
        for len in [1, 2, 20, encoded.len() / 2, encoded.len() - 1] {
            assert!(decode(coding, &encoded[..len], 4096).is_err(), "{coding}, {len} of {}", encoded.len());
        }
    }
}

#[test]
fn a_damaged_body_is_an_error() {
    for coding in ["gzip", "deflate"] {
        let mut encoded = encode(coding, &text(10_000));
        let at = encoded.len() - 2;
        encoded[at] ^= 0x55;
        assert!(decode(coding, &encoded, 4096).is_err(), "{coding}: the checksum");
    }
    for coding in COMPRESSED {
        assert!(decode(coding, &[0xfb; 5000], 4096).is_err(), "{coding}");
    }
}

#[test]
fn an_empty_body_is_whole() {
    for coding in CODINGS {
        assert_eq!(decode(coding, b"", 1).unwrap(), b"", "{coding}");
    }
}

#[test]
fn bodies_one_after_another_are_one_body() {
    for coding in ["gzip", "zstd"] {
        let encoded = [encode(coding, b"one "), encode(coding, b"two")].concat();
        for part in [1, 5, 4096] {
            assert_eq!(decode(coding, &encoded, part).unwrap(), b"one two", "{coding} in parts of {part}");
        }
    }
}

#[test]
fn what_follows_a_whole_body_is_ignored() {
    for coding in ["gzip", "deflate", "raw", "br"] {
        for tail in [b"\r\n".as_slice(), &[0; 20], b"and some more text"] {
            let body = text(100_000);
            let encoded = [encode(coding, &body).as_slice(), tail].concat();
            for part in [1, 4096, 1_000_000] {
                assert!(decode(coding, &encoded, part).unwrap() == body, "{coding} in parts of {part}, then {tail:?}");
            }
        }
    }
}

#[test]
fn what_comes_before_the_damage_is_decoded() {
    for coding in ["gzip", "deflate", "zstd"] {
        let body = text(1_000_000);
        let mut encoded = encode(coding, &body);
        let half = encoded.len() / 2;
        encoded[half..].fill(0xff);
        let mut decoder = decoder(coding);
        let decoded = decoder.write(&encoded).unwrap();
        assert!(decoded.len() > 300_000 && body.starts_with(&decoded[..300_000]), "{coding}: {}", decoded.len());
        assert!(decoder.end().is_err(), "{coding}");
    }
}

#[test]
fn a_large_page_of_a_large_window_comes_as_it_is_decoded() {
    let body: Vec<u8> = (0..300_000).flat_map(|n| format!("<li><a href=/item/{n}>item</a>\n").into_bytes()).collect();
    assert!(body.len() > MAX_OUTPUT);
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 1 << 16, 5, 24);
    encoder.write_all(&body).unwrap();
    encoder.flush().unwrap();
    let mut decoder = decoder("br");
    let decoded: Vec<u8> = encoder.get_ref().chunks(STEP).flat_map(|part| decoder.write(part).unwrap()).collect();
    assert!(decoded == body, "{} of {} bytes", decoded.len(), body.len());
}

#[test]
fn a_body_that_explodes_is_an_error() {
    let big = vec![0; MAX_OUTPUT + 1];
    for coding in ["br", "zstd"] {
        let encoded = encode(coding, &big);
        assert!(encoded.len() < STEP, "{}", encoded.len());
        assert!(decode(coding, &encoded, STEP).unwrap_err().to_string().contains("8 MiB"), "{coding}");
    }
}

#[test]
fn names_of_codings_have_no_case_and_an_unknown_one_is_no_decoder() {
    for coding in ["GZIP", "x-gzip", " br ", "Deflate", "zstd", "identity", ""] {
        assert!(Decoder::new(coding).is_some(), "{coding}");
    }
    for coding in ["compress", "gzip, br", "gzip;q=1", "sdch"] {
        assert!(Decoder::new(coding).is_none(), "{coding}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_an_error_or_a_body(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for coding in COMPRESSED {
            let whole = decode(coding, &bytes, 300);
            let cut = decode(coding, &bytes, 1);
            prop_assert_eq!(whole.is_err(), cut.is_err(), "{}", coding);
            if let (Ok(whole), Ok(cut)) = (whole, cut) {
                prop_assert_eq!(whole, cut);
            }
        }
    }
}

#[test]
fn what_is_known_can_be_undone_and_nothing_else() {
    for coding in ["identity", "gzip", "X-GZIP", "deflate", " br", "zstd"] {
        assert!(is_known(coding) && Decoder::new(coding).is_some(), "{coding}");
    }
    for coding in ["compress", "gzip, br", "*"] {
        assert!(!is_known(coding) && Decoder::new(coding).is_none(), "{coding}");
    }
}
