//! A system call on a socket, and the address that it names: what a packet is to the other programs.

use core::marker::PhantomData;

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::{bpf_get_netns_cookie, bpf_skc_to_tcp6_sock, bpf_skc_to_udp6_sock},
    programs::SockAddrContext,
};
use netd_common::{
    addr::{Be16, Ipv4, Ipv6},
    fib::AF_INET6,
    socket::Socket,
    tuple::protocol::TCP,
};

use crate::maps::{GLOBALS, SOCKETS};

/// Each field of the context is read and written by itself: the verifier knows no two of them at once.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    context: *mut bpf_sock_addr,
    life: PhantomData<&'a SockAddrContext>,
}

impl<'a> Call<'a> {
    /// The call, if it is one of a process in the daemon's own network namespace.
    #[inline(always)]
    pub fn of_host(context: &'a SockAddrContext) -> Option<Self> {
        let own = GLOBALS.get(0)?.netns;
        // SAFETY: a plain helper call on a valid context.
        let netns = unsafe { bpf_get_netns_cookie(context.sock_addr.cast()) };
        (netns == own).then_some(Self { context: context.sock_addr, life: PhantomData })
    }

    #[inline(always)]
    pub fn protocol(self) -> u8 {
        // SAFETY: the kernel hands a valid context.
        unsafe { (&raw const (*self.context).protocol).read_volatile() as u8 }
    }

    #[inline(always)]
    pub fn port(self) -> Be16 {
        // SAFETY: as above.
        Be16(unsafe { (&raw const (*self.context).user_port).read_volatile() as u16 })
    }

    /// The address, of a call that names one of IPv4.
    #[inline(always)]
    pub fn ipv4(self) -> Ipv4 {
        // SAFETY: as above.
        Ipv4(unsafe { (&raw const (*self.context).user_ip4).read_volatile() })
    }

    /// The address, of a call that names one of IPv6.
    #[inline(always)]
    pub fn ipv6(self) -> Ipv6 {
        // SAFETY: as above.
        let word = |n: usize| unsafe { (&raw const (*self.context).user_ip6[n]).read_volatile() };
        Ipv6([word(0), word(1), word(2), word(3)])
    }

    /// Puts another address into a call that names one of IPv4.
    #[inline(always)]
    pub fn put_ipv4(self, address: Ipv4, port: Be16) {
        // SAFETY: as above; the kernel lets these programs write the address.
        unsafe { (&raw mut (*self.context).user_ip4).write_volatile(address.0) };
        self.put_port(port);
    }

    /// Puts another address into a call that names one of IPv6.
    #[inline(always)]
    pub fn put_ipv6(self, address: &Ipv6, port: Be16) {
        for (n, word) in address.0.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { (&raw mut (*self.context).user_ip6[n]).write_volatile(word) };
        }
        self.put_port(port);
    }

    #[inline(always)]
    fn put_port(self, port: Be16) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.context).user_port).write_volatile(port.0.into()) };
    }

    #[inline(always)]
    fn socket(self) -> *mut bpf_sock {
        // SAFETY: as above; the field is a pointer for these programs.
        unsafe { (&raw const (*self.context).__bindgen_anon_1.sk).read_volatile() }
    }

    /// Whether the socket is bound to a loopback address, which nobody but the host may answer to.
    #[inline(always)]
    pub fn is_bound_to_loopback(self) -> bool {
        let socket = self.socket();
        if socket.is_null() {
            return false;
        }
        // SAFETY: the kernel hands a valid socket, and its fields as they are asked for.
        unsafe {
            if (*socket).family != AF_INET6 {
                return Ipv4((*socket).src_ip4).is_loopback();
            }
            let word = |n: usize| (&raw const (*socket).src_ip6[n]).read_volatile();
            let address = Ipv6([word(0), word(1), word(2), word(3)]);
            match address.to_mapped() {
                Some(address) => address.is_loopback(),
                None => address.is_loopback(),
            }
        }
    }

    /// Whether a socket of IPv6 at all addresses leaves IPv4 alone (IPV6_V6ONLY).
    #[inline(always)]
    pub fn is_ipv6_only(self) -> bool {
        /// Where `struct sock_common` has the bit, behind the socket's state; no helper tells of it.
        /// <https://github.com/torvalds/linux/blob/v6.18/include/net/sock.h#L150-L187>
        const BYTE: usize = 19;
        const BIT: u8 = 1 << 5;
        let socket = self.socket();
        if socket.is_null() {
            return false;
        }
        // SAFETY: the helpers return the socket itself, as a pointer that the kernel guards each load by, or null.
        unsafe {
            let common: *const u8 = if self.protocol() == TCP {
                bpf_skc_to_tcp6_sock(socket.cast()).cast()
            } else {
                bpf_skc_to_udp6_sock(socket.cast()).cast()
            };
            !common.is_null() && common.add(BYTE).read_volatile() & BIT != 0
        }
    }

    /// What the socket has dialled, if it has dialled a published port ever.
    #[inline(always)]
    pub fn dialled(self) -> Option<&'a mut Socket> {
        let context = SockAddrContext::new(self.context);
        // SAFETY: a value of the socket's own, which the kernel has locked for the call.
        unsafe { SOCKETS.get_ptr_mut(&context).as_mut() }
    }

    /// As `dialled`, of a socket that does so now. `None` if there is no memory.
    #[inline(always)]
    pub fn dialling(self) -> Option<&'a mut Socket> {
        let context = SockAddrContext::new(self.context);
        // SAFETY: as above.
        unsafe { SOCKETS.get_or_insert_ptr_mut(&context, None).as_mut() }
    }
}
