//! TLS to a daemon, with the flags and files of Docker's command line.

use std::{ffi::OsString, io, path::PathBuf, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
        version,
    },
};

use crate::config::{CertificateFiles, certificate_directory};

/// How to speak TLS.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Flags {
    /// Speak TLS to a daemon at TCP, and believe that it is the one
    #[arg(long, global = true)]
    tls: bool,
    /// Speak TLS to a daemon at TCP, and have it prove that it is the one (NETD_TLS_VERIFY)
    #[arg(long, global = true)]
    tlsverify: bool,
    /// Trust daemons whose certificates this CA signed [default: ca.pem in NETD_CERT_PATH, or ~/.docker]
    #[arg(long, value_name = "FILE", global = true)]
    tlscacert: Option<PathBuf>,
    /// Certificate to show to the daemon [default: cert.pem there]
    #[arg(long, value_name = "FILE", global = true)]
    tlscert: Option<PathBuf>,
    /// The key of that certificate [default: key.pem there]
    #[arg(long, value_name = "FILE", global = true)]
    tlskey: Option<PathBuf>,
}

/// A way to speak TLS.
#[derive(Clone)]
pub(crate) struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Flags {
    /// What is asked for by the flags and the environment; `None` for no TLS.
    pub(super) fn read(self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Tls>, String> {
        let is_set = |name| variable(name).is_some_and(|value| !value.is_empty());
        let verify = self.tlsverify || is_set("NETD_TLS_VERIFY");
        if !verify && !self.tls {
            return Ok(None);
        }
        let directory = certificate_directory(variable);
        let named = self.tlscert.is_some() || self.tlskey.is_some();
        let files = CertificateFiles {
            ca: self.tlscacert.unwrap_or_else(|| directory.join("ca.pem")),
            cert: self.tlscert.unwrap_or_else(|| directory.join("cert.pem")),
            key: self.tlskey.unwrap_or_else(|| directory.join("key.pem")),
        };
        // A certificate that is only where one could be may be missing: not every daemon asks for one.
        let identity = named || files.cert.exists() || files.key.exists();
        config(&files, verify, identity).map(|config| Some(Tls(TlsConnector::from(Arc::new(config)))))
    }
}

fn config(files: &CertificateFiles, verify: bool, identity: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| error.to_string())?;
    let config = if verify {
        config.with_root_certificates(files.roots()?)
    } else {
        config.dangerous().with_custom_certificate_verifier(Arc::new(Credulous(provider)))
    };
    if !identity {
        return Ok(config.with_no_client_auth());
    }
    let (chain, key) = files.identity()?;
    config.with_client_auth_cert(chain, key).map_err(|error| error.to_string())
}

impl Tls {
    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}

/// Believes every daemon: `--tls` without `--tlsverify`, which Docker's command line has too.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
