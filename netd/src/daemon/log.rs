//! What the daemon says on stderr.

use std::io::Write as _;

use crate::model::Timestamp;

/// Logs from `level` on: `2025-06-01T10:00:00.123456789Z INFO create network n1`.
pub(super) fn start(level: log::LevelFilter) {
    // The netlink crates warn of every attribute that is younger than they are.
    let theirs = level.min(log::LevelFilter::Error);
    env_logger::Builder::new()
        .filter_level(theirs)
        .filter_module("netd", level)
        .format(|line, record| writeln!(line, "{} {:5} {}", Timestamp::now(), record.level(), record.args()))
        .init();
}
