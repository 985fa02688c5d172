//! The daemon: what it needs of the host, its parts in the order in which they start, and its end.

mod bpffs;
mod cleanup;
mod control_group;
mod kernel;
mod log;
mod memory;
mod refusals;
mod reload;
mod service;

use std::{future::Future, path::Path, pin::pin, time::Duration};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli,
    config::{Config, Flags},
    datapath::{Datapath, Options},
    dns,
    engine::{self, Engine, Prepared},
    link::{Watch, sysctl},
    serve::Listeners,
    store::{self, Lock, Store},
};

pub use memory::share_heap;

/// How often flows whose time is up are ended. The shortest time that a flow is given is some minutes.
const SWEEP: Duration = Duration::from_secs(5);

/// How often the programs' own log is read.
const LOG: Duration = Duration::from_millis(300);

/// Runs the daemon until it is told to stop, or cleans up after one that ran.
///
/// Stopping leaves the datapath as it is: traffic goes on, and the next daemon takes over.
pub async fn run(flags: Flags) -> anyhow::Result<()> {
    let config = Config::load(&flags)?;
    if flags.validate {
        engine::validate(&config.bridge)?;
        return Ok(cli::print("configuration OK\n")?);
    }
    log::start(config.log);
    for warning in &config.warnings {
        ::log::warn!("{warning}");
    }
    kernel::check_root()?;
    let _lock = Lock::take(&config.state_dir)?;
    std::fs::create_dir_all(&config.run_dir)
        .with_context(|| format!("making {}", config.run_dir.display()))?;
    if flags.cleanup {
        return cleanup::run(&config).await;
    }
    kernel::check_version()?;

    // Caught from here on: a signal before anything is changed ends the daemon at once, a later one when it has started.
    let mut shutdown = pin!(shutdown()?);
    let hangup = signal(SignalKind::hangup())?;
    kernel::allow_many_files()?;
    // First of all: an address that is taken must be told before anything is changed.
    let listeners = tokio::select! {
        listeners = Listeners::bind(&config) => listeners?,
        () = &mut shutdown => return Ok(()),
    };
    let bpffs = bpffs::place(&config.run_dir);
    let pins = bpffs::pins(&bpffs, &config.state_dir)?;
    if let Some(interface) = Datapath::interface_of_another(&pins)? {
        anyhow::bail!(
            "{interface} has the programs of another netd, and a network namespace has one netd: stop that one, and run \
             `netd daemon --cleanup` with its --state-dir and --run-dir"
        );
    }
    let (store, stored) = open_store(&config.state_dir)?;
    let prepared = Prepared::new(&config, stored).await?;
    // What is refused is refused by now.
    bpffs::mount(&bpffs)?;
    let host_ports = sysctl::local_port_range()?;
    let verbose = config.log.level >= ::log::LevelFilter::Debug;
    let log_level = if verbose { ::log::Level::Debug as u8 } else { 0 };
    let datapath =
        Datapath::open(&Options { pins, host_ports, log_level }).context("starting the datapath")?;
    control_group::attach(&datapath, &config.run_dir);

    let watch = Watch::new()?;
    let engine = Engine::start(config.clone(), store, prepared, datapath).await?;
    let state = engine.state();
    ::log::info!("{} networks, {} endpoints", state.networks.len(), state.endpoints.len());
    let followed = tokio::spawn(engine.clone().follow_uplinks(watch));
    let swept = tokio::spawn(sweep(engine.clone()));
    let told = tokio::spawn(refusals::tell(engine.clone()));
    let logged = tokio::spawn(flush_log(engine.clone(), verbose));
    let named = tokio::spawn(dns::serve(engine.clone(), config.dns.servers.clone()));
    let reloaded = tokio::spawn(reload::follow(hangup, flags, config, engine.clone(), listeners.tls()));

    service::ready();
    let served = listeners.serve(engine, shutdown).await;
    for task in [followed, swept, told, logged, named, reloaded] {
        task.abort();
    }
    served
}

/// Opens the store. A new one gets a unique local prefix of its own: fd and 40 random bits (RFC 4193 3.2).
fn open_store(state_dir: &Path) -> anyhow::Result<(Store, store::Stored)> {
    let mut octets = [0; 16];
    getrandom::fill(&mut octets[1..6])?;
    octets[0] = 0xfd;
    let ula = ipnet::Ipv6Net::new(octets.into(), 48).expect("48 bits are less than 128");
    let path = state_dir.join(store::FILE);
    Store::open(&path, ula).with_context(|| {
        format!(
            "opening {0} (without it netd starts afresh, and does not know what it has made on this host)",
            path.display()
        )
    })
}

async fn sweep(engine: Engine) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match engine.datapath().sweep() {
            Ok(0) => {}
            Ok(ended) => ::log::debug!("{ended} flows ended"),
            Err(error) => ::log::error!("ending flows: {error}"),
        }
        memory::give_back();
    }
}

/// Passes on what the programs log, which they do only in a daemon that is `verbose`.
async fn flush_log(engine: Engine, verbose: bool) {
    if !verbose {
        return;
    }
    let mut ticks = tokio::time::interval(LOG);
    loop {
        ticks.tick().await;
        engine.datapath().flush_log();
    }
}

/// Ready when the daemon is told to stop.
fn shutdown() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        service::stopping();
        ::log::info!("stopping; traffic goes on without the daemon");
    })
}
