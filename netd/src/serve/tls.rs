//! TLS at a socket of TCP, and what becomes of those who speak something else there.

use std::{
    io,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, server::WebPkiClientVerifier, version},
    server::TlsStream,
};

use super::stream::part;
use crate::config::Tls;

/// How long a client may take to agree on a connection.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// What Go's server says, word for word, for that is what clients print.
const NOT_HTTPS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// What a client of TLS gets where there is none. No answer of HTTP: Go's clients then say what Docker's users know,
/// `first record does not look like a TLS handshake`.
const NOT_TLS: &[u8] = b"Client sent a TLS handshake to an HTTP server.\n";
/// The first byte of a handshake's record.
const HANDSHAKE: u8 = 22;

/// Takes connections with the certificates of the last reading.
#[derive(Clone, Debug)]
pub struct Acceptor(Arc<RwLock<Arc<ServerConfig>>>);

impl Acceptor {
    /// Reads the certificates.
    ///
    /// # Errors
    /// Names the file, in Docker's words.
    pub fn new(tls: &Tls) -> Result<Self, String> {
        Ok(Self(Arc::new(RwLock::new(Arc::new(read(tls)?)))))
    }

    /// Reads the certificates anew, for connections from now on.
    ///
    /// # Errors
    /// Names the file; then the certificates are those of before.
    pub fn reload(&self, tls: &Tls) -> Result<(), String> {
        let config = Arc::new(read(tls)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Agrees with a client, or says to it what is wrong. The error is for the log.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long");
        timeout(HANDSHAKE_TIMEOUT, self.handshake(stream)).await.map_err(late)?
    }

    async fn handshake(&self, mut stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let mut first = [0];
        stream.peek(&mut first).await?;
        // A handshake's record begins with 22, a request in the clear with the name of its method.
        if first[0].is_ascii_uppercase() {
            stream.write_all(NOT_HTTPS).await?;
            part(stream).await;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the client sent HTTP in the clear"));
        }
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        match TlsAcceptor::from(config).accept(stream).into_fallible().await {
            Ok(stream) => Ok(stream),
            Err((error, stream)) => {
                // The alert is written; closing at once would take it away from a client that is still sending.
                part(stream).await;
                Err(error)
            }
        }
    }
}

/// A connection at a socket without TLS, unless the client says a hello of TLS: then it is told that nobody understands it.
pub(super) async fn unless_hello(mut stream: TcpStream, patience: Duration) -> io::Result<TcpStream> {
    let mut first = [0];
    timeout(patience, stream.peek(&mut first))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if first != [HANDSHAKE] {
        return Ok(stream);
    }
    stream.write_all(NOT_TLS).await?;
    part(stream).await;
    Err(io::Error::new(io::ErrorKind::InvalidData, "the client speaks TLS at a socket in the clear"))
}

fn read(tls: &Tls) -> Result<ServerConfig, String> {
    let fail = |reason: String| format!("invalid TLS configuration: {reason}");
    let provider = Arc::new(ring::default_provider());
    let (chain, key) = tls.files.identity().map_err(fail)?;
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| fail(error.to_string()))?;
    let config = if tls.verify {
        let roots = Arc::new(tls.files.roots().map_err(fail)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
        config.with_client_cert_verifier(verifier.map_err(|error| fail(error.to_string()))?)
    } else {
        config.with_no_client_auth()
    };
    let mut config = config.with_single_cert(chain, key).map_err(|error| fail(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
