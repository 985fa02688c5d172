//! Pools and addresses that a container engine leases.
//!
//! A lease is kept until it is given back. The engine asks again for all that it holds whenever it starts, in the words
//! of a new request; what it is told then is what it has. So each lease is open to one such repetition after the engine
//! said hello, and after netd's own start, for a call may have been answered by nobody. A lease that was confirmed so, or is
//! new, is taken for everybody.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{Engine, Writer, choice, spec};
use crate::{
    ipam,
    model::{Error, LeaseOrder, LeasedPool, Pool, State},
    plan::Touched,
    store::Change,
};

/// What Docker says of a subnet that is taken.
pub(super) const OVERLAPS: &str = "invalid pool request: Pool overlaps with other one on this address space";

/// The leases that the engine may ask for as if they were new.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pools: BTreeSet<String>,
    addresses: BTreeSet<(String, IpAddr)>,
}

impl Replay {
    /// All of them.
    pub(super) fn of(state: &State) -> Self {
        let addresses = state
            .pools
            .values()
            .flat_map(|leased| leased.leases.iter().map(|address| (leased.id.clone(), *address)));
        Self { pools: state.pools.keys().cloned().collect(), addresses: addresses.collect() }
    }
}

impl Engine {
    /// An engine has started: it is going to ask for what it holds.
    pub async fn expect_replay(&self) {
        let mut writer = self.0.writer.lock().await;
        writer.replay = Replay::of(&self.state());
    }

    /// Leases a subnet.
    ///
    /// # Errors
    /// In Docker's words; nothing has changed then.
    pub async fn lease_pool(&self, order: LeaseOrder) -> Result<LeasedPool, Error> {
        self.act(move |engine, mut writer| async move { engine.lease(&mut writer, order).await }).await
    }

    async fn lease(&self, writer: &mut Writer, order: LeaseOrder) -> Result<LeasedPool, Error> {
        let state = self.state();
        let taken: Vec<IpNet> = spec::taken(&state).collect();
        let subnet = match order.subnet {
            Some(subnet) => subnet,
            None => self.site().next_subnet(taken.clone(), order.ipv6, None).await?,
        };
        let range = order.range.map(|range| format!("/{range}")).unwrap_or_default();
        let id = format!("{}/{subnet}{range}", order.space.name());
        if let Some(leased) = state.pools.get(&id)
            && writer.replay.pools.remove(&id)
        {
            return Ok(leased.clone());
        }
        if taken.iter().any(|taken| ipam::overlaps(*taken, subnet)) {
            return Err(Error::forbidden(OVERLAPS));
        }
        let pool = Pool {
            subnet,
            range: order.range,
            bounds: None,
            gateway: None,
            gateway_shown: false,
            auxiliary: Default::default(),
            requested: order.subnet.is_some(),
            last: None,
        };
        let leased = LeasedPool { id, pool, serial: order.serial, leases: BTreeSet::new() };
        self.put_pool(writer, leased.clone()).await?;
        Ok(leased)
    }

    /// Takes a subnet back, with all of its addresses.
    ///
    /// # Errors
    /// If it is not leased.
    pub async fn return_pool(&self, id: &str) -> Result<(), Error> {
        let id = id.to_owned();
        self.act(move |engine, mut writer| async move {
            find(&engine.state(), &id)?;
            engine.change(&mut writer, vec![Change::RemovePool(id)], Touched::default()).await
        })
        .await
    }

    /// Leases an address of a leased subnet: this one, or one that is free; `gateway` asks for any of the subnet,
    /// else it is one of its range.
    ///
    /// # Errors
    /// In Docker's words; nothing has changed then.
    pub async fn lease_address(
        &self,
        pool: &str,
        address: Option<IpAddr>,
        gateway: bool,
    ) -> Result<IpNet, Error> {
        let id = pool.to_owned();
        self.act(move |engine, mut writer| async move {
            let state = engine.state();
            let mut leased = find(&state, &id)?.clone();
            let mut used = leased.leases.clone();
            let networks = state.networks.values().filter(|network| {
                network.engine_id.is_some()
                    && network.ipam.pools.iter().any(|pool| pool.subnet == leased.pool.subnet)
            });
            let address = match address {
                Some(address) if writer.replay.addresses.remove(&(id, address)) => {
                    return Ok(leased.pool.sized(address));
                }
                Some(address) => ipam::claim(&leased.pool, &used, address).map(|()| address)?,
                None => {
                    // An engine that lost a lease may still have its endpoint.
                    used.extend(networks.flat_map(|network| choice::addresses_in_use(&state, network.id)));
                    let range = leased.pool.range.filter(|_| !gateway);
                    let pool = Pool { range, ..leased.pool.clone() };
                    if leased.serial && !gateway {
                        let next = ipam::next_free(&pool, &used, pool.last)?;
                        leased.pool.last = Some(next);
                        next
                    } else {
                        ipam::lowest_free(&pool, &used)?
                    }
                }
            };
            leased.leases.insert(address);
            let sized = leased.pool.sized(address);
            engine.put_pool(&mut writer, leased).await?;
            Ok(sized)
        })
        .await
    }

    /// Takes an address back; one that is not leased is as good.
    ///
    /// # Errors
    /// If its subnet is not leased.
    pub async fn return_address(&self, pool: &str, address: IpAddr) -> Result<(), Error> {
        let id = pool.to_owned();
        self.act(move |engine, mut writer| async move {
            let mut leased = find(&engine.state(), &id)?.clone();
            writer.replay.addresses.remove(&(id, address));
            if leased.leases.remove(&address) {
                engine.put_pool(&mut writer, leased).await?;
            }
            Ok(())
        })
        .await
    }

    async fn put_pool(&self, writer: &mut Writer, leased: LeasedPool) -> Result<(), Error> {
        self.change(writer, vec![Change::PutPool(leased)], Touched::default()).await
    }
}

fn find<'a>(state: &'a State, id: &str) -> Result<&'a LeasedPool, Error> {
    state.pools.get(id).ok_or_else(|| Error::not_found(format!("address pool {id} not found")))
}
