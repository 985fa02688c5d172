//! The object as a whole.

use std::collections::BTreeSet;

use crate::fixture::Fixture;

#[test]
fn every_program_is_loaded_and_every_map_made() {
    let fixture = Fixture::new();
    let status = fixture.datapath.status().unwrap();
    let names: BTreeSet<_> = status.programs.iter().map(|program| program.name.as_str()).collect();
    let loaded = ["advertise", "from_container", "from_host", "from_uplink", "sweep", "to_uplink"];
    assert_eq!(names, BTreeSet::from(loaded));
    for program in &status.programs {
        assert!(program.instructions > 0);
    }
    assert_eq!(status.maps.len(), 50);
}
