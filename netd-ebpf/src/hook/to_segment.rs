//! What a segment's bridge hands to the host's stack: tcx ingress of the bridge.

use crate::verdict::{Outcome, Verdict};

/// Nothing gets through. The host is in the network by the network's own bridge, where the trunk has brought the same frame: it
/// would hear all twice, and answer for its addresses with the segment's own.
#[inline(always)]
pub fn run() -> Outcome {
    Ok(Verdict::CONSUMED)
}
