//! What is unwise about time-based sequences.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use knock_sequence::Knock;

use super::Advice;
use crate::{
    config::otp_rules,
    model::settings::{Door, Origin, Otp},
    strength::{self, Strength},
};

/// Whoever has seen a knock can try all shorter secrets at home.
const SECRET_LEAST: usize = 12;
/// With fewer knocks it takes some hours at a thousand tries a second.
const FEW_KNOCKS: usize = 3;

impl Advice<'_> {
    pub(super) fn timed(&mut self) {
        for (index, door, otp) in otp_rules::timed(&self.checked.settings) {
            let found = [
                self.exposed(otp),
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

    /// Who may read the secret besides those who should.
    fn exposed(&self, otp: &Otp) -> Option<String> {
        const READ_BY_ALL: u32 = 0o004;
        let (path, mend) = match &otp.origin {
            Origin::Environment => return None,
            Origin::File(path) => (path.as_path(), "chmod 600"),
            Origin::Written => (
                Path::new(&self.checked.file),
                "put it into a file of its own and name that with secret_file, or chmod 600",
            ),
        };
        let mode = fs::metadata(path).ok()?.mode();
        let shown = path.display();
        (mode & READ_BY_ALL != 0).then(|| {
            format!(
                "every user of this host may read the secret in {shown}, which is all that it \
                 takes to get in: {mend} {shown}"
            )
        })
    }

    fn served_range(&self, otp: &Otp) -> Option<String> {
        let is_knock = |knock: &&Knock| {
            otp.sequences
                .ports()
                .any(|ports| ports.overlaps((**knock).into()))
        };
        let served = self.host.served.iter().find(is_knock)?;
        Some(format!(
            "this host listens on {served}, which is among its knocks in some periods, and nobody \
             will be able to connect there then; nor can the half that is bound to the source be \
             knocked there: take another port_base than {}",
            otp.sequences.base
        ))
    }
}

fn weak(otp: &Otp) -> Option<String> {
    let length = otp.sequences.secret.length();
    (length < SECRET_LEAST).then(|| {
        format!(
            "the secret has {length} bytes, and whoever has seen one sequence can try all such \
             secrets at home: take {SECRET_LEAST} or more, at random, as from \
             `openssl rand -base64 21`"
        )
    })
}

fn few(door: &Door) -> Option<String> {
    let strength = Strength::timed(door)?;
    let knocks = strength.knocks;
    (knocks < FEW_KNOCKS).then(|| {
        format!(
            "{knocks} of {} ports are soon guessed, about {} tries: write more protocols",
            strength.symbols,
            strength::number(strength.tries_bits())
        )
    })
}

fn zero(otp: &Otp) -> Option<String> {
    otp.sequences.may_be_zero().then(|| {
        format!(
            "port_base = {} leads to port 0, on which nobody can knock: in some periods the door can't \
             be opened; take a port_base from 1 to {}",
            otp.sequences.base,
            u16::MAX - 255
        )
    })
}
