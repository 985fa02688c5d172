//! Links, addresses and routes by rtnetlink, in the daemon's own network namespace and in those of sandboxes.

mod address;
mod bridge;
mod default_route;
mod device;
mod fdb;
mod grace;
mod namespace;
pub mod port;
mod queue;
mod removal;
mod resolver;
mod route;
mod socket;
pub mod sysctl;
mod uplink;
mod veth;
mod vlan;
mod watch;

use std::{io, sync::Arc};

use tokio::sync::Mutex;

pub use address::Address;
pub use bridge::wanted_settings;
pub use device::{Device, Kind};
pub use grace::Grace;
pub use namespace::Namespace;
pub use resolver::nameservers;
pub use route::Route;
pub use uplink::{Uplink, Via, uplinks};
pub use watch::{Changes, Watch};

/// What the kernel did not do, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {reason}")]
pub struct Error {
    action: String,
    reason: io::Error,
}

impl Error {
    fn new(action: impl Into<String>, reason: io::Error) -> Self {
        Self { action: action.into(), reason }
    }

    /// The kernel's reason.
    pub fn kind(&self) -> io::ErrorKind {
        self.reason.kind()
    }
}

/// What rtnetlink says went wrong, as an error of ours.
trait Doing<T> {
    /// `action` reads on from "cannot".
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, rtnetlink::Error> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| {
            let reason = match error {
                rtnetlink::Error::NetlinkError(message) => message.to_io(),
                other => io::Error::other(other),
            };
            Error::new(action(), reason)
        })
    }
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|reason| Error::new(action(), reason))
    }
}

/// Takes a change for made where the kernel says by `errno` that things are so already.
fn gone_is_as_good(result: Result<(), rtnetlink::Error>, errno: i32) -> Result<(), rtnetlink::Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -errno => Ok(()),
        result => result,
    }
}

/// An rtnetlink socket in one network namespace.
#[derive(Clone)]
pub struct Links {
    handle: rtnetlink::Handle,
    /// Whether that is the daemon's own.
    here: bool,
    /// Held during a listing: the kernel carries out one at a time for each socket, and refuses a second with EBUSY
    /// (`__netlink_dump_start` in net/netlink/af_netlink.c).
    listing: Arc<Mutex<()>>,
}

impl Links {
    /// In the daemon's own namespace. Must be called within a tokio runtime.
    pub fn here() -> Result<Self, Error> {
        let (connection, handle) = socket::open().doing(|| "open an rtnetlink socket".into())?;
        tokio::spawn(connection);
        Ok(Self { handle, here: true, listing: Arc::default() })
    }

    /// Lists something, alone, and to its end: the kernel goes on with a listing when nobody wants it any more.
    async fn list<T: Send + 'static, F>(
        &self,
        what: &str,
        list: impl FnOnce(rtnetlink::Handle) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, rtnetlink::Error>> + Send + 'static,
    {
        let alone = self.listing.clone().lock_owned().await;
        let listing = list(self.handle.clone());
        let task = tokio::spawn(async move {
            let listed = listing.await;
            drop(alone);
            listed
        });
        let action = || format!("list the {what}");
        task.await.map_err(io::Error::other).doing(action)?.doing(action)
    }

    /// In another namespace.
    pub async fn within(namespace: &Namespace) -> Result<Self, Error> {
        // A socket stays in the namespace it was made in, whichever thread uses it.
        let opened = namespace.run(socket::open).await?;
        let (connection, handle) = opened.doing(|| "open an rtnetlink socket in the sandbox".into())?;
        tokio::spawn(connection);
        Ok(Self { handle, here: false, listing: Arc::default() })
    }
}

#[cfg(test)]
mod tests;
