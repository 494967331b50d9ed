//! Message groups on a standard queue: a group is the name of a tenant and does not order messages.
//! If one tenant has most of the in-flight messages, messages of other tenants come first. Source:
//! SQS developer guide, "Amazon SQS fair queues".
//!
//! SQS does not document when a tenant counts as noisy. Here it does with more than half of the
//! in-flight messages and at least ten.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use super::queue::{MessageState, Placed};

/// With fewer messages in flight, no tenant is noisy.
const NOISY_MIN: usize = 10;

/// The messages of one tenant, or those without a tenant.
#[derive(Debug, Default)]
struct Tenant {
    ready: BTreeSet<(Instant, u64)>,
    in_flight: usize,
}

/// The tenants of a standard queue.
#[derive(Debug, Default)]
pub(crate) struct Tenants(HashMap<Option<String>, Tenant>);

impl Tenants {
    /// Adds a message in this state.
    pub(crate) fn enter(&mut self, name: Option<&String>, key: u64, placed: Placed) {
        let tenant = self.0.entry(name.cloned()).or_default();
        match placed.state {
            MessageState::Visible => {
                tenant.ready.insert((placed.at, key));
            }
            MessageState::InFlight => tenant.in_flight += 1,
            MessageState::Delayed => {}
        }
    }

    /// Removes a message in this state.
    pub(crate) fn leave(&mut self, name: Option<&String>, key: u64, placed: Placed) {
        let name = name.cloned();
        let Some(tenant) = self.0.get_mut(&name) else { return };
        match placed.state {
            MessageState::Visible => {
                tenant.ready.remove(&(placed.at, key));
            }
            MessageState::InFlight => tenant.in_flight -= 1,
            MessageState::Delayed => {}
        }
        if tenant.ready.is_empty() && tenant.in_flight == 0 {
            self.0.remove(&name);
        }
    }

    /// Returns the next message: the one visible longest, of a quiet tenant if there is one.
    pub(crate) fn first_ready(&self, in_flight: usize) -> Option<u64> {
        let is_noisy = |name: &Option<String>, tenant: &Tenant| {
            name.is_some() && tenant.in_flight >= NOISY_MIN && tenant.in_flight * 2 > in_flight
        };
        // Two tenants cannot be noisy at the same time.
        let quiet = self.0.iter().filter(|(name, tenant)| !is_noisy(name, tenant));
        let first = quiet.filter_map(|(_, tenant)| tenant.ready.first()).min();
        let first = first.or_else(|| self.0.values().filter_map(|it| it.ready.first()).min());
        first.map(|(_, key)| *key)
    }
}
