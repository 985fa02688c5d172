//! Programs on literal packets, by BPF_PROG_TEST_RUN: what their tests and their benchmark share.
#![expect(missing_docs, reason = "packets and assertions: their names say what they are")]

pub mod fixture;
pub mod packet;
pub mod table;
