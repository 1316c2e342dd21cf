//! Commands of an operator: compare, correct, rebuild, resume.

pub mod audit;
pub mod rebuild;
pub(crate) mod repair;
pub mod resume;
