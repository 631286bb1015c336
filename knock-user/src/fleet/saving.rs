//! What a group keeps over a restart of the daemon.

use super::{
    claims::{Pending, Way},
    entry::Own,
    group::Group,
    record::{Place, Rule},
    saved::{Saved, SavedClaim, SavedGrant},
};

impl<R: Rule> Group<R> {
    /// Returns what has to be kept over a restart, if it has changed since the last call. `boot` names this
    /// boot of the host, and `name` this group.
    pub fn unsaved(&mut self, boot: &str, name: &str) -> Option<String> {
        if !std::mem::take(&mut self.is_unsaved) {
            return None;
        }
        let own = self.entries.values().filter_map(|entry| entry.own.as_ref());
        // Of others, the kernel side and the engine know enough.
        let own = own.filter(|own| own.claim.is_some() || !own.grant.knows.is_empty());
        let grants = own.map(|own| SavedGrant {
            grant: own.grant.clone(),
            until_ms: own.until_ms,
            claim: own.claim,
        });
        let claims = self.claims.open().map(|pending| SavedClaim {
            claim: pending.claim.clone(),
            grant: pending.grant.clone(),
        });
        let saved = Saved {
            boot: boot.to_owned(),
            group: name.to_owned(),
            revocations: self.revocations.saved(),
            grants: grants.collect(),
            claims: claims.collect(),
            trial: self.rollout.trial(),
            undone: self.rollout.undone.clone(),
        };
        Some(saved.text())
    }

    /// Takes over what a daemon of this boot kept for this group, before anything else.
    ///
    /// # Errors
    /// The text is damaged: returns how. Nothing was taken over.
    pub fn restore(&mut self, text: &str, boot: &str, name: &str) -> Result<(), &'static str> {
        let saved = Saved::parse(text)?;
        if saved.boot != boot || saved.group != name {
            return Ok(());
        }
        self.rollout.restore(saved.trial, saved.undone);
        for revocation in saved.revocations {
            self.revocations.restore(revocation);
        }
        for SavedGrant {
            mut grant,
            until_ms,
            claim,
        } in saved.grants
        {
            // The engine may have another history now. What the grant knows is known by ids.
            grant.seen = 0;
            let entry = self.entry(&grant.door.clone(), grant.source);
            entry.open_ms = entry.open_ms.max(until_ms);
            entry.own = Some(Own {
                claim,
                ..Own::new(grant, until_ms)
            });
        }
        for SavedClaim { claim, mut grant } in saved.claims {
            grant.seen = 0;
            self.outbox.add(Place::of_use(&claim.used));
            self.claims.add(Pending {
                gives_up_ms: claim.at_ms.saturating_add(self.member.grace_ms),
                claim,
                way: Way::Open,
                grant,
                in_flight: None,
            });
        }
        Ok(())
    }
}
