//! TODO room

pub mod check;
pub mod generate;
pub mod import;
pub mod toml_text;
