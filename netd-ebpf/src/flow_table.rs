//! The records of the flow table: drawn, charged to an endpoint, and given back.

use netd_common::{
    addr::IfIndex,
    drop::DropReason,
    globals::Globals,
    limits,
    nat::{Flow, HOST},
};

use crate::{
    atomic::Word,
    conntrack,
    family::{Family, V4, V6},
    maps::{ENDPOINT_FLOWS, ENDPOINTS, FLOWS_DRAWN},
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

/// Live flows of a container, by the slot of one of its endpoints.
#[inline(always)]
fn held_together<F: Family>(slot: u32) -> u64 {
    let (mut sum, mut next) = (0, slot);
    for _ in 0..limits::ENDPOINTS_SUMMED {
        sum += held::<F>(next).map_or(0, |held| held.load());
        let Some(endpoint) = ENDPOINTS.get(next) else { break };
        // One that has just left is the end of the ring, and so is who has its place: the others are about to be told.
        if endpoint.port == IfIndex(0) || endpoint.beside == slot || endpoint.beside == next {
            break;
        }
        next = endpoint.beside;
    }
    sum
}

/// A global function, as the next: the verifier walks the ring once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn held_together4(slot: u32) -> u64 {
    held_together::<V4>(slot)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn held_together6(slot: u32) -> u64 {
    held_together::<V6>(slot)
}

/// A free record's index, charged to the endpoint.
#[inline(always)]
pub fn draw<F: Family>(endpoint: u32, globals: &Globals) -> Result<u32, DropReason> {
    let share = u64::from(globals.flows_per_container[F::INDEX as usize]);
    if endpoint != HOST && F::held_together(endpoint) >= share {
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
