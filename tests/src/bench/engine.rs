//! What a container of Docker Engine takes from `docker run` to `docker rm`: on a network of netd's, and on a bridge of the
//! engine's own.

use std::time::{Duration, Instant};

use crate::lab::{Docker, Lab};

/// Containers of one kind, in their order.
pub struct Containers {
    /// What they were.
    pub what: &'static str,
    /// From `docker run --detach` to the end of `docker rm --force`, each.
    pub times: Vec<Duration>,
}

/// Runs and removes `count` containers of each kind, in turn, with the engine beside netd as it is by default.
pub fn containers(count: usize) -> Vec<Containers> {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let engine = lab.host.engine(&["--shutdown-timeout", "1"]);
    let docker = engine.docker();
    docker.ok("network create own");
    docker.ok("network create --driver netd netd");
    let kinds = [
        ("engine's bridge", "--network own"),
        ("netd", "--network netd"),
        ("engine's bridge, a port", "--network own --publish 8080:80"),
        ("netd, a port", "--network netd --publish 8080:80"),
    ];
    let mut containers = kinds.map(|(what, _)| Containers { what, times: Vec::new() });
    // The first of each kind finds nothing warm, and is not counted.
    for round in 0..=count {
        for (containers, (_, arguments)) in containers.iter_mut().zip(kinds) {
            let time = run_and_remove(&docker, arguments);
            if round > 0 {
                containers.times.push(time);
            }
        }
    }
    containers.into()
}

fn run_and_remove(docker: &Docker<'_>, arguments: &str) -> Duration {
    let begun = Instant::now();
    docker.ok(&format!("run --detach --name bench {arguments} busybox sleep 3600"));
    docker.ok("rm --force bench");
    begun.elapsed()
}
