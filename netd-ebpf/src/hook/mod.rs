//! The order of stages at each hook, a page each. Hooks are named by who speaks.

pub mod advertise;
pub mod forwarded;
pub mod from_container;
pub mod from_host;
pub mod from_uplink;
pub mod socket;
pub mod sweep;
pub mod to_segment;
pub mod to_uplink;
