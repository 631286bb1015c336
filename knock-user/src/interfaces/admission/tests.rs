use netlink_packet_route::link::LinkLayerType;

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

/// The ways of `auto`.
const NATIVE: &str = "native skb";
const VETH: &str = "skb";
const BARE: &str = "skb";

/// Its name, the interface, the others, the configured mode, the place of our program, and the ways or
/// the name of the refusal.
type Row = (
    &'static str,
    Interface,
    Vec<Interface>,
    Mode,
    Option<AttachMode>,
    Result<&'static str, &'static str>,
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
    let rows: Vec<Row> = vec![
        ("a device", eth0(), vec![], Mode::Auto, None, Ok(NATIVE)),
        (
            "loopback",
            layer(Layer::Loopback),
            vec![],
            Mode::Auto,
            None,
            Ok(NATIVE),
        ),
        (
            "tun, WireGuard",
            layer(Layer::None),
            vec![],
            Mode::Auto,
            None,
            Ok(BARE),
        ),
        ("PPP", layer(Layer::Ppp), vec![], Mode::Auto, None, Ok(BARE)),
        (
            "ipip",
            layer(Layer::Tunnel),
            vec![],
            Mode::Auto,
            None,
            Ok(BARE),
        ),
        (
            "ip6tnl",
            layer(Layer::Tunnel6),
            vec![],
            Mode::Auto,
            None,
            Ok(BARE),
        ),
        ("sit", layer(Layer::Sit), vec![], Mode::Auto, None, Ok(BARE)),
        (
            "gre",
            layer(Layer::Ipgre),
            vec![],
            Mode::Auto,
            None,
            Ok(BARE),
        ),
        (
            "ip6gre",
            layer(Layer::Ip6gre),
            vec![],
            Mode::Auto,
            None,
            Ok(BARE),
        ),
        (
            "a modem",
            layer(Layer::Rawip),
            vec![],
            Mode::Auto,
            None,
            Ok(BARE),
        ),
        (
            "tun in the driver",
            layer(Layer::None),
            vec![],
            Mode::Native,
            None,
            Err("not-ethernet"),
        ),
        (
            "tun behind the driver",
            layer(Layer::None),
            vec![],
            Mode::Skb,
            None,
            Ok("skb"),
        ),
        (
            "tun at traffic control",
            layer(Layer::None),
            vec![],
            Mode::Tc,
            None,
            Ok("tc"),
        ),
        (
            "InfiniBand",
            layer(Layer::Infiniband),
            vec![],
            Mode::Auto,
            None,
            Err("not-ethernet"),
        ),
        (
            "monitor",
            layer(Layer::Ieee80211Radiotap),
            vec![],
            Mode::Auto,
            None,
            Err("not-ethernet"),
        ),
        (
            "CAN",
            layer(Layer::Can),
            vec![],
            Mode::Auto,
            None,
            Err("not-ethernet"),
        ),
        (
            "no packets at all",
            layer(Layer::Void),
            vec![],
            Mode::Auto,
            None,
            Err("not-ethernet"),
        ),
        (
            "monitor at traffic control",
            layer(Layer::Ieee80211Radiotap),
            vec![],
            Mode::Tc,
            None,
            Err("not-ethernet"),
        ),
        (
            "monitor, and ours",
            layer(Layer::Ieee80211Radiotap),
            vec![],
            Mode::Auto,
            Some(AttachMode::Native),
            Err("not-ethernet"),
        ),
        (
            "veth",
            of(InfoKind::Veth, 2, "eth0"),
            vec![],
            Mode::Auto,
            None,
            Ok(VETH),
        ),
        (
            "veth in the driver",
            of(InfoKind::Veth, 2, "eth0"),
            vec![],
            Mode::Native,
            None,
            Ok("native"),
        ),
        (
            "another program, in the driver",
            with(7),
            vec![],
            Mode::Native,
            None,
            Err("occupied"),
        ),
        (
            "another program, behind the driver",
            with(7),
            vec![],
            Mode::Skb,
            None,
            Err("occupied"),
        ),
        (
            "another program in the driver, at traffic control",
            Interface {
                native: true,
                ..with(7)
            },
            vec![],
            Mode::Tc,
            None,
            Ok("tc"),
        ),
        (
            "another program behind the driver, at traffic control",
            with(7),
            vec![],
            Mode::Tc,
            None,
            Err("occupied"),
        ),
        (
            "another program without Ethernet, at traffic control",
            Interface {
                program: Some(7),
                ..layer(Layer::None)
            },
            vec![],
            Mode::Tc,
            None,
            Ok("tc"),
        ),
        (
            "vrf at traffic control",
            of(InfoKind::Vrf, 2, "eth0"),
            vec![],
            Mode::Tc,
            None,
            Err("behind-xdp"),
        ),
        (
            "it carries a switch, at traffic control",
            eth0(),
            vec![above(InfoKind::Dsa, None)],
            Mode::Tc,
            None,
            Err("switch"),
        ),
        (
            "a port of one with a program, at traffic control",
            port(),
            vec![Interface {
                program: Some(7),
                ..of(InfoKind::Bridge, 3, "br0")
            }],
            Mode::Tc,
            None,
            Ok("tc"),
        ),
        (
            "vrf",
            of(InfoKind::Vrf, 2, "eth0"),
            vec![],
            Mode::Auto,
            None,
            Err("behind-xdp"),
        ),
        (
            "ifb",
            of(InfoKind::Ifb, 2, "eth0"),
            vec![],
            Mode::Auto,
            None,
            Err("behind-xdp"),
        ),
        (
            "ipvlan l3s",
            Interface {
                is_behind_xdp: true,
                ..of(InfoKind::IpVlan, 2, "eth0")
            },
            vec![],
            Mode::Auto,
            None,
            Err("behind-xdp"),
        ),
        (
            "it carries a switch",
            eth0(),
            vec![above(InfoKind::Dsa, None)],
            Mode::Auto,
            None,
            Err("switch"),
        ),
        (
            "another program",
            with(7),
            vec![],
            Mode::Auto,
            None,
            Err("occupied"),
        ),
        (
            "our program",
            with(7),
            vec![],
            Mode::Auto,
            Some(AttachMode::Native),
            Ok(NATIVE),
        ),
        (
            "another program in the hardware",
            Interface {
                offloaded: Some(7),
                ..eth0()
            },
            vec![],
            Mode::Auto,
            None,
            Err("occupied"),
        ),
        (
            "another program in the hardware, and ours",
            Interface {
                offloaded: Some(7),
                ..with(8)
            },
            vec![],
            Mode::Auto,
            Some(AttachMode::Native),
            Ok(NATIVE),
        ),
        (
            "a port",
            port(),
            vec![of(InfoKind::Bridge, 3, "br0")],
            Mode::Auto,
            None,
            Ok(NATIVE),
        ),
        (
            "a port of one with a program",
            port(),
            vec![Interface {
                program: Some(7),
                ..of(InfoKind::Bridge, 3, "br0")
            }],
            Mode::Auto,
            None,
            Err("above"),
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
            Mode::Auto,
            Some(AttachMode::Native),
            Ok(NATIVE),
        ),
        (
            "it carries a VLAN",
            eth0(),
            vec![above(InfoKind::Vlan, None)],
            Mode::Auto,
            None,
            Ok(NATIVE),
        ),
        (
            "a VLAN with a program",
            eth0(),
            vec![above(InfoKind::Vlan, Some(7))],
            Mode::Auto,
            None,
            Err("above"),
        ),
        (
            "a macvlan with one",
            eth0(),
            vec![above(InfoKind::MacVlan, Some(7))],
            Mode::Auto,
            None,
            Err("above"),
        ),
        (
            "a tunnel with one",
            eth0(),
            vec![above(InfoKind::GreTap, Some(7))],
            Mode::Auto,
            None,
            Ok(NATIVE),
        ),
    ];
    for (name, interface, others, mode, ours, expected) in rows {
        let all = [vec![interface.clone()], others].concat();
        let found = admit(&interface, &all, mode, ours);
        let words = match &found {
            Ok(ways) => {
                let modes = ways.list.iter().map(|way| way.mode.name());
                Ok(modes.collect::<Vec<_>>().join(" "))
            }
            Err(refusal) => Err(refusal.name()),
        };
        assert_eq!(words, expected.map(str::to_owned), "{name}: {found:?}");
        if let Err(refusal) = found {
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
