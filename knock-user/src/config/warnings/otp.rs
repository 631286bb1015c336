//! Warns of weak time-based sequences.

use std::path::Path;

use knock_sequence::Knock;

use super::{Advice, spa::exposed_to};
use crate::{
    config::otp_rules,
    model::{
        settings::{Door, Otp, SecretOrigin},
        text::count,
    },
    strength::{self, Strength},
};

/// Shorter secrets, in bytes, can be found from one observed sequence by trying them all.
const SECRET_LEAST: usize = 12;
/// Sequences with fewer knocks are guessed within hours at a thousand tries a second.
const FEW_KNOCKS: usize = 3;

impl Advice<'_> {
    pub(super) fn timed(&mut self) {
        for (index, door, otp) in otp_rules::timed(&self.checked.settings) {
            let found = [
                self.exposed(index, otp),
                weak(otp),
                few(door),
                zero(otp),
                self.served_range(otp).filter(|_| !door.knock_pass),
            ];
            for reason in found.into_iter().flatten() {
                self.of_door(index, "otp", reason);
            }
        }
    }

    /// Warns if other users of the host can read or replace the secret.
    fn exposed(&self, door: usize, otp: &Otp) -> Option<String> {
        let line = self.checked.places.of_door(door, "otp").unwrap_or(1);
        let (file, _) = self.checked.file.find(line);
        let (path, mend) = match &otp.origin {
            SecretOrigin::Environment => return None,
            SecretOrigin::File(path) => (path.as_path(), "chmod 600"),
            SecretOrigin::Written => (
                Path::new(file),
                "move it to a file of its own and name that with secret_file, or chmod 600",
            ),
        };
        let who = exposed_to(path)?;
        let shown = path.display();
        Some(format!(
            "{who} the secret in {shown}, and open the door with it: {mend} {shown}"
        ))
    }

    fn served_range(&self, otp: &Otp) -> Option<String> {
        let is_knock = |knock: &&Knock| {
            otp.sequences
                .ports()
                .any(|ports| ports.overlaps((**knock).into()))
        };
        let served = self.host.served.iter().find(is_knock)?;
        Some(format!(
            "this host listens on {served}, which is a knock port in some periods: clients can't \
             connect to it then, and a knock that is bound to the source has no effect there; \
             use another port_base than {}",
            otp.sequences.base
        ))
    }
}

fn weak(otp: &Otp) -> Option<String> {
    let length = otp.sequences.secret.length();
    (length < SECRET_LEAST).then(|| {
        format!(
            "the secret has {length} bytes, so anyone who has seen one sequence can find it by \
             trying all of them: use at least {SECRET_LEAST} random bytes, as from \
             `openssl rand -base64 21`"
        )
    })
}

fn few(door: &Door) -> Option<String> {
    let strength = Strength::timed(door)?;
    (strength.knocks < FEW_KNOCKS).then(|| {
        format!(
            "about {} tries guess a sequence of {} on {} ports: add protocols",
            strength::number(strength.tries_bits()),
            count(strength.knocks as u64, "knock"),
            strength.symbols
        )
    })
}

fn zero(otp: &Otp) -> Option<String> {
    otp.sequences.may_be_zero().then(|| {
        format!(
            "port_base = {} includes port 0, to which no packet can be sent, so the door can't \
             be opened in some periods: use a port_base from 1 to {}",
            otp.sequences.base,
            u16::MAX - 255
        )
    })
}
