//! The programs of another netd in the same network namespace.

use std::{borrow::Cow, collections::BTreeSet, fs, path::Path};

use aya::programs::{SchedClassifier, TcAttachType};

use super::{
    IfIndex,
    programs::{HOOKS, pinned_link},
};

/// An interface of this network namespace that has the programs of a netd with other pins than these, whether a daemon runs there
/// or not.
pub(super) fn interface(pins: &Path) -> nix::Result<Option<String>> {
    let own = attached(&pins.join("links"));
    let interfaces = nix::net::if_::if_nameindex()?;
    let mut names = interfaces
        .iter()
        .filter(|interface| !own.contains(&IfIndex(interface.index())))
        .map(|interface| interface.name().to_string_lossy());
    Ok(names.find(|name| has_programs(name)).map(Cow::into_owned))
}

/// The interfaces that programs are attached to whose links are pinned here.
fn attached(links: &Path) -> BTreeSet<IfIndex> {
    let entries = fs::read_dir(links).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(pinned_link(&entry.file_name())?.1)).collect()
}

fn has_programs(interface: &str) -> bool {
    [TcAttachType::Ingress, TcAttachType::Egress].into_iter().any(|direction| {
        // An interface that is gone by now has none.
        let (_, programs) = SchedClassifier::query_tcx(interface, direction).unwrap_or_default();
        let is_netds = |name| HOOKS.iter().any(|hook| Some(hook.name) == name);
        programs.iter().any(|program| is_netds(program.name_as_str()))
    })
}
