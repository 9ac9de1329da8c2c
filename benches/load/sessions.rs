//! The clients' requests: with the cookies that a first visit brought, or without any.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::answer::{parse, split_head};
use crate::plan::{Clients, Plan};

/// A client that asks again and again.
pub(crate) struct Session {
    /// The whole request.
    pub(crate) request: Vec<u8>,
    /// The server of the first response, which must serve all others.
    pub(crate) server: Option<u32>,
    /// Where its connections come from.
    pub(crate) address: Option<IpAddr>,
}

/// The clients of a plan, with what a first visit of each brought.
pub(crate) fn collect(plan: &Plan, tls: Option<&Arc<ClientConfig>>) -> io::Result<Vec<Session>> {
    let new = Session { request: request(plan, &plan.path, ""), server: None, address: None };
    let began = Instant::now();
    match plan.clients {
        Clients::New => Ok(vec![new]),
        Clients::Returning(count) => (0..count)
            .map(|number| {
                thread::sleep(
                    (began + plan.spread.mul_f64(number as f64 / count as f64)).duration_since(Instant::now()),
                );
                let (server, cookies) = visit(plan, tls)?;
                Ok(Session { request: request(plan, &plan.path, &cookies), server, address: None })
            })
            .collect(),
        // The first response on a connection names its session.
        Clients::ByAddress => Ok((0..plan.connections)
            .map(|number| Session { address: Some(address(number)), request: new.request.clone(), server: None })
            .collect()),
    }
}

/// 127.1.0.1, 127.1.0.2, …: all of 127/8 is the loopback interface's on Linux.
fn address(number: usize) -> IpAddr {
    let number = u32::try_from(number % 0xff_0000).unwrap_or_default();
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number).into()
}

/// Host and five headers that every browser sends.
fn request(plan: &Plan, path: &str, cookies: &str) -> Vec<u8> {
    let close = if plan.close { "Connection: close\r\n" } else { "" };
    let cookies = if cookies.is_empty() { String::new() } else { format!("Cookie: {cookies}\r\n") };
    format!(
        "GET {path} HTTP/1.1\r\nHost: shop.example.org\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
         Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
         Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n\
         Referer: http://shop.example.org/cart\r\n{cookies}{close}\r\n"
    )
    .into_bytes()
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Begins a session on a separate connection: the server that responded, and the cookies as a client returns them.
fn visit(plan: &Plan, tls: Option<&Arc<ClientConfig>>) -> io::Result<(Option<u32>, String)> {
    let stream = TcpStream::connect(plan.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut stream: Box<dyn Stream> = match tls {
        None => Box::new(stream),
        Some(tls) => {
            let name = ServerName::from(plan.address.ip());
            Box::new(StreamOwned::new(ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?, stream))
        }
    };
    stream.write_all(&request(plan, "/s", ""))?;
    let mut came = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        came.extend_from_slice(buffer.get(..read).unwrap_or_default());
        let Some((head, _)) = split_head(&came) else { continue };
        let mut cookies = Vec::new();
        let head = parse(head, |cookie| {
            let pair = cookie.split(|byte| *byte == b';').next().unwrap_or_default();
            cookies.push(String::from_utf8_lossy(pair).into_owned());
        });
        let head = head.ok().filter(|head| head.status == 200);
        let head = head.ok_or_else(|| io::Error::other("a first visit was not answered with 200 and a length"))?;
        return Ok((head.server, cookies.join("; ")));
    }
}
