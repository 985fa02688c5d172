//! Making the host what a plan says, or leaving it as it was.

mod host;
mod observe;

use std::future::Future;

pub use host::Host;

use crate::{datapath, link, plan::Step};

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's links, addresses or routes.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// The kernel's programs or maps.
    #[error(transparent)]
    Datapath(#[from] datapath::Error),
    /// A bridge's name is another device's.
    #[error("existing interface {0} is not a bridge")]
    NotABridge(String),
}

/// Whatever steps can be taken on.
pub trait Target {
    /// Why a step was not taken.
    type Error: std::fmt::Display;

    /// Takes a step wholly, or fails and changes nothing.
    fn take(&self, step: &Step) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Steps that were taken, in their order.
#[must_use = "they are to be undone if what follows fails"]
#[derive(Debug, Default)]
pub struct Taken(Vec<Step>);

impl Taken {
    /// Takes the steps back, the last one first. What cannot be taken back is logged, and the rest goes on.
    pub async fn undo<T: Target + Sync>(self, target: &T) {
        for step in self.0.into_iter().rev().filter_map(Step::inverse) {
            if let Err(error) = target.take(&step).await {
                log::error!("undoing a failed action: {error}");
            }
        }
    }
}

/// Takes all steps, or undoes those it took before the one that failed. A step whose failure `spares` the others is told of by what it
/// names, and left.
async fn run<T: Target + Sync>(
    target: &T,
    steps: Vec<Step>,
    spares: fn(&Step) -> Option<String>,
) -> Result<Taken, T::Error> {
    let mut taken = Taken::default();
    for step in steps {
        log::debug!("{step:?}");
        match (target.take(&step).await, spares(&step)) {
            (Ok(()), _) => taken.0.push(step),
            (Err(error), Some(what)) => log::error!("{what} is left as it is: {error}"),
            (Err(error), None) => {
                taken.undo(target).await;
                return Err(error);
            }
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::plan::LinkRef;

    /// Refuses one step, and keeps a record.
    struct Recorder {
        refused: Option<Step>,
        seen: Mutex<Vec<Step>>,
    }

    impl Target for Recorder {
        type Error = String;

        async fn take(&self, step: &Step) -> Result<(), String> {
            self.seen.lock().unwrap().push(step.clone());
            if self.refused.as_ref() == Some(step) { Err("no".into()) } else { Ok(()) }
        }
    }

    fn step(index: u32, attach: bool) -> Step {
        Step::Segment { link: LinkRef::Gone(index), attach }
    }

    #[tokio::test]
    async fn a_failure_undoes_what_came_before() {
        let target = Recorder { refused: Some(step(3, true)), seen: Mutex::new(Vec::new()) };
        let steps = vec![step(1, true), step(2, true), step(3, true), step(4, true)];
        assert_eq!(run(&target, steps, |_| None).await.unwrap_err(), "no");
        let seen = target.seen.into_inner().unwrap();
        assert_eq!(seen, [step(1, true), step(2, true), step(3, true), step(2, false), step(1, false)]);
    }

    #[tokio::test]
    async fn a_repair_goes_on_without_an_endpoint() {
        let one = |slot| Step::Endpoint { slot, from: None, to: None };
        let steps = vec![step(1, true), one(5), step(2, true), step(3, true)];
        let target = Recorder { refused: Some(one(5)), seen: Mutex::new(Vec::new()) };
        let taken = run(&target, steps.clone(), Step::endpoint).await.unwrap();
        assert_eq!(taken.0, [step(1, true), step(2, true), step(3, true)]);
        let target = Recorder { refused: Some(step(2, true)), seen: Mutex::new(Vec::new()) };
        assert_eq!(run(&target, steps, Step::endpoint).await.unwrap_err(), "no", "this one is no endpoint's");
        assert_eq!(target.seen.into_inner().unwrap().last(), Some(&step(1, false)));
    }

    #[tokio::test]
    async fn what_was_taken_can_be_undone_later() {
        let target = Recorder { refused: None, seen: Mutex::new(Vec::new()) };
        let taken = run(&target, vec![step(1, true), step(2, true)], |_| None).await.unwrap();
        taken.undo(&target).await;
        let seen = target.seen.into_inner().unwrap();
        assert_eq!(seen, [step(1, true), step(2, true), step(2, false), step(1, false)]);
    }
}
