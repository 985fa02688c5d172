//! A frame as bytes: where the program may look.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::bpf_sk_fullsock,
    programs::TcContext,
};
use netd_common::{
    addr::{Be16, IfIndex},
    drop::DropReason,
};
use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use crate::parse::eth;

/// The fixed IP header, and what the datapath reads of the transport header.
const HEADERS4: usize = Ipv4Hdr::LEN + 20;
const HEADERS6: usize = Ipv6Hdr::LEN + 20;

/// Where the IP header begins on a link without a header of its own: a tunnel.
pub const BARE: usize = 0;

/// A frame. Offsets count from its first byte.
#[derive(Clone, Copy)]
pub struct Packet<'a> {
    pub ctx: &'a TcContext,
    /// Where the IP header begins: behind Ethernet's, or at once ([`BARE`]).
    pub l3: usize,
}

impl<'a> Packet<'a> {
    /// A frame with an Ethernet header. Makes sure that the headers lie in the linear part, where `read` can see them.
    ///
    /// Not a byte more is asked for: TCP's packets share their payload with the sender's queue, and to pull even one byte of it
    /// the kernel allocates the packet's head anew and copies it.
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        Self::pulled(ctx, EthHdr::LEN)
    }

    /// As `new`, on a link without a header of its own.
    #[inline(always)]
    pub fn bare(ctx: &'a TcContext) -> Self {
        Self::pulled(ctx, BARE)
    }

    #[inline(always)]
    fn pulled(ctx: &'a TcContext, l3: usize) -> Self {
        let packet = Self { ctx, l3 };
        let linear = (ctx.data_end() - ctx.data()) as u32;
        let headers = (l3 + if packet.ethertype() == eth::IPV6 { HEADERS6 } else { HEADERS4 }) as u32;
        if linear < headers && linear < ctx.len() {
            // A packet shorter than its headers is pulled whole; if that fails, the reads below say "malformed".
            let _ = ctx.pull_data(if ctx.len() < headers { ctx.len() } else { headers });
        }
        packet
    }

    /// A frame with an Ethernet header, whose headers are in reach already, or are not read.
    #[inline(always)]
    pub fn of(ctx: &'a TcContext) -> Self {
        Self { ctx, l3: EthHdr::LEN }
    }

    /// As `of`, for a global function that was told where the IP header begins: the verifier takes no caller's word for it.
    #[inline(always)]
    pub fn with_l3(ctx: &'a TcContext, l3: u32) -> Self {
        Self { ctx, l3: if l3 == BARE as u32 { BARE } else { EthHdr::LEN } }
    }

    #[inline(always)]
    pub fn skb(&self) -> *mut __sk_buff {
        self.ctx.as_ptr().cast()
    }

    /// What the kernel takes the packet for.
    #[inline(always)]
    pub fn ethertype(&self) -> Be16 {
        // SAFETY: the kernel hands a valid context.
        Be16(unsafe { (*self.skb()).protocol } as u16)
    }

    /// Bytes of the frame; of the whole super-frame, if it is one.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        self.ctx.len()
    }

    /// Frames that a super-frame becomes; 0 or 1 if it is none.
    #[inline(always)]
    pub fn segments(&self) -> u32 {
        // SAFETY: the kernel hands a valid context.
        unsafe { (*self.skb()).gso_segs }
    }

    /// The interface that the program is attached to.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: the kernel hands a valid context.
        unsafe { (*self.skb()).ifindex }
    }

    /// The interface that the packet came in by; none if the host made it.
    #[inline(always)]
    pub fn came_by(&self) -> IfIndex {
        // SAFETY: the kernel hands a valid context.
        IfIndex(unsafe { (*self.skb()).ingress_ifindex })
    }

    /// Whether the packet belongs to a socket of this host.
    #[inline(always)]
    pub fn has_socket(&self) -> bool {
        // SAFETY: the kernel hands a valid context; the pointer is compared, and not followed.
        unsafe { !(*self.skb()).__bindgen_anon_2.sk.is_null() }
    }

    /// The socket of this host that sends the packet; null if there is none, or only what is left of one.
    #[inline(always)]
    pub fn sender(&self) -> *mut bpf_sock {
        // SAFETY: the kernel hands a valid context, and its pointer to the helper, which takes null for no answer.
        unsafe {
            let socket = (*self.skb()).__bindgen_anon_2.sk;
            if socket.is_null() { socket } else { bpf_sk_fullsock(socket) }
        }
    }

    #[inline(always)]
    pub fn has_mark(&self, mark: u32) -> bool {
        // SAFETY: the kernel hands a valid context.
        unsafe { (*self.skb()).mark == mark }
    }

    /// Takes the mark off; whether it was `mark`. On a packet that has just come in, only this host can have set one.
    #[inline(always)]
    pub fn take_mark(&self, mark: u32) -> bool {
        // SAFETY: the kernel hands a valid context, and lets tc programs write the mark.
        unsafe {
            let is_there = (*self.skb()).mark == mark;
            if is_there {
                (*self.skb()).mark = 0;
            }
            is_there
        }
    }

    /// Whether there is a VLAN tag that is not part of the bytes.
    #[inline(always)]
    pub fn is_tagged(&self) -> bool {
        // SAFETY: the kernel hands a valid context.
        unsafe { (*self.skb()).vlan_present != 0 }
    }

    /// The VLAN of the tag; 0 if it only says how urgent the frame is.
    #[inline(always)]
    pub fn vlan(&self) -> u16 {
        const VLAN_MASK: u32 = 0xfff;
        // SAFETY: the kernel hands a valid context.
        unsafe { ((*self.skb()).vlan_tci & VLAN_MASK) as u16 }
    }

    /// Payload bytes of each segment of a super-frame; 0 if it is none.
    #[inline(always)]
    pub fn segment_size(&self) -> u32 {
        // SAFETY: the kernel hands a valid context.
        unsafe { (*self.skb()).gso_size }
    }

    /// A header at a fixed offset, by direct access.
    ///
    /// `T`'s words may stand unaligned in memory. The verifier knows: where the CPU minds, it counts with NET_IP_ALIGN
    /// and refuses the program at load; where it does not, nothing is to be refused.
    #[inline(always)]
    pub fn read<T: Copy>(&self, offset: usize) -> Result<&'a T, DropReason> {
        // SAFETY: within the packet; any bits are a `T`, for only plain header types are read.
        Ok(unsafe { &*(self.within::<T>(offset)? as *const T) })
    }

    /// As `read`, to change it: for [`crate::rewrite`] alone.
    #[inline(always)]
    pub fn write<T: Copy>(&self, offset: usize) -> Result<&'a mut T, DropReason> {
        // SAFETY: as in `read`; the caller holds no other reference into the packet, which is this CPU's alone.
        Ok(unsafe { &mut *(self.within::<T>(offset)? as *mut T) })
    }

    /// Where a `T` at `offset` begins, if the linear part has the whole of it.
    #[inline(always)]
    fn within<T>(&self, offset: usize) -> Result<usize, DropReason> {
        let start = self.ctx.data() + offset;
        if start + size_of::<T>() > self.ctx.data_end() { Err(DropReason::Malformed) } else { Ok(start) }
    }

    /// As `write`, at an offset that is not known at compile time. It fails further back than transport headers stand as a rule, for the
    /// verifier wants a bound.
    #[inline(always)]
    pub fn write_near<T: Copy>(&self, offset: usize) -> Result<&'a mut T, DropReason> {
        const NEAR: usize = 256;
        if offset < NEAR { self.write(offset) } else { Err(DropReason::Malformed) }
    }

    /// A copy from an offset that is not known at compile time.
    #[inline(always)]
    pub fn load<T: Copy>(&self, offset: usize) -> Result<T, DropReason> {
        self.ctx.load(offset).map_err(|_| DropReason::Malformed)
    }
}
