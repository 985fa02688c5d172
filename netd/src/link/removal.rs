//! The removal of a link of the daemon's own namespace.
//!
//! The kernel answers the request only when nothing can refer to what it frees any more (`rcu_barrier`, in `netdev_run_todo` of
//! net/core/dev.c): milliseconds after the link was taken out, which it tells those that listen. Meanwhile the request holds up
//! the thread that made it.

use std::{future::ready, io, pin::pin, thread};

use futures_util::StreamExt as _;
use rtnetlink::{
    MulticastGroup,
    packet_core::NetlinkPayload,
    packet_route::{AddressFamily, RouteNetlinkMessage},
};
use tokio::{runtime, select, sync::oneshot};

use super::{Doing as _, Error, gone_is_as_good, socket};

/// Returns when the link is gone for whoever looks at links, names, addresses and routes; its not being there is as good.
pub(super) async fn remove(name: &str, index: u32) -> Result<(), Error> {
    let action = || format!("delete the link {name}");
    let (listening, _, messages) =
        rtnetlink::new_multicast_connection(&[MulticastGroup::Link]).doing(action)?;
    let listening = tokio::spawn(listening);
    let (sender, answer) = oneshot::channel();
    // With a runtime of its own: it may outlast the daemon's.
    let ask = move || {
        let runtime = runtime::Builder::new_current_thread().build();
        // Nobody waits for an answer any more if the word came first.
        drop(sender.send(runtime.and_then(|runtime| runtime.block_on(request(index)))));
    };
    thread::Builder::new().name("removal".into()).spawn(ask).doing(action)?;
    let mut word = pin!(messages.filter(|(message, _)| ready(tells_of_the_end(&message.payload, index))));
    let result = select! {
        answer = answer => match answer {
            Ok(Ok(answer)) => gone_is_as_good(answer, libc::ENODEV).doing(action),
            Ok(Err(error)) => Err(error).doing(action),
            Err(error) => Err(io::Error::other(error)).doing(action),
        },
        Some(_) = word.next() => Ok(()),
    };
    listening.abort();
    result
}

/// Asks on a socket of its own, whose connection is this thread's to drive.
async fn request(index: u32) -> io::Result<Result<(), rtnetlink::Error>> {
    let (connection, handle) = socket::open()?;
    select! {
        answer = handle.link().del(index).execute() => Ok(answer),
        () = connection => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

/// A bridge tells of ports that leave it with a family of its own.
fn tells_of_the_end(message: &NetlinkPayload<RouteNetlinkMessage>, index: u32) -> bool {
    matches!(
        message,
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))
            if link.header.index == index && link.header.interface_family == AddressFamily::Unspec
    )
}
