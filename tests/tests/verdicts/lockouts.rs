//! Sources that are locked out.

use knock_common::Reason::{
    Decoy, Duplicate, FirstKnock, Granted, LockedOut, NextKnock, NoGrant, Opened, Ordinary,
    OutOfSequence, StrayPort, WrongKnock,
};

use crate::table::{RowStep::Later, check, row, syn, udp};

#[test]
fn failed_attempts_lock_out_their_source() {
    let text = r#"
        lockout = { failures = 2, for = "1m" }
        decoys = { ports = ["tcp/2222"] }
        [[door]]
        name = "ssh"
        knock = ["tcp/7000", "udp/8000", "tcp/6000"]
        open = ["tcp/22"]
        open_for = "1h"
    "#;
    let first = syn(7000).is(FirstKnock).reported("ssh", 1);
    let wrong = syn(6000).is(WrongKnock).reported("ssh", 1);
    let scanned = syn(1234).is(StrayPort).reported("ssh", 1);
    let decoy = syn(2222).is(Decoy).reported("ssh", 1);
    let second = udp(8000).is(NextKnock).reported("ssh", 2);
    let third = syn(6000).is(Opened).reported("ssh", 3);
    check(
        text,
        &[
            row(
                "after two wrong knocks",
                [
                    first.clone(),
                    wrong.clone(),
                    first.clone(),
                    wrong.clone(),
                    syn(7000).is(LockedOut),
                    udp(8000).is(LockedOut),
                    syn(7000).same_network().is(LockedOut),
                    syn(7000).neighbour().is(FirstKnock).reported("ssh", 1),
                    Later(45),
                    syn(7000).is(LockedOut),
                    Later(15),
                    first.clone(),
                    second.clone(),
                    third.clone(),
                ],
            ),
            row(
                "after wrong knocks of two addresses of a /64",
                [
                    first.clone(),
                    wrong.clone(),
                    syn(7000).same_network().is(FirstKnock).reported("ssh", 1),
                    syn(6000).same_network().is(WrongKnock).reported("ssh", 1),
                    syn(7000).is(LockedOut),
                    syn(7000).same_network().is(LockedOut),
                    syn(7000).neighbour().is(FirstKnock).reported("ssh", 1),
                ],
            ),
            row(
                "a scan and a decoy count too",
                [
                    first.clone(),
                    scanned,
                    first.clone(),
                    decoy,
                    syn(7000).is(LockedOut),
                ],
            ),
            row(
                "failures are forgotten",
                [
                    first.clone(),
                    wrong.clone(),
                    Later(60),
                    first.clone(),
                    wrong.clone(),
                    first.clone(),
                ],
            ),
            row(
                "what fails no attempt counts nothing",
                [
                    udp(8000).is(OutOfSequence),
                    syn(6000).is(OutOfSequence),
                    syn(2222).is(Decoy),
                    syn(1234).is(Ordinary),
                    syn(22).is(NoGrant),
                    first.clone(),
                    syn(7000).is(Duplicate),
                ],
            ),
            row(
                "a grant stays",
                [
                    first.clone(),
                    second,
                    third,
                    first.clone(),
                    wrong.clone(),
                    first,
                    wrong,
                    syn(7000).is(LockedOut),
                    syn(22).is(Granted),
                ],
            ),
        ],
    );
}

#[test]
fn a_global_lockout_locks_out_every_source() {
    let text = r#"
        lockout = { failures = 2, for = "1m", scope = "global" }
        [[door]]
        name = "ssh"
        knock = ["tcp/7000", "udp/8000", "tcp/6000"]
        open = ["tcp/22"]
    "#;
    check(
        text,
        &[row(
            "after failures of two",
            [
                syn(7000).is(FirstKnock).reported("ssh", 1),
                syn(6000).is(WrongKnock).reported("ssh", 1),
                syn(7000).neighbour().is(FirstKnock).reported("ssh", 1),
                syn(6000).neighbour().is(WrongKnock).reported("ssh", 1),
                syn(7000).is(LockedOut),
                syn(7000).neighbour().is(LockedOut),
                Later(60),
                syn(7000).is(FirstKnock).reported("ssh", 1),
            ],
        )],
    );
}
