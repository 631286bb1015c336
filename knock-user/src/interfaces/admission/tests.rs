use super::*;

fn ethernet(index: u32, name: &str) -> Interface {
    Interface {
        name: name.to_owned(),
        ..Interface::new(index, LinkLayerType::Ether)
    }
}

fn of(kind: InfoKind, index: u32, name: &str) -> Interface {
    Interface {
        kind: Some(kind),
        ..ethernet(index, name)
    }
}

/// Its name, the interface, the others, whether its program is ours, the name of the refusal.
type Row = (
    &'static str,
    Interface,
    Vec<Interface>,
    bool,
    Option<&'static str>,
);

#[test]
fn an_interface_is_admitted_or_refused_for_a_named_reason() {
    use LinkLayerType as Layer;
    let eth0 = || ethernet(2, "eth0");
    let layer = |layer| Interface { layer, ..eth0() };
    let with = |program| Interface {
        program: Some(program),
        ..eth0()
    };
    let port = || Interface {
        master: Some(3),
        ..eth0()
    };
    let above = |kind, program| Interface {
        program,
        carrier: Some(2),
        ..of(kind, 3, "up0")
    };
    let rows: [Row; 26] = [
        ("a device", eth0(), vec![], false, None),
        ("loopback", layer(Layer::Loopback), vec![], false, None),
        (
            "tun, WireGuard",
            layer(Layer::None),
            vec![],
            false,
            Some("not-ethernet"),
        ),
        (
            "PPP",
            layer(Layer::Ppp),
            vec![],
            false,
            Some("not-ethernet"),
        ),
        (
            "ipip",
            layer(Layer::Tunnel),
            vec![],
            false,
            Some("not-ethernet"),
        ),
        (
            "sit",
            layer(Layer::Sit),
            vec![],
            false,
            Some("not-ethernet"),
        ),
        (
            "gre",
            layer(Layer::Ipgre),
            vec![],
            false,
            Some("not-ethernet"),
        ),
        (
            "a modem",
            layer(Layer::Rawip),
            vec![],
            false,
            Some("not-ethernet"),
        ),
        (
            "InfiniBand",
            layer(Layer::Infiniband),
            vec![],
            false,
            Some("not-ethernet"),
        ),
        (
            "monitor",
            layer(Layer::Ieee80211Radiotap),
            vec![],
            false,
            Some("not-ethernet"),
        ),
        (
            "monitor, and ours",
            layer(Layer::Ieee80211Radiotap),
            vec![],
            true,
            Some("not-ethernet"),
        ),
        (
            "vrf",
            of(InfoKind::Vrf, 2, "eth0"),
            vec![],
            false,
            Some("behind-xdp"),
        ),
        (
            "ifb",
            of(InfoKind::Ifb, 2, "eth0"),
            vec![],
            false,
            Some("behind-xdp"),
        ),
        (
            "ipvlan l3s",
            Interface {
                is_behind_xdp: true,
                ..of(InfoKind::IpVlan, 2, "eth0")
            },
            vec![],
            false,
            Some("behind-xdp"),
        ),
        (
            "it carries a switch",
            eth0(),
            vec![above(InfoKind::Dsa, None)],
            false,
            Some("switch"),
        ),
        ("another program", with(7), vec![], false, Some("occupied")),
        ("our program", with(7), vec![], true, None),
        (
            "another program in the hardware",
            Interface {
                offloaded: Some(7),
                ..eth0()
            },
            vec![],
            false,
            Some("occupied"),
        ),
        (
            "another program in the hardware, and ours",
            Interface {
                offloaded: Some(7),
                ..with(8)
            },
            vec![],
            true,
            None,
        ),
        (
            "a port",
            port(),
            vec![of(InfoKind::Bridge, 3, "br0")],
            false,
            None,
        ),
        (
            "a port of one with a program",
            port(),
            vec![Interface {
                program: Some(7),
                ..of(InfoKind::Bridge, 3, "br0")
            }],
            false,
            Some("above"),
        ),
        (
            "ours, and a port of one with a program",
            Interface {
                program: Some(7),
                ..port()
            },
            vec![Interface {
                program: Some(7),
                ..of(InfoKind::Bond, 3, "bond0")
            }],
            true,
            None,
        ),
        (
            "it carries a VLAN",
            eth0(),
            vec![above(InfoKind::Vlan, None)],
            false,
            None,
        ),
        (
            "a VLAN with a program",
            eth0(),
            vec![above(InfoKind::Vlan, Some(7))],
            false,
            Some("above"),
        ),
        (
            "a macvlan with one",
            eth0(),
            vec![above(InfoKind::MacVlan, Some(7))],
            false,
            Some("above"),
        ),
        (
            "a tunnel with one",
            eth0(),
            vec![above(InfoKind::GreTap, Some(7))],
            false,
            None,
        ),
    ];
    for (name, interface, others, is_ours, expected) in rows {
        let all = [vec![interface.clone()], others].concat();
        let refusal = admit(&interface, &all, is_ours).err();
        assert_eq!(
            refusal.as_ref().map(Refusal::name),
            expected,
            "{name}: {refusal:?}"
        );
        if let Some(refusal) = refusal {
            let text = refusal.to_string();
            assert!(
                text.starts_with("eth0 ") && text.contains("; "),
                "{name}: {text}"
            );
        }
    }
}

#[test]
fn an_interface_follows_those_below_it() {
    let bridge = of(InfoKind::Bridge, 5, "br0");
    let vlan = Interface {
        carrier: Some(3),
        master: Some(5),
        ..of(InfoKind::Vlan, 4, "bond0.7")
    };
    let bond = of(InfoKind::Bond, 3, "bond0");
    let slave = Interface {
        master: Some(3),
        ..ethernet(2, "eth0")
    };
    let circle = Interface {
        carrier: Some(6),
        ..of(InfoKind::Vlan, 6, "odd")
    };
    let all = [bridge, vlan, bond, slave, circle];
    let order = in_order(all.iter().collect(), &all);
    let names: Vec<_> = order.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["eth0", "odd", "bond0", "bond0.7", "br0"]);
}
