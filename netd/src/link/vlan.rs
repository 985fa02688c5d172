//! The VLANs that bridge ports are in.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::{
    AddressFamily,
    link::{AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, LinkAttribute, LinkExtentMask, LinkMessage},
};

use super::{Doing as _, Error, Links};
use crate::plan::{VlanMembership, Vlans};

impl Links {
    /// The VLANs of all bridge ports, and of the bridges themselves, by the index of the link.
    pub async fn vlans(&self) -> Result<BTreeMap<u32, Vlans>, Error> {
        let messages: Vec<LinkMessage> = self
            .list("VLANs", |handle| {
                // Ranges in one entry each: those of a full trunk would not fit into a message one by one.
                let mask = vec![LinkExtentMask::BrvlanCompressed];
                handle.link().get().set_filter_mask(AddressFamily::Bridge, mask).execute().try_collect()
            })
            .await?;
        Ok(messages.into_iter().map(|message| (message.header.index, read(&message))).collect())
    }

    /// Puts a port into the VLANs of `to`, and out of those of `from` that are not among them.
    pub(super) async fn change_vlans(
        &self,
        index: u32,
        name: &str,
        from: &Vlans,
        to: &Vlans,
    ) -> Result<(), Error> {
        let action = || format!("change the VLANs of the bridge port {name}");
        let leaving =
            from.iter().filter(|(vlan, _)| !to.contains_key(*vlan)).map(|(vlan, how)| (*vlan, *how));
        if let Some(message) = message(index, &leaving.collect()) {
            self.handle.link().del_with_message(message).execute().await.doing(action)?;
        }
        let joining =
            to.iter().filter(|(vlan, how)| from.get(vlan) != Some(how)).map(|(vlan, how)| (*vlan, *how));
        if let Some(message) = message(index, &joining.collect()) {
            self.handle.link().set(message).execute().await.doing(action)?;
        }
        Ok(())
    }
}

fn read(message: &LinkMessage) -> Vlans {
    let mut vlans = Vlans::new();
    let mut first = None;
    let specs = message.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::AfSpecBridge(specs) => Some(specs),
        _ => None,
    });
    for spec in specs.flatten() {
        let AfSpecBridge::VlanInfo(info) = spec else { continue };
        let how = VlanMembership {
            pvid: info.flags.contains(BridgeVlanInfoFlags::Pvid),
            untagged: info.flags.contains(BridgeVlanInfoFlags::Untagged),
        };
        if info.flags.contains(BridgeVlanInfoFlags::RangeBegin) {
            first = Some(info.vid);
            continue;
        }
        vlans.extend((first.take().unwrap_or(info.vid)..=info.vid).map(|vlan| (vlan, how)));
    }
    vlans
}

/// A request about these VLANs of a port; none if there are none.
fn message(index: u32, vlans: &Vlans) -> Option<LinkMessage> {
    let mut specs = Vec::new();
    let mut rest = vlans.iter().peekable();
    while let Some((&first, &how)) = rest.next() {
        let mut last = first;
        // The kernel takes no range that untagged frames belong to.
        while !how.pvid && rest.next_if(|(vlan, other)| **vlan == last + 1 && **other == how).is_some() {
            last += 1;
        }
        let mut flags = BridgeVlanInfoFlags::empty();
        flags.set(BridgeVlanInfoFlags::Pvid, how.pvid);
        flags.set(BridgeVlanInfoFlags::Untagged, how.untagged);
        if first == last {
            specs.push(AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid: first }));
            continue;
        }
        for (vid, end) in [(first, BridgeVlanInfoFlags::RangeBegin), (last, BridgeVlanInfoFlags::RangeEnd)] {
            specs.push(AfSpecBridge::VlanInfo(BridgeVlanInfo { flags: flags | end, vid }));
        }
    }
    if specs.is_empty() {
        return None;
    }
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = index;
    message.attributes.push(LinkAttribute::AfSpecBridge(specs));
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_an_answer_would() {
        let tagged = VlanMembership::default();
        let own = VlanMembership { pvid: true, untagged: true };
        for vlans in [
            Vlans::from([(7, own)]),
            Vlans::from([(1, own), (2, tagged), (3, tagged), (5, tagged)]),
            (1..=4094).map(|vlan| (vlan, if vlan == 100 { own } else { tagged })).collect(),
        ] {
            assert_eq!(read(&message(9, &vlans).unwrap()), vlans);
        }
        assert!(message(9, &Vlans::new()).is_none());
    }
}
