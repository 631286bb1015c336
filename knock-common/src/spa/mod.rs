//! Single packet authorization: one datagram says, under a key that only its sender and this host have, who asks, when,
//! for which door, for how long and for which address.

pub mod layout;
