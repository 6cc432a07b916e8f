//! What is sent twice, and why.
//!
//! - `late`: a lane is late with it, so others send it again;
//! - `tail`: it is the last there is, and another lane would deliver it sooner;
//! - `redundant`: the stream's user wants every byte on two lanes;
//! - `probe`: it costs little, and shows what an unused lane can do.
//!
//! All but `redundant` draws on one `budget`, a share of what is sent once. This room only chooses:
//! it reads streams, marks what it chose in the ledgers of lanes, and the session carries it out.

mod budget;
mod late;
mod probe;
pub mod redundant;
pub mod tail;

#[cfg(test)]
pub use self::budget::cost_twice;

use self::budget::DuplicateBudget;

/// Chooses what is sent twice.
#[derive(Debug)]
pub struct Copies {
    budget: DuplicateBudget,
}

impl Copies {
    /// This share of what is sent once may be sent twice.
    pub fn new(share: f64) -> Self {
        Self { budget: DuplicateBudget::new(share) }
    }

    /// So much payload was sent for the first time.
    pub fn earn(&mut self, payload: u64) {
        self.budget.earn(payload);
    }

    /// A frame with so much payload was sent twice.
    pub fn spend(&mut self, payload: u64) {
        self.budget.spend(budget::cost_twice(payload));
    }

    #[cfg(test)]
    pub fn budget_left(&self) -> u64 {
        self.budget.left()
    }

    #[cfg(test)]
    pub fn spend_all(&mut self) {
        self.budget.spend(self.budget.left());
    }
}
