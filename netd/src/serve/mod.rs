//! HTTP at the API's sockets: listeners, connections, and how they end.

mod listen;

use std::{future::Future, time::Duration};

use anyhow::Context as _;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{sync::watch, task::JoinSet};

use self::listen::{Listener, Stream};
use crate::{
    api::Api,
    config::{Config, Host, PluginSocket},
    engine::Engine,
    plugin,
};

/// How long a client may take to send a request's head, and how long a connection may idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests under way may take once the daemon is to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Everywhere that is listened at. Clients can connect from the time this is there, and are served once [`Self::serve`]
/// is called.
#[derive(Debug)]
pub struct Listeners {
    api: Vec<Listener>,
    metrics: Option<Listener>,
    plugin: Option<Listener>,
}

impl Listeners {
    /// Listens where the configuration says.
    ///
    /// # Errors
    /// A listener cannot be had; then none is left behind.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let mut listeners = Self { api: Vec::new(), metrics: None, plugin: None };
        for host in &config.hosts {
            listeners
                .api
                .push(Listener::bind(host).await.with_context(|| format!("cannot listen at {host}"))?);
            log::info!("API at {host}");
        }
        listeners.plugin = plugin_listener(&config.plugin).await?;
        if let Some(address) = config.metrics_addr {
            let host = Host::Tcp { host: address.ip().to_string(), port: address.port() };
            let listener =
                Listener::bind(&host).await.with_context(|| format!("cannot serve metrics at {address}"))?;
            log::info!("metrics at http://{address}/metrics");
            listeners.metrics = Some(listener);
        }
        Ok(listeners)
    }

    /// Serves the API of `engine` until `shutdown`; then lets the requests under way finish.
    ///
    /// # Errors
    /// A listener's task has panicked.
    pub async fn serve(self, engine: Engine, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let (ending, ended) = watch::channel(false);
        let api = Api::new(engine.clone(), ended.clone());
        let mut tasks = JoinSet::new();
        for listener in self.api {
            tasks.spawn(serve_one(listener, api.clone().router(), ended.clone()));
        }
        if let Some(listener) = self.plugin {
            tasks.spawn(serve_one(listener, plugin::router(engine), ended.clone()));
        }
        if let Some(listener) = self.metrics {
            tasks.spawn(serve_one(listener, api.metrics_router(), ended));
        }
        shutdown.await;
        ending.send_replace(true);
        while let Some(task) = tasks.join_next().await {
            task.context("a listener's task failed")?;
        }
        Ok(())
    }
}

/// Listens where an engine finds its plugin. Where nobody asked for it, it is not missed.
async fn plugin_listener(socket: &PluginSocket) -> anyhow::Result<Option<Listener>> {
    let (path, is_asked_for) = match socket {
        PluginSocket::None => return Ok(None),
        PluginSocket::Default(path) => (path, false),
        PluginSocket::At(path) => (path, true),
    };
    match Listener::bind(&Host::Unix(path.clone())).await {
        Ok(listener) => {
            log::info!("plugin of Docker Engine at {}", path.display());
            Ok(Some(listener))
        }
        Err(error) if is_asked_for => {
            Err(error).with_context(|| format!("cannot serve the plugin at {}", path.display()))
        }
        Err(error) => {
            log::warn!("there is no plugin for Docker Engine at {}: {error}", path.display());
            Ok(None)
        }
    }
}

/// Accepts connections until `ended`, and waits for those there are.
async fn serve_one(listener: Listener, router: Router, mut ended: watch::Receiver<bool>) {
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            _ = ended.wait_for(|ended| *ended) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => connect(stream, &router, &connections),
            Err(error) => {
                // Out of file descriptors, most likely: those of connections that end come back.
                log::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.shutdown()).await.is_err() {
        log::warn!("requests still under way after {} s are cut off", DRAIN_TIMEOUT.as_secs());
    }
}

/// Serves one connection in a task of its own.
fn connect(stream: Stream, router: &Router, connections: &GracefulShutdown) {
    let service = TowerToHyperService::new(router.clone());
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            log::debug!("connection: {error}");
        }
    });
}

#[cfg(test)]
mod tests {
    use std::{io::ErrorKind, sync::Arc};

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
        sync::Notify,
    };

    use super::*;

    #[tokio::test]
    async fn requests_under_way_finish_and_no_others_begin() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netd.sock");
        let listener = Listener::bind(&Host::Unix(path.clone())).await.unwrap();
        let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let handler = {
            let (begun, release) = (begun.clone(), release.clone());
            move || async move {
                begun.notify_one();
                release.notified().await;
                "done"
            }
        };
        let (ending, ended) = watch::channel(false);
        let server = tokio::spawn(serve_one(listener, Router::new().route("/", get(handler)), ended));

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
}
