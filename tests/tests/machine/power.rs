//! A power cut, and the boot after it.

use knock_tests::ssh::{KNOCKS, SSH};

use crate::{
    installed::{LINES, booted, outside, restored, turn},
    outside::{MACHINE, ONCE, finds},
    qemu::{Card, Machine},
};

#[test]
fn nothing_opens_after_a_power_cut_and_used_secrets_stay_used() {
    let _turn = turn();
    let outside = outside();
    let card = Card::VirtioNet;
    let machine = restored(card);
    let packet = outside.packet();
    let source = outside.new_source(MACHINE[0]);
    outside.send(&source, &packet);
    finds(&source, true, SSH, "one packet");
    let once = outside.new_source(MACHINE[1]);
    once.knock(LINES[0]);
    finds(&once, true, ONCE, "the first line");
    // Right after what was used has had an effect.
    machine.cut_power();

    let attempts = outside.attempts();
    let mut machine = Machine::boot(&outside.namespace, card, booted(card));
    machine.is_booted();
    let log = machine.succeeds("dmesg");
    assert!(log.contains("recovery complete"), "{log}");
    for (source, port) in [(&source, SSH), (&once, ONCE)] {
        finds(source, false, port, "a grant from before");
    }
    for to in MACHINE {
        let thief = outside.new_source(to);
        outside.send(&thief, &packet);
        finds(&thief, false, SSH, "a used packet");
        thief.knock(LINES[0]);
        finds(&thief, false, ONCE, "a used line");
    }
    attempts.all_failed("power cut");
    let source = outside.new_source(MACHINE[0]);
    outside.send(&source, &outside.packet());
    finds(&source, true, SSH, "another packet");
    let source = outside.new_source(MACHINE[1]);
    source.knock(KNOCKS);
    finds(&source, true, SSH, "knocks");
    // A line that was listened to at the power cut may be void; a later one opens.
    let opened = LINES[1..].iter().any(|line| {
        let source = outside.new_source(MACHINE[0]);
        source.knock(line);
        source
            .connect(ONCE, std::time::Duration::from_secs(3))
            .is_ok()
    });
    assert!(
        opened,
        "no later line opens: {}",
        machine.run("journalctl -u knock-user").text
    );
}
