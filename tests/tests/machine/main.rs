//! The package on a Debian with systemd, in a virtual machine: each row boots it, or begins right after its boot.
//!
//! `cargo xtask machine` makes the machine and runs these tests; nothing else does.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy.toml's exception does not reach helpers of tests"
)]

mod installed;
mod outside;
mod package;
mod power;
mod qemu;
mod service;

/// The rows of each card: the first boots it.
mod rows {
    /// Defines a module with the tests that every card passes.
    macro_rules! card {
        ($name:ident, $card:ident, $mode:literal) => {
            mod $name {
                use crate::{qemu::Card, service};

                #[test]
                fn a_boot_is_protected_before_the_network_is_up() {
                    service::is_protected_from_its_boot_on(Card::$card, $mode);
                }

                #[test]
                fn a_packet_or_knocks_let_ssh_in() {
                    service::lets_ssh_in(Card::$card);
                }

                #[test]
                fn a_reload_lets_nobody_in() {
                    service::reloads(Card::$card);
                }

                #[test]
                fn a_restart_lets_nobody_in() {
                    service::restarts(Card::$card);
                }

                #[test]
                fn a_link_that_goes_down_and_up_stays_closed() {
                    service::survives_link_changes(Card::$card);
                }
            }
        };
    }

    #[test]
    fn a_credential_of_systemd_is_the_key_of_the_host() {
        crate::service::reads_a_credential(crate::qemu::Card::VirtioNet);
    }

    card!(virtio_net, VirtioNet, "native");
    card!(
        e1000e,
        E1000e,
        "tc because the driver runs no XDP programs, or not with these settings"
    );
    card!(
        vmxnet3,
        Vmxnet3,
        "tc because the driver vmxnet3 forgets a native program whenever the interface goes down, changes its MTU \
         or is reset"
    );
}
