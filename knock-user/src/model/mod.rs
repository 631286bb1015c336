//! TODO room

pub mod fair_shares;
pub mod problem;
pub mod settings;
pub mod terminal;
pub mod text;
pub mod value;
