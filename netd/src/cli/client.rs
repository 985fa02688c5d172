//! A client of the API: one connection for each request, over a socket of the file system or TCP, with TLS or in the clear.

use std::{fmt, io, path::PathBuf, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::client::TlsStream;

use super::tls::Tls;
use crate::config::Host;

/// What a segment of a path or a parameter's value has to be freed from.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// How long a daemon may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Speaks to one daemon.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    server: Server,
}

/// Where a daemon is.
#[derive(Debug, Clone)]
pub(crate) enum Server {
    Unix(PathBuf),
    Tcp { host: String, port: u16, tls: Option<Tls> },
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody there.
    #[error(
        "Cannot connect to the netd daemon at {host}: {reason}. Is it running? \
         `netd daemon` (as root) starts it; --host or NETD_HOST names another socket."
    )]
    Connect { host: String, reason: io::Error },
    /// Somebody there, perhaps, but not for this user.
    #[error("Cannot connect to the netd daemon at {host}: {reason}. It is for root and the socket's group.")]
    Denied { host: String, reason: io::Error },
    /// The daemon's own words.
    #[error("Error response from daemon: {message}")]
    Refused { status: StatusCode, message: String },
    /// What is there speaks something else, or went away.
    #[error("{host} does not answer as netd does: {reason}")]
    Protocol { host: String, reason: String },
}

impl Client {
    pub(crate) const fn new(server: Server) -> Self {
        Self { server }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Bytes, Error> {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), Error> {
        self.call(Method::DELETE, path, None).await.map(drop)
    }

    pub(crate) async fn post(&self, path: &str, body: &impl Serialize) -> Result<Bytes, Error> {
        let body = serde_json::to_vec(body).map_err(|error| self.protocol(&error))?;
        self.call(Method::POST, path, Some(body.into())).await
    }

    /// Reads an answer.
    pub(crate) fn parse<'a, T: Deserialize<'a>>(&self, body: &'a [u8]) -> Result<T, Error> {
        serde_json::from_slice(body).map_err(|error| self.protocol(&error))
    }

    async fn call(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Bytes, Error> {
        let refused = |reason: io::Error| {
            let host = self.server.to_string();
            match reason.kind() {
                io::ErrorKind::PermissionDenied => Error::Denied { host, reason },
                _ => Error::Connect { host, reason },
            }
        };
        let connection = tokio::time::timeout(CONNECT_TIMEOUT, self.server.connect())
            .await
            .map_err(|_| refused(io::ErrorKind::TimedOut.into()))?
            .map_err(refused)?;
        match connection {
            Connection::Unix(stream) => self.exchange(stream, method, path, body).await,
            Connection::Tcp(stream) => self.exchange(stream, method, path, body).await,
            Connection::Tls(stream) => self.exchange(stream, method, path, body).await,
        }
    }

    async fn exchange<S>(
        &self,
        stream: S,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Bytes, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.protocol(&error))?;
        // Ends with the exchange.
        let connection = tokio::spawn(connection);
        let authority = match &self.server {
            Server::Unix(_) => "netd".to_owned(),
            Server::Tcp { host, port, .. } => format!("{host}:{port}"),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, authority)
            .header(header::USER_AGENT, concat!("netd/", env!("CARGO_PKG_VERSION")));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request =
            request.body(Full::new(body.unwrap_or_default())).map_err(|error| self.protocol(&error))?;
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => {
                // What ended before the request was sent knows better why; and the first cause is what a person can do
                // something about: an alert of TLS, for instance.
                drop(sender);
                let cause = connection.await.ok().and_then(Result::err).unwrap_or(error);
                return Err(self.protocol(&format_args!("{:#}", anyhow::Error::from(cause))));
            }
        };
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| self.protocol(&error))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        #[derive(Deserialize)]
        struct Refusal {
            message: String,
        }
        match serde_json::from_slice(&body) {
            Ok(Refusal { message }) => Err(Error::Refused { status, message }),
            // What is no daemon of Docker's kind may still say what is wrong.
            Err(_) => match str::from_utf8(&body).map(str::trim) {
                Ok(message) if !message.is_empty() => {
                    Err(Error::Refused { status, message: message.to_owned() })
                }
                _ => Err(self.protocol(&format!("{status} without a message"))),
            },
        }
    }

    fn protocol(&self, reason: &impl ToString) -> Error {
        Error::Protocol { host: self.server.to_string(), reason: reason.to_string() }
    }
}

impl Server {
    async fn connect(&self) -> io::Result<Connection> {
        match self {
            Self::Unix(path) => UnixStream::connect(path).await.map(Connection::Unix),
            Self::Tcp { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                match tls {
                    None => Ok(Connection::Tcp(stream)),
                    Some(tls) => {
                        tls.connect(host, stream).await.map(|stream| Connection::Tls(Box::new(stream)))
                    }
                }
            }
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => Host::Unix(path.clone()).fmt(f),
            Self::Tcp { host, port, .. } => Host::Tcp { host: host.clone(), port: *port }.fmt(f),
        }
    }
}

enum Connection {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// `text` as one segment of a path, or one value of a query.
pub(crate) fn escape(text: &str) -> String {
    // A segment of dots would be taken for a step in the tree of paths.
    match text {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => utf8_percent_encode(text, RESERVED).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_segment_of_a_path() {
        assert_eq!(escape("n1_a-b.c~"), "n1_a-b.c~");
        assert_eq!(escape("test@#$/ü"), "test%40%23%24%2F%C3%BC");
        assert_eq!(escape(".."), "%2E%2E");
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_named_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("none.sock");
        let error = Client::new(Server::Unix(path.clone())).get("/networks").await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("Cannot connect to the netd daemon at unix://{}: ", path.display()))
        );
        assert!(error.contains("`netd daemon`") && error.contains("NETD_HOST"), "{error}");
    }
}
