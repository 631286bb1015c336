//! Whether the engine is reached, as it is reported.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use knock_wire::Report;

use crate::output::Output;

/// The state of all watches.
#[derive(Debug)]
pub(crate) struct Link {
    output: Rc<Output>,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many watches deliver.
    live: usize,
    /// The last reason that was reported of each member, since one was reached.
    reasons: HashMap<String, String>,
}

impl Link {
    pub(crate) fn new(output: Rc<Output>) -> Self {
        Self {
            output,
            state: RefCell::default(),
        }
    }

    /// Reports a watch of this member that delivers.
    pub(crate) async fn up(&self, member: &str, version: &str) {
        {
            let mut state = self.state.borrow_mut();
            state.live += 1;
            state.reasons.clear();
        }
        self.output
            .send(Report::Linked {
                member: member.to_owned(),
                version: version.to_owned(),
            })
            .await;
    }

    /// Counts the end of a watch that delivered.
    pub(crate) fn down(&self) {
        let mut state = self.state.borrow_mut();
        state.live = state.live.saturating_sub(1);
    }

    /// Reports why a member is not watched, once for each reason, if no other one is.
    pub(crate) async fn failed(&self, member: &str, reason: String) {
        {
            let mut state = self.state.borrow_mut();
            let last = state.reasons.insert(member.to_owned(), reason.clone());
            if state.live > 0 || last.as_deref() == Some(&reason) {
                return;
            }
        }
        self.output.send(Report::Lost { reason }).await;
    }
}
