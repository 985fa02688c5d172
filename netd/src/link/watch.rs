//! The kernel's word that a link, an address, a route or a rule changed.

use futures_util::{FutureExt as _, StreamExt as _, stream::BoxStream};
use rtnetlink::MulticastGroup;

use super::{Doing as _, Error};

/// What moves the way that packets leave.
const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];

/// A subscription to changes in the daemon's own namespace.
pub struct Watch {
    changes: BoxStream<'static, ()>,
}

impl Watch {
    /// Subscribes. Must be called within a tokio runtime.
    pub fn new() -> Result<Self, Error> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&GROUPS)
            .doing(|| "watch for changes of links and routes".into())?;
        tokio::spawn(connection);
        Ok(Self { changes: messages.map(drop).boxed() })
    }

    /// Waits for a change, and takes all that are known by then as one. `false` if there will be none any more.
    ///
    /// When messages were lost for want of room the kernel says so in a message: that is a change as well.
    pub async fn changed(&mut self) -> bool {
        let changed = self.changes.next().await.is_some();
        while let Some(Some(())) = self.changes.next().now_or_never() {}
        changed
    }
}
