//! A server that speaks TLS. It takes the TLS off and passes the bytes on, to an application of the world or to any other server.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::tls::{Authority, Signed};

/// How it speaks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manners<'a> {
    /// Asks for certificates that this authority has signed.
    pub(crate) clients: Option<&'a Authority>,
    /// What it chooses from by ALPN; empty: it takes no part in that.
    pub(crate) protocols: &'a [&'a str],
}

/// A connection whose handshake succeeded.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// The name that was asked for.
    pub(crate) sni: Option<String>,
    /// What ALPN agreed on.
    pub(crate) protocol: Option<String>,
    /// What the proxy showed.
    pub(crate) certificate: Option<CertificateDer<'static>>,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Arrival {
    /// What the proxy sent.
    pub(crate) fn sent(&self) -> String {
        String::from_utf8_lossy(&self.sent.lock().unwrap()).into_owned()
    }
}

#[derive(Debug)]
struct Shared {
    config: Mutex<Arc<ServerConfig>>,
    target: Mutex<Option<SocketAddr>>,
    arrivals: Mutex<Vec<Arrival>>,
    failures: AtomicUsize,
    end: Notify,
}

/// A server that speaks TLS.
#[derive(Debug, Clone)]
pub(crate) struct TlsServer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl TlsServer {
    pub(crate) fn open(certificate: &Signed, manners: Manners<'_>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::new(Shared {
            config: Mutex::new(config(certificate, manners)),
            target: Mutex::default(),
            arrivals: Mutex::default(),
            failures: AtomicUsize::new(0),
            end: Notify::new(),
        });
        let server = Self { address: listener.local_addr().unwrap(), shared: Arc::clone(&shared) };
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    tokio::spawn(Arc::clone(&shared).serve(socket));
                }
            });
        });
        server
    }

    /// Where the bytes go.
    pub(crate) fn forward(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap() = Some(target);
    }

    /// Another certificate for the connections from now on.
    pub(crate) fn show(&self, certificate: &Signed, manners: Manners<'_>) {
        *self.shared.config.lock().unwrap() = config(certificate, manners);
    }

    /// Closes what is open.
    pub(crate) fn hang_up(&self) {
        self.shared.end.notify_waiters();
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.shared.arrivals.lock().unwrap().clone()
    }

    /// The connection by which a request of that path came.
    pub(crate) fn arrival_of(&self, path: &str) -> Arrival {
        let found = self.arrivals().into_iter().find(|one| one.sent().contains(&format!(" {path} ")));
        found.unwrap_or_else(|| panic!("no request for {path} came"))
    }

    /// Handshakes that failed.
    pub(crate) fn failures(&self) -> usize {
        self.shared.failures.load(Ordering::SeqCst)
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, socket: TcpStream) -> io::Result<()> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config.lock().unwrap()));
        let stream = match acceptor.accept(socket).into_fallible().await {
            Ok(stream) => stream,
            Err((error, mut socket)) => {
                self.failures.fetch_add(1, Ordering::SeqCst);
                // Closed by the proxy: closing now could reset the connection before the reason is read.
                let _ = socket.shutdown().await;
                while socket.read(&mut [0; 1024]).await? > 0 {}
                return Err(error);
            }
        };
        let session = stream.get_ref().1;
        let sent = Arc::<Mutex<Vec<u8>>>::default();
        self.arrivals.lock().unwrap().push(Arrival {
            sni: session.server_name().map(str::to_owned),
            protocol: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            certificate: session.peer_certificates().and_then(|chain| chain.first().cloned()),
            sent: Arc::clone(&sent),
        });
        let target = self.target.lock().unwrap().expect("somewhere to go");
        let (mut from_proxy, mut to_proxy) = split(stream);
        let (mut from_target, mut to_target) = TcpStream::connect(target).await?.into_split();
        let there = async move {
            let mut buffer = [0; 16 * 1024];
            while let Ok(length @ 1..) = from_proxy.read(&mut buffer).await {
                sent.lock().unwrap().extend_from_slice(&buffer[..length]);
                to_target.write_all(&buffer[..length]).await?;
            }
            to_target.shutdown().await
        };
        let back = async move {
            let _ = copy(&mut from_target, &mut to_proxy).await;
            to_proxy.shutdown().await
        };
        tokio::select! {
            () = self.end.notified() => Ok(()),
            (there, back) = async { tokio::join!(there, back) } => there.and(back),
        }
    }
}

fn config(certificate: &Signed, manners: Manners<'_>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.expect("versions of TLS");
    let builder = match manners.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.certificate.clone()).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        }
    };
    let chain = vec![certificate.certificate.clone()];
    let mut config = builder.with_single_cert(chain, certificate.private_key()).expect("a key");
    config.alpn_protocols = manners.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}
