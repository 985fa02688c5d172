//! How fast an endpoint may send. A policer, which holds for those whose own end of the veth has no queue: who has one that
//! keeps to the rate never meets it.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_ktime_get_ns, programs::TcContext};
use netd_common::drop::DropReason;
use network_types::eth::EthHdr;

use crate::{
    atomic::Word,
    family::{Family, V4, V6},
    maps::{BUCKETS, RATES},
    packet::Packet,
    parse::{eth, l4},
};

/// Times a lost race for the bucket is run again; then the packet passes without paying.
const RETRIES: u32 = 4;

/// Takes a packet's bytes on the wire out of the endpoint's bucket.
#[inline(always)]
pub fn pay(packet: &Packet, slot: u32) -> Result<(), DropReason> {
    let repeated = if packet.segments() > 1 { repeated_bytes(packet.skb()) as u32 } else { 0 };
    if pay_at(slot, packet.len() + repeated) == 0 { Ok(()) } else { Err(DropReason::Rate) }
}

/// Bytes of the headers that segmentation puts before all segments but the first. A global function, as the next.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn repeated_bytes(skb: *mut __sk_buff) -> u64 {
    let context = TcContext::new(skb);
    let packet = &Packet::of(&context);
    let headers = match packet.ethertype() {
        eth::IPV4 => headers::<V4>(packet),
        eth::IPV6 => headers::<V6>(packet),
        _ => Err(DropReason::Protocol),
    };
    u64::from(packet.segments() - 1) * headers.unwrap_or(EthHdr::LEN as u64)
}

#[inline(always)]
fn headers<F: Family>(packet: &Packet) -> Result<u64, DropReason> {
    let ip = F::parse(packet)?;
    let l4 = l4::parse(packet, &ip, F::L4, F::ICMP)?;
    Ok(ip.l4 as u64 + u64::from(l4.length))
}

/// Whether the endpoint may not send them: 1 or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pay_at(slot: u32, bytes: u32) -> i64 {
    let (Some(rate), Some(bucket)) = (RATES.get(slot), BUCKETS.get_ptr_mut(slot)) else { return 0 };
    // SAFETY: an aligned word of an array map.
    let bucket = unsafe { Word::new(bucket) };
    // SAFETY: a plain helper call.
    let now = unsafe { bpf_ktime_get_ns() };
    for _ in 0..RETRIES {
        let full = bucket.load();
        let Some(next) = rate.pass(full, now, bytes) else { return 1 };
        if bucket.exchange(full, next) {
            return 0;
        }
    }
    0
}
