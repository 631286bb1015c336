//! knock-user
fn main() {}
