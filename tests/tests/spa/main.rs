//! Single packet authorization, from the client to the door.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

mod answers;
mod credentials;
mod oracle;
mod order;
mod paths;
mod prefixes;
mod rules;
mod silence;
mod users;
