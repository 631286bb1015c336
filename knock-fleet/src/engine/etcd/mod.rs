//! etcd, through its API of version 3.

mod connect;
mod explain;
mod member;

use knock_wire::Open;

use self::member::EtcdMember;
use super::{Engine, Trouble};

/// The members of an etcd.
#[derive(Debug)]
pub(crate) struct Etcd(Open);

impl Etcd {
    /// Connects to nothing yet.
    pub(crate) fn new(open: Open) -> Self {
        Self(open)
    }
}

impl Engine for Etcd {
    type Member = EtcdMember;

    fn urls(&self) -> &[String] {
        &self.0.servers
    }

    async fn connect(&self, number: usize) -> Result<EtcdMember, Trouble> {
        let url = self.0.servers.get(number).map_or("", String::as_str);
        let client = connect::to(&self.0, url).await?;
        EtcdMember::new(url, client).await
    }
}
