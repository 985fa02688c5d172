//! The host's own addresses, at which its own sockets reach published ports.

use super::{Engine, Writer, internal};
use crate::model::Error;

impl Engine {
    /// Tells the datapath of addresses that came or went.
    pub(super) async fn refresh_locals(&self, writer: &mut Writer) -> Result<(), Error> {
        let found = self.0.host.links.locals().await.map_err(internal)?;
        let state = self.state();
        let news = found.iter().filter(|(prefix, local)| writer.locals.get(prefix) != Some(local));
        for (prefix, local) in news {
            if let Some(external) = state.externals.keys().find(|external| external.contains(&prefix.addr()))
            {
                log::warn!(
                    "{} is the host's own now, and within the external {external}: what comes to it from outside goes to a container still; `netd nat rm {external}` leaves it to the host",
                    prefix.addr()
                );
            }
            self.datapath().put_local(*prefix, *local).map_err(internal)?;
        }
        let gone: Vec<_> =
            writer.locals.keys().filter(|prefix| !found.contains_key(prefix)).copied().collect();
        for &prefix in &gone {
            self.datapath().remove_local(prefix).map_err(internal)?;
        }
        writer.locals = found;
        if !gone.is_empty() {
            // Flows that looked before the table knew have taken theirs for good.
            self.datapath().bump_fib_generation().map_err(internal)?;
        }
        Ok(())
    }
}
