//! What an operator asks for by command: compare, correct, fold anew, go on knowingly.

pub mod audit;
pub mod rebuild;
pub(crate) mod repair;
pub mod resume;
