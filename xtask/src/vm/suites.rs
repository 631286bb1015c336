//! The tests that run in virtual machines, and what they need of a kernel.

use super::qemu::Processor;

/// Directories that others are mounted on.
pub(super) const MOUNT_POINTS: [&str; 5] = ["proc", "sys", "dev", "tmp", "run"];

/// Links of the tests, the drivers of the machine's cards, the lists of TCP and UDP sockets, and
/// counters behind the program.
pub(super) const MODULES: [&str; 40] = [
    "veth",
    "virtio_pci",
    "virtio_net",
    "vmxnet3",
    "tcp_diag",
    "udp_diag",
    "nf_tables",
    "nft_objref",
    "nft_counter",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "tun",
    "bridge",
    "bonding",
    "dummy",
    "8021q",
    "macvlan",
    "ipvlan",
    "vxlan",
    "vrf",
    "ifb",
    "wireguard",
    "ipip",
    "sit",
    "ip_gre",
    "xfrm_interface",
    "geneve",
    "team",
    "ip6_tunnel",
    "ip6_gre",
    "ip_vti",
    "xfrm_user",
    "esp4",
    "authenc",
    "seqiv",
    "gcm",
    "ghash-generic",
    "aesni-intel",
    "crypto_null",
];

/// A test program, and which of its tests run in the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selected {
    pub(super) target: &'static str,
    /// All of them if the list is empty.
    pub(super) tests: &'static [&'static str],
    /// Whether its output is shown if it passes.
    shows: bool,
}

impl Selected {
    const fn all(target: &'static str) -> Self {
        Self::some(target, &[])
    }

    const fn some(target: &'static str, tests: &'static [&'static str]) -> Self {
        Self {
            target,
            tests,
            shows: false,
        }
    }

    const fn shown(self) -> Self {
        Self {
            shows: true,
            ..self
        }
    }

    /// Returns its line in the script of `vm/init.sh`.
    pub(super) fn line(&self) -> String {
        let mut line = format!("suite {}", self.target);
        if self.shows {
            line += " --show-output";
        }
        if !self.tests.is_empty() {
            line += " --exact ";
            line += &self.tests.join(" ");
        }
        line + "\n"
    }
}

/// The suites, in the order in which they run, without tests that take long under emulation or need an exact clock.
const SUITES: &[Selected] = &[
    Selected::some("load", &["the_largest_configuration_loads"]).shown(),
    Selected::all("differential").shown(),
    Selected::some(
        "otp",
        &["the_kernel_derives_the_same_knocks_as_the_library"],
    ),
    Selected::some(
        "knock",
        &[
            "every_grant_has_one_opening_and_one_end",
            "our_client_connects_at_its_first_attempt",
            "a_packet_right_behind_the_last_knock_gets_in",
        ],
    ),
    Selected::some(
        "handshake",
        &[
            "forged::forged_packets_change_nothing",
            "forged::knocks_count_in_the_order_of_their_completed_handshakes",
            "connections_to_wrong_ports_end_the_attempt",
        ],
    ),
    Selected::some("start", &["existing_connections_continue_after_a_start"]),
    Selected::some(
        "upgrade",
        &[
            "a_grant_is_carried_over_by_its_door",
            "a_map_of_another_shape_is_refused",
        ],
    )
    .shown(),
    Selected::all("clock"),
    Selected::all("drivers").shown(),
    Selected::all("tunnel_kinds").shown(),
    Selected::all("xdp_tools").shown(),
    Selected::some("mode", &["a_reload_changes_the_mode_and_lets_nobody_in"]),
    // Last, because some of its rows need a machine that has run for a while.
    Selected::all("verdicts"),
];

/// Fewer frames than on the host, longer pauses of unauthorized sources, and the verdicts at XDP alone: the machine is
/// ten times slower.
pub(super) const LESS: &str = "export KNOCK_FRAMES=4000 KNOCK_PAUSE_MS=50 KNOCK_ENTRY=knock\n";

/// Those that depend on the processor, and not on its network cards or its clock.
const OF_A_PROCESSOR: [&str; 5] = ["load", "differential", "otp", "knock", "verdicts"];

/// Returns the suites of a machine with this processor.
pub(super) fn suites(processor: Processor) -> Vec<Selected> {
    let runs = |suite: &Selected| match processor {
        Processor::Amd64 => true,
        Processor::Arm64 => OF_A_PROCESSOR.contains(&suite.target),
    };
    SUITES.iter().copied().filter(runs).collect()
}
