//! The sockets that requests to rtnetlink go through.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BufMut;
use rtnetlink::{
    Handle,
    packet_route::RouteNetlinkMessage,
    proto::Connection,
    sys::{self, AsyncSocket, SocketAddr},
};

/// A socket that nobody has to wait for: the kernel carries a request out within the call that sends it, and goes on with a
/// listing within the calls that read it (`netlink_unicast_kernel` and `netlink_recvmsg` in net/netlink/af_netlink.c). So no other
/// thread has to find out that an answer is there, and to wake this one.
pub(super) struct Socket {
    socket: sys::Socket,
    /// Whether something was sent since this was last looked at: then there is an answer.
    asked: Cell<bool>,
}

/// A socket in the namespace of the calling thread, and what carries its requests to and fro.
pub(super) fn open() -> io::Result<(impl Future<Output = ()> + Send + 'static, Handle)> {
    let (mut connection, handle, _) = rtnetlink::new_connection_with_socket::<Socket>()?;
    Ok((poll_fn(move |cx| carry(&mut connection, cx)), handle))
}

/// A connection reads before it sends, and sends one message each time.
fn carry(connection: &mut Connection<RouteNetlinkMessage, Socket>, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        if Pin::new(&mut *connection).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !connection.socket_mut().asked.take() {
            return Poll::Pending;
        }
    }
}

impl Socket {
    fn sent(&self, sent: io::Result<usize>) -> Poll<io::Result<usize>> {
        self.asked.set(true);
        Poll::Ready(sent)
    }
}

/// Nothing to read is nothing to wait for: whoever sends next looks again.
fn read<T>(read: io::Result<T>) -> Poll<io::Result<T>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        read => Poll::Ready(read),
    }
}

impl AsyncSocket for Socket {
    fn socket_ref(&self) -> &sys::Socket {
        &self.socket
    }

    fn socket_mut(&mut self) -> &mut sys::Socket {
        &mut self.socket
    }

    fn new(protocol: isize) -> io::Result<Self> {
        let socket = sys::Socket::new(protocol)?;
        socket.set_non_blocking(true)?;
        // Listings are of what was asked for: the kernel looks at more of a request than its family.
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self { socket, asked: Cell::new(false) })
    }

    fn poll_send(&self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.sent(self.socket.send(bytes, 0))
    }

    fn poll_send_to(&self, _: &mut Context<'_>, bytes: &[u8], to: &SocketAddr) -> Poll<io::Result<usize>> {
        self.sent(self.socket.send_to(bytes, to, 0))
    }

    fn poll_recv<B: BufMut>(&self, _: &mut Context<'_>, into: &mut B) -> Poll<io::Result<()>> {
        ready!(read(self.socket.recv(into, 0)))?;
        Poll::Ready(Ok(()))
    }

    fn poll_recv_from<B: BufMut>(&self, _: &mut Context<'_>, into: &mut B) -> Poll<io::Result<SocketAddr>> {
        let (_, from) = ready!(read(self.socket.recv_from(into, 0)))?;
        Poll::Ready(Ok(from))
    }

    fn poll_recv_from_full(&self, _: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        read(self.socket.recv_from_full())
    }
}
