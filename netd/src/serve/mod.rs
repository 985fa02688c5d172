//! HTTP at the API's sockets: listeners, connections, and how they end.

mod activation;
mod connection;
mod listen;
mod pace;
mod request;
mod seat;
mod stream;
mod tls;

use std::{future::Future, io, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use nix::unistd::{Gid, Group as SystemGroup};
use tokio::{sync::watch, task::JoinSet};

pub use self::tls::Acceptor;
use self::{
    activation::Activation,
    connection::{Service, serve_one},
    listen::Listener,
};
use crate::{
    api::Api,
    config::{Config, Group, Host, PluginSocket},
    engine::Engine,
    plugin,
};

/// How long a start is held up that opens the host to whoever comes, unless somebody said that this is meant: as long as
/// Docker's.
const HESITATION: Duration = Duration::from_secs(15);
/// Everywhere that is listened at. Clients can connect from the time this is there, and are served once [`Self::serve`]
/// is called.
#[derive(Debug)]
pub struct Listeners {
    api: Vec<Listener>,
    metrics: Option<Listener>,
    plugin: Option<Listener>,
    tls: Option<Acceptor>,
}

impl Listeners {
    /// Listens where the configuration says, and takes its time where that should be thought over.
    ///
    /// # Errors
    /// A listener cannot be had, or a certificate; then none is left behind.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let tls = config.tls.as_ref().map(Acceptor::new).transpose().map_err(anyhow::Error::msg)?;
        let mut listeners = Self { api: Vec::new(), metrics: None, plugin: None, tls };
        let group = gid(&config.group)?;
        let mut hesitation = Duration::ZERO;
        let mut activation = Activation::of_this_process().context("taking over sockets")?;
        for host in &config.hosts {
            let bound = bind(host, group, &mut activation).await;
            let bound =
                bound.with_context(|| format!("failed to load listeners: cannot listen at {host}"))?;
            log::info!("API at {host}");
            if bound.iter().any(Listener::is_exposed) {
                hesitation = hesitation.max(warn_of_strangers(host, config));
            }
            listeners.api.extend(bound);
        }
        listeners.plugin = plugin_listener(&config.plugin).await?;
        if let Some(address) = config.metrics_addr {
            listeners.metrics = Some(metrics(address).await?);
        }
        tokio::time::sleep(hesitation).await;
        Ok(listeners)
    }

    /// What takes TLS connections, if anything does.
    pub fn tls(&self) -> Option<Acceptor> {
        self.tls.clone()
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
            let tls = self.tls.clone().filter(|_| listener.is_tcp());
            let service = Service { router: api.clone().router(), tls, ended: ended.clone() };
            tasks.spawn(serve_one(listener, service));
        }
        if let Some(listener) = self.plugin {
            let service = Service { router: plugin::router(engine), tls: None, ended: ended.clone() };
            tasks.spawn(serve_one(listener, service));
        }
        if let Some(listener) = self.metrics {
            tasks.spawn(serve_one(listener, Service { router: api.metrics_router(), tls: None, ended }));
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
    match Listener::unix(path, None).await {
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

async fn metrics(address: SocketAddr) -> anyhow::Result<Listener> {
    let listener = Listener::tcp(address).await;
    let listener = listener.with_context(|| format!("cannot serve metrics at {address}"))?;
    log::info!("metrics at http://{address}/metrics");
    Ok(listener)
}

/// Listens at `host`: at one socket, or at as many as were handed over.
async fn bind(host: &Host, group: Option<Gid>, activation: &mut Activation) -> io::Result<Vec<Listener>> {
    match host {
        Host::Unix(path) => Ok(vec![Listener::unix(path, group).await?]),
        Host::Tcp { host, port } => Ok(vec![Listener::tcp((host.as_str(), *port)).await?]),
        Host::Fd(number) => activation.take(*number)?.into_iter().map(Listener::adopt).collect(),
    }
}

/// Whoever reaches the API is root on this host. Returns for how long the warning should be read.
fn warn_of_strangers(host: &Host, config: &Config) -> Duration {
    let reach = "whoever can connect to it has the power of root on this host";
    match &config.tls {
        None => {
            log::warn!(
                "THE API AT {host} IS IN THE CLEAR AND ASKS NOBODY WHO HE IS: {reach}. Use `tlsverify`."
            );
            if config.is_clear_on_purpose() {
                return Duration::ZERO;
            }
            log::warn!(
                "the daemon goes on in {} s; at once if `tls` is set to false, which says that this is meant",
                HESITATION.as_secs()
            );
            HESITATION
        }
        Some(tls) => {
            if !tls.verify {
                log::warn!("THE API AT {host} ASKS NOBODY WHO HE IS: {reach}. Use `tlsverify`.");
            }
            Duration::ZERO
        }
    }
}

/// The group of Unix sockets, if it is not to be the daemon's own.
fn gid(group: &Group) -> anyhow::Result<Option<Gid>> {
    let name = match group {
        Group::Own => return Ok(None),
        Group::Default => "docker",
        Group::Named(name) => name,
    };
    let found = SystemGroup::from_name(name).with_context(|| format!("looking for the group {name}"))?;
    let number = || name.parse().ok().map(Gid::from_raw);
    match (found.map(|group| group.gid).or_else(number), group) {
        (None, Group::Named(_)) => anyhow::bail!("failed to load listeners: group {name} not found"),
        (gid, _) => Ok(gid),
    }
}
