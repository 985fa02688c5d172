//! The programs, run by BPF_PROG_TEST_RUN on literal packets. Needs root and a kernel of 6.6 or later.

mod binding;
mod bridge;
mod budget;
mod capacity;
mod catch_all;
mod checksum;
mod external;
mod filtering;
mod fragments;
mod guard;
mod icmp;
mod load;
mod malformed;
mod masquerade;
mod neighbours;
mod networks;
mod pins;
mod policy;
mod ports;
mod publish;
mod rate;
mod returns;
mod route;
mod stack;
mod sweep;
mod tunnel;

use netd_tests::prog::{fixture, packet};
