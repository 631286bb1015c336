//! From the text of a file to what it means.

pub mod checked;
