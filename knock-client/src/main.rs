//! knock-client
fn main() {}
