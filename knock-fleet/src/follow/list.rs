//! Lists all records of a prefix.

use knock_wire::{Cause, Report};

use super::{End, Followed};
use crate::{
    engine::{Engine, Member as _, Page, Record, Trouble},
    feed::{Begin, Feed},
};

impl<E: Engine> Followed<E> {
    /// Reports all records below the prefix as of one revision.
    ///
    /// # Errors
    /// The member does not answer. A list that was begun is reported again from its beginning.
    pub(super) async fn list(
        &self,
        feed: &mut Feed,
        member: &E::Member,
        cause: Cause,
    ) -> Result<Begin, End> {
        let Page {
            cluster,
            revision,
            mut records,
            mut rest,
        } = member.page(&self.prefix, None, None).await?;
        // What waits belongs before the list.
        self.output.drained().await;
        self.output
            .send(Report::List {
                prefix: self.prefix.clone(),
                cause,
                cluster: cluster.clone(),
            })
            .await;
        let mut last: Option<Record> = None;
        loop {
            for record in records {
                if last
                    .as_ref()
                    .is_none_or(|last| last.revision < record.revision)
                {
                    last = Some(record.clone());
                }
                self.output.send(report(record)).await;
            }
            let Some(after) = rest else { break };
            let page = member
                .page(&self.prefix, Some(&after), Some(revision))
                .await;
            let page = page.map_err(|trouble| match trouble {
                // It lasted too long; the next one begins at a later revision.
                Trouble::Compacted => End::Again,
                Trouble::Unreached(_)
                | Trouble::Lost(_)
                | Trouble::Refused(_)
                | Trouble::Future
                | Trouble::NoLease => End::Trouble(trouble),
            })?;
            (records, rest) = (page.records, page.rest);
        }
        self.output
            .send(Report::Listed {
                prefix: self.prefix.clone(),
                revision,
            })
            .await;
        // A change must not replace a record of the list and so leave it.
        self.output.drained().await;
        Ok(feed.listed(cluster, revision, last))
    }
}

/// Returns the report of a record.
pub(super) fn report(record: Record) -> Report {
    Report::Record {
        key: record.key,
        value: record.value,
        revision: record.revision,
    }
}
