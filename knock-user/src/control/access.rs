//! Decides who may use the control socket.

use std::ffi::CString;

use anyhow::{Context as _, Result, anyhow};
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// The process at the other end of a connection, as the kernel reports it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
    /// Its process id, if the kernel reports it.
    pub pid: Option<i32>,
}

/// The users that are accepted: root, the daemon's own user, and the members of a group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SocketAccess {
    own_uid: u32,
    group: Option<(String, u32)>,
}

impl SocketAccess {
    /// Accepts the members of a group too, if one is named.
    ///
    /// # Errors
    /// There is no such group.
    pub fn new(group: Option<&str>) -> Result<Self> {
        let found = |name: &str| -> Result<_> {
            let group = Group::from_name(name)
                .with_context(|| format!("looking for the group {name}"))?
                .ok_or_else(|| {
                    anyhow!("there is no group {name}, which [control] names; see `getent group`")
                })?;
            Ok((name.to_owned(), group.gid.as_raw()))
        };
        Ok(Self {
            own_uid: Uid::effective().as_raw(),
            group: group.map(found).transpose()?,
        })
    }

    /// Returns the id of the accepted group.
    pub fn gid(&self) -> Option<u32> {
        self.group.as_ref().map(|&(_, gid)| gid)
    }

    /// Returns whether a peer is accepted; `groups_of` returns the groups of a user.
    pub fn admits(&self, peer: &Peer, groups_of: impl FnOnce(u32) -> Vec<u32>) -> bool {
        if peer.uid == 0 || peer.uid == self.own_uid {
            return true;
        }
        let Some(gid) = self.gid() else {
            return false;
        };
        peer.gid == gid || groups_of(peer.uid).contains(&gid)
    }

    /// Returns the error for a peer that is not accepted.
    pub fn refusal(&self, peer: &Peer) -> String {
        let who = match &self.group {
            Some((name, _)) => format!("root and the group {name}"),
            None => "root; `[control] group` in the configuration lets a group in".to_owned(),
        };
        format!("uid {} is not let in, only {who}", peer.uid)
    }
}

/// Returns the groups of a user, as the host's databases know them; none for a user that they don't know.
pub fn groups_of(uid: u32) -> Vec<u32> {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
        return Vec::new();
    };
    let Ok(name) = CString::new(user.name) else {
        return Vec::new();
    };
    let groups = getgrouplist(&name, user.gid).unwrap_or_default();
    groups.into_iter().map(Gid::as_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32) -> Peer {
        Peer {
            uid,
            gid,
            pid: None,
        }
    }

    #[test]
    fn only_root_the_daemons_user_and_the_group_are_let_in() {
        let closed = SocketAccess {
            own_uid: 990,
            group: None,
        };
        let open = SocketAccess {
            own_uid: 990,
            group: Some(("adm".to_owned(), 4)),
        };
        for (name, access, peer, groups, admitted) in [
            ("root", &closed, peer(0, 0), vec![], true),
            ("the daemon's user", &closed, peer(990, 7), vec![], true),
            (
                "another user",
                &closed,
                peer(1000, 1000),
                vec![1000, 4],
                false,
            ),
            (
                "group root is not root",
                &closed,
                peer(1000, 0),
                vec![0],
                false,
            ),
            ("a member", &open, peer(1000, 1000), vec![1000, 4], true),
            ("a member by newgrp", &open, peer(1000, 4), vec![1000], true),
            ("no member", &open, peer(1000, 1000), vec![1000, 27], false),
            ("root, with a group", &open, peer(0, 0), vec![0], true),
        ] {
            assert_eq!(access.admits(&peer, |_| groups), admitted, "{name}");
        }
    }

    #[test]
    fn a_refusal_names_who_is_let_in() {
        let access = SocketAccess {
            own_uid: 0,
            group: Some(("adm".to_owned(), 4)),
        };
        assert_eq!(
            access.refusal(&peer(1000, 1000)),
            "uid 1000 is not let in, only root and the group adm"
        );
    }

    #[test]
    fn groups_are_looked_up_on_the_host() {
        assert_eq!(SocketAccess::new(Some("root")).unwrap().gid(), Some(0));
        let error = SocketAccess::new(Some("no-such-group"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("no-such-group"), "{error}");
        assert!(groups_of(0).contains(&0));
        assert!(groups_of(0xfff0_1234).is_empty());
    }
}
