//! Connections of one listener, from the handshake to the end.

use std::{
    convert::Infallible,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{sync::watch, task::JoinSet};

use super::{
    listen::{Accepted, Listener},
    pace::Pace,
    request::{Arrived, Arriving, Leaving},
    seat::{Seat, Seats},
    stream::{self, Impatient, Stream},
    tls::{self, Acceptor},
};

/// How long a client may take to send a request's head, and how long a connection may idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may take nothing of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests under way may take once the daemon is to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of a request's head.
const HEAD_LIMIT: usize = 64 << 10;
/// The most fields of a request's head.
const FIELDS_LIMIT: usize = 100;
/// Connections at one listener.
const SEATS: usize = 512;
/// Connections that begin at a listener of TCP: so many a second, and so many at once.
const PACE: (u32, u32) = (500, 1000);

/// What the connections of one listener have in common.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) router: Router,
    pub(super) tls: Option<Acceptor>,
    pub(super) ended: watch::Receiver<bool>,
}

/// Accepts connections until the daemon is to end, and waits for those there are.
pub(super) async fn serve_one(listener: Listener, service: Service) {
    let seats = Seats::new(SEATS);
    let mut tasks = JoinSet::new();
    let mut pace = listener.is_tcp().then(|| Pace::new(PACE.0, PACE.1, Instant::now()));
    let mut ended = service.ended.clone();
    loop {
        let accepted = async {
            if let Some(pace) = &mut pace {
                tokio::time::sleep(pace.take(Instant::now())).await;
            }
            listener.accept().await
        };
        let accepted = tokio::select! {
            () = ending(&mut ended) => break,
            accepted = accepted => accepted,
        };
        while tasks.try_join_next().is_some() {}
        match accepted {
            Ok(accepted) => match seats.take() {
                Some(seat) => {
                    let connection = service.clone().connect(accepted, seat.clone());
                    tasks.spawn(async move {
                        tokio::select! {
                            () = connection => {}
                            () = seat.needed() => log::debug!("a connection that waited made room for another"),
                        }
                    });
                }
                None => accepted.refuse(service.tls.is_some()),
            },
            Err(error) => {
                // Out of file descriptors, most likely: those of connections that end come back.
                log::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let drained = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        log::warn!("requests still under way after {} s are cut off", DRAIN_TIMEOUT.as_secs());
    }
}

impl Service {
    /// Serves one connection to its end.
    async fn connect(mut self, accepted: Accepted, seat: Arc<Seat>) {
        let agreed = tokio::select! {
            // A handshake under way is no request under way.
            () = ending(&mut self.ended) => return,
            agreed = agree(accepted, self.tls.as_ref()) => agreed,
        };
        let stream = match agreed {
            Ok(stream) => Impatient::new(stream, WRITE_TIMEOUT),
            Err(error) => return log::debug!("connection: {error}"),
        };
        let router = TowerToHyperService::new(self.router);
        let service = service_fn(|request: Request<Incoming>| {
            let arrived = Arrived::default();
            let request = request.map(|body| Arriving::new(body, seat.clone(), arrived.clone()));
            let response = router.call(request);
            async { Ok::<_, Infallible>(response.await?.map(|body| Leaving::new(body, arrived))) }
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_LIMIT)
            .max_headers(FIELDS_LIMIT)
            .serve_connection(TokioIo::new(stream), service);
        let served = tokio::select! {
            served = &mut connection => served,
            () = ending(&mut self.ended) => {
                Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        };
        if let Err(error) = served {
            log::debug!("connection: {error}");
        }
        stream::part(connection.into_parts().io.into_inner()).await;
    }
}

/// Ready when the daemon is to end.
async fn ending(ended: &mut watch::Receiver<bool>) {
    // Without a sender it ended long ago.
    let _ = ended.wait_for(|ended| *ended).await;
}

/// The connection as bytes, after the handshake that there may have to be.
async fn agree(accepted: Accepted, tls: Option<&Acceptor>) -> io::Result<Stream> {
    match (accepted, tls) {
        (Accepted::Unix(stream), _) => Ok(Box::new(stream)),
        (Accepted::Tcp(stream), None) => Ok(Box::new(tls::unless_hello(stream, HEAD_TIMEOUT).await?)),
        (Accepted::Tcp(stream), Some(tls)) => Ok(Box::new(tls.accept(stream).await?)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use axum::{
        body::Bytes,
        routing::{MethodRouter, get, post},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
        sync::Notify,
    };

    use super::*;

    /// A server of `router` at a socket of the file system, until what is returned says so.
    async fn serve(
        path: &std::path::Path,
        router: Router,
    ) -> (watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let listener = Listener::unix(path, None).await.unwrap();
        let (ending, ended) = watch::channel(false);
        let server = tokio::spawn(serve_one(listener, Service { router, tls: None, ended }));
        (ending, server)
    }

    /// What is answered to `request`, until the connection ends.
    async fn ask(path: &std::path::Path, request: &str) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// A request that is worked on, from when the first of what is returned beside it says so until the second is told.
    fn work() -> (MethodRouter, Arc<Notify>, Arc<Notify>) {
        let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (begins, released) = (begun.clone(), release.clone());
        let handler = move || async move {
            begins.notify_one();
            released.notified().await;
            "done"
        };
        (get(handler), begun, release)
    }

    const ASK: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn requests_under_way_finish_and_no_others_begin() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netd.sock");
        let (work, begun, release) = work();
        let (ending, server) = serve(&path, Router::new().route("/", work)).await;

        let mut idle = UnixStream::connect(&path).await.unwrap();
        let mut busy = UnixStream::connect(&path).await.unwrap();
        busy.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        begun.notified().await;
        ending.send_replace(true);

        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(UnixStream::connect(&path).await.unwrap_err().kind(), ErrorKind::NotFound);
        release.notify_one();
        let mut answer = String::new();
        busy.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("done"), "{answer}");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn half_open_connections_keep_nobody_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netd.sock");
        let (work, begun, release) = work();
        let router = Router::new()
            .route("/", get(|| async { "served" }))
            .route("/work", work)
            .route("/body", post(|body: Bytes| async move { body.len().to_string() }));
        let (_ending, _server) = serve(&path, router).await;

        let working = {
            let path = path.clone();
            let request = "GET /work HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            tokio::spawn(async move { ask(&path, request).await })
        };
        begun.notified().await;
        let begin = |stream: UnixStream, head: &'static [u8]| async move {
            let mut stream = stream;
            stream.write_all(head).await.unwrap();
            stream
        };
        let mut half_sent = Vec::new();
        for index in 0..SEATS + 100 {
            let head: &[u8] = match index % 3 {
                0 => b"",
                1 => b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: ",
                _ => b"POST /body HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nslow",
            };
            half_sent.push(begin(UnixStream::connect(&path).await.unwrap(), head).await);
        }
        let mut slow = begin(UnixStream::connect(&path).await.unwrap(), b"GET / HTTP/1.1\r\nx-slow: ").await;
        assert!(ask(&path, ASK).await.ends_with("served"));
        // The first of them had to go, the last of them is still welcome, and whose request is worked on was not disturbed.
        assert!(matches!(half_sent[0].read(&mut [0]).await, Ok(0) | Err(_)));
        slow.write_all(b"it comes\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        slow.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("served"), "{answer}");
        release.notify_one();
        let answer = working.await.unwrap();
        assert!(answer.ends_with("done"), "{answer}");
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netd.sock");
        let (_ending, _server) = serve(&path, Router::new().route("/", get(|| async { "served" }))).await;
        let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(2 * HEAD_LIMIT));
        assert!(ask(&path, &long).await.starts_with("HTTP/1.1 431 "));
        let many: String = (0..=FIELDS_LIMIT).map(|index| format!("x-{index}: y\r\n")).collect();
        assert!(ask(&path, &format!("GET / HTTP/1.1\r\n{many}\r\n")).await.starts_with("HTTP/1.1 431 "));
        assert!(ask(&path, "\x16\x03\x01 nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
        assert!(ask(&path, ASK).await.ends_with("served"));
    }

    #[tokio::test]
    async fn an_answer_that_nobody_fetches_does_not_last() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netd.sock");
        let (_ending, _server) =
            serve(&path, Router::new().route("/", get(|| async { "y".repeat(8 << 20) }))).await;
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(ASK.as_bytes()).await.unwrap();
        stream.readable().await.unwrap();
        tokio::time::pause();
        tokio::time::sleep(WRITE_TIMEOUT * 2).await;
        tokio::time::resume();
        let mut rest = Vec::new();
        // Cut off: what the kernel held, and no more.
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.len() < 8 << 20, "{}", rest.len());
    }
}
