//! SIGHUP: the configuration is read anew, and what a running daemon can take over is in force at once.

use tokio::signal::unix::Signal;

use super::{log, service};
use crate::{
    config::{Config, Flags},
    engine::{Engine, Reloaded},
    serve::Acceptor,
};

/// Reloads whenever `hangup` says so, for as long as the daemon runs.
pub(super) async fn follow(
    mut hangup: Signal,
    flags: Flags,
    mut config: Config,
    engine: Engine,
    tls: Option<Acceptor>,
) {
    while hangup.recv().await.is_some() {
        service::reloading();
        match reload(&flags, &config, &engine, tls.as_ref()) {
            Ok(new) => config = new,
            Err(error) => ::log::error!("the configuration stays as it was: {error}"),
        }
        service::ready();
    }
}

/// The configuration that is in force from now on. An error changes nothing.
fn reload(flags: &Flags, old: &Config, engine: &Engine, tls: Option<&Acceptor>) -> Result<Config, String> {
    let new = Config::load(flags).map_err(|error| error.to_string())?;
    let config = old.reloaded(&new);
    if let (Some(acceptor), Some(tls)) = (tls, &config.tls) {
        // Also where the key says what it said: another certificate may lie there.
        acceptor.reload(tls)?;
    }
    log::change(config.log);
    let debug = config.log.level >= ::log::LevelFilter::Debug;
    engine.reload(Reloaded { debug, labels: config.labels.clone().into() });
    ::log::info!("the configuration is read anew");
    for change in old.changes(&new) {
        let (key, from, to) = (change.key, change.from, change.to);
        if change.reloaded {
            ::log::info!("{key}: {to} (was {from})");
        } else {
            ::log::warn!("{key}: {to} (was {from}) takes effect at the next start");
        }
    }
    Ok(config)
}
