//! Word of flows that the datapath refused, from its ring to the log.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use netd_common::{drop::DropReason, event::Refused, fib::AF_INET};
use tokio::{io::unix::AsyncFd, time};

use crate::{
    datapath::{Ipv4, Ipv6},
    engine::Engine,
};

/// How often there may be a line.
const BURST: Duration = Duration::from_secs(1);

/// Logs refusals for as long as the daemon runs.
pub(super) async fn tell(engine: Engine) {
    let Some(ring) = engine.datapath().events() else { return };
    if let Err(error) = follow(&engine, ring).await {
        log::error!("refused flows are no longer told of: {error}");
    }
}

async fn follow(engine: &Engine, ring: RingBuf<MapData>) -> std::io::Result<()> {
    // SAFETY: the ring owns its map's descriptor, and gives out that same one until it is dropped with the AsyncFd.
    let mut ring = unsafe { AsyncFd::register(ring) }?;
    loop {
        let mut ready = ring.readable_mut().await?;
        let records = ready.get_inner_mut();
        // One line for a burst: a container that has used up its flows tries on. What the ring has no room for is in the counters.
        let mut last = None;
        let mut count = 0u64;
        while let Some(record) = records.next() {
            last = bytemuck::try_pod_read_unaligned::<Refused>(&record).ok();
            count += 1;
        }
        if let Some(refused) = last {
            log::warn!("{}", describe(engine, &refused, count));
        }
        ready.clear_ready();
        time::sleep(BURST).await;
    }
}

fn describe(engine: &Engine, refused: &Refused, count: u64) -> String {
    let state = engine.state();
    let endpoint = state.endpoints.at_slot(refused.endpoint);
    let who = endpoint.map_or_else(|| "the host".to_owned(), |endpoint| endpoint.far_end.to_string());
    let remote: IpAddr = if refused.family == AF_INET {
        Ipv4Addr::from(Ipv4(refused.remote[0])).into()
    } else {
        Ipv6Addr::from(Ipv6(refused.remote)).into()
    };
    let reason = DropReason::of(refused.reason).name();
    let (protocol, port) = (refused.protocol, refused.remote_port.get());
    format!(
        "refused {count} new flows, the last from {who} to {remote} port {port} protocol {protocol}: {reason}"
    )
}
