//! The records of the flow table: drawn, charged to an endpoint, and given back.

use netd_common::{
    drop::DropReason,
    globals::Globals,
    nat::{Flow, HOST},
};

use crate::{
    atomic::Word,
    conntrack,
    family::Family,
    maps::{ENDPOINT_FLOWS, FLOWS_DRAWN},
};

/// Live flows of an endpoint.
#[inline(always)]
fn held<F: Family>(endpoint: u32) -> Option<Word> {
    if endpoint == HOST {
        return None;
    }
    let count = ENDPOINT_FLOWS.get_ptr_mut(endpoint.wrapping_mul(2).wrapping_add(F::INDEX))?;
    // SAFETY: an aligned word of an array map.
    Some(unsafe { Word::new(count) })
}

/// A free record's index, charged to the endpoint.
#[inline(always)]
pub fn draw<F: Family>(endpoint: u32, globals: &Globals) -> Result<u32, DropReason> {
    if let Some(held) = held::<F>(endpoint)
        && held.load() >= u64::from(globals.flows_per_endpoint)
    {
        return Err(DropReason::EndpointQuota);
    }
    let index = free_index::<F>().ok_or(DropReason::FlowTableFull)?;
    if let Some(held) = held::<F>(endpoint) {
        held.add(1);
    }
    Ok(index)
}

#[inline(always)]
fn free_index<F: Family>() -> Option<u32> {
    if let Ok(Some(index)) = F::free_flows().pop() {
        return Some(index);
    }
    let drawn = FLOWS_DRAWN.get_ptr_mut(F::INDEX)?;
    // SAFETY: an aligned word of an array map.
    let drawn = unsafe { Word::new(drawn) };
    if drawn.load() >= u64::from(F::FLOWS) {
        return None;
    }
    // The load keeps the count from running away, not from overshooting: CPUs may pass it together.
    let index = drawn.fetch_add(1);
    if index < u64::from(F::FLOWS) { Some(index as u32) } else { None }
}

/// A drawn record without a past.
#[inline(always)]
pub fn blank<F: Family>(index: u32) -> Result<*mut Flow<F::Address>, DropReason> {
    let flow = F::flows().get_ptr_mut(index).ok_or(DropReason::FlowTableFull)?;
    // SAFETY: a drawn record is nobody else's until its keys are in the table.
    unsafe {
        (*flow).created = conntrack::now();
        (*flow).outbound = Default::default();
        (*flow).inbound = Default::default();
        (*flow).index = index;
        (*flow).holds = 0;
    }
    Ok(flow)
}

/// Gives a drawn index back.
#[inline(always)]
pub fn give_back<F: Family>(index: u32, endpoint: u32) {
    if let Some(held) = held::<F>(endpoint) {
        held.add(u64::MAX);
    }
    let _ = F::free_flows().push(index, 0);
}
