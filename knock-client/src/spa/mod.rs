//! Single packet authorization: one packet, under this client's key, instead of knocks.
//!
//! ```text
//! settings ─▶ CheckedSpa ─▶ packet ─▶ answer
//!          key_file ─┘
//! ```

mod answer;
mod key_file;
mod packet;
mod run;
mod settings;
mod words;

pub use answer::{HostRefusal, PacketAnswer, Unanswered};
pub use key_file::{KeyFileError, create, default_path, read, store};
pub(crate) use packet::StampClock;
pub use packet::{NotSent, SentPacket};
pub(crate) use run::{open, run};
pub use settings::{CheckedSpa, SpaError, SpaOptions, SpaSettings};
pub use words::{DoorName, GrantTime, HostPublicKey, PacketPort};
