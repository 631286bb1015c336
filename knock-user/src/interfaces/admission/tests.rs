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
const NATIVE: &str = "native tc skb";
const VETH: &str = "tc skb";
const BARE: &str = "tc skb";
/// The cure of a mode that is configured and not possible beside another program.
const BESIDE_IT: &str = "or take `mode = \"auto\"` or `mode = \"tc\"`, which runs beside it";
/// The one that is left beside an XDP program of another owner.
const BESIDE: &str = "tc";

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
            "another program in the driver",
            Interface {
                native: true,
                ..with(7)
            },
            vec![],
            Mode::Auto,
            None,
            Ok(BESIDE),
        ),
        (
            "another program without Ethernet",
            Interface {
                program: Some(7),
                ..layer(Layer::None)
            },
            vec![],
            Mode::Auto,
            None,
            Ok(BESIDE),
        ),
        (
            "ours at traffic control, and another program",
            Interface {
                native: true,
                ..with(7)
            },
            vec![],
            Mode::Auto,
            Some(AttachMode::Tc),
            Ok(BESIDE),
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
            Ok(BESIDE),
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
            Ok(BESIDE),
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
            Ok(BESIDE),
        ),
        (
            "a macvlan with one",
            eth0(),
            vec![above(InfoKind::MacVlan, Some(7))],
            Mode::Auto,
            None,
            Ok(BESIDE),
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
    for row in rows {
        assert_admitted(row, true);
    }
}

/// Both would judge each packet, at whichever hooks they run.
#[test]
fn the_program_of_another_knock_user_is_refused_in_each_mode() {
    // No kernel hands out such high ids in a test.
    const XDP: u32 = u32::MAX;
    const TC: u32 = u32::MAX - 1;
    const FOREIGN: u32 = u32::MAX - 2;
    SEEN.get_or_init(|| {
        let names = [(XDP, Entry::Xdp.name()), (TC, Entry::Tc.name())];
        names.map(|(id, name)| (id, name.to_owned())).into()
    });
    let eth0 = || ethernet(2, "eth0");
    let with = |program, native| Interface {
        program: Some(program),
        native,
        ..eth0()
    };
    let offloaded = Interface {
        offloaded: Some(FOREIGN),
        ..with(XDP, true)
    };
    let rows: [(_, _, &[u32], _); 7] = [
        ("at tc", eth0(), &[TC], Some("tc")),
        (
            "at tc, behind a foreign one",
            eth0(),
            &[FOREIGN, TC],
            Some("tc"),
        ),
        ("in the driver", with(XDP, true), &[], Some("native")),
        ("behind the driver", with(XDP, false), &[], Some("skb")),
        (
            "in the driver, and one in the hardware",
            offloaded,
            &[],
            Some("native"),
        ),
        ("a foreign one at tc", eth0(), &[FOREIGN], None),
        ("none", eth0(), &[], None),
    ];
    for (name, interface, at_tc, expected) in rows {
        let link = 0;
        let place = |&program: &u32| Placed { program, link };
        let at_tc: Vec<_> = at_tc.iter().map(place).collect();
        for mode in [Mode::Auto, Mode::Native, Mode::Skb, Mode::Tc] {
            let admitted = admit_on(&interface, &[], mode, None, Some(&at_tc));
            let found = match &admitted {
                Err(Refusal::Hidden { place, .. }) => Some(*place),
                Ok(_) | Err(_) => None,
            };
            assert_eq!(found, expected, "{name}, {mode:?}: {admitted:?}");
            assert_eq!(
                admitted.is_err(),
                expected.is_some(),
                "{name}, {mode:?}: {admitted:?}"
            );
            // Where the pins are, it is ours.
            let ours = Some(AttachMode::Tc);
            let found = admit_on(&interface, &[], mode, ours, Some(&at_tc));
            assert!(found.is_ok(), "{name}, {mode:?}: {found:?}");
        }
    }
}

/// Before Linux 6.6 the program runs at XDP only.
#[test]
fn without_tcx_auto_takes_xdp() {
    let eth0 = || ethernet(2, "eth0");
    let tun = Interface {
        layer: LinkLayerType::None,
        ..eth0()
    };
    let occupied = Interface {
        program: Some(7),
        native: true,
        ..eth0()
    };
    let above = Interface {
        program: Some(7),
        carrier: Some(2),
        ..of(InfoKind::Vlan, 3, "up0")
    };
    let veth = of(InfoKind::Veth, 2, "eth0");
    let rows: [(_, _, _, Result<&str, &str>); 5] = [
        ("a device", eth0(), vec![], Ok("native skb")),
        ("veth", veth, vec![], Ok("skb")),
        ("tun", tun, vec![], Ok("skb")),
        ("another program", occupied, vec![], Err("occupied")),
        ("a VLAN with a program", eth0(), vec![above], Err("above")),
    ];
    for (name, interface, others, expected) in rows {
        let row = (name, interface, others, Mode::Auto, None, expected);
        assert_admitted(row, false);
    }
}

/// A cure names a mode only where it helps.
#[test]
fn the_cure_names_tc_where_it_runs_beside_another_program() {
    let eth0 = || ethernet(2, "eth0");
    let with = |native| Interface {
        program: Some(u32::MAX - 3),
        native,
        ..eth0()
    };
    let offloaded = Interface {
        offloaded: Some(u32::MAX - 3),
        ..eth0()
    };
    let above = Interface {
        carrier: Some(2),
        program: Some(u32::MAX - 3),
        ..of(InfoKind::Vlan, 3, "up0")
    };
    for (name, interface, others, expected) in [
        ("in the driver", with(true), vec![], true),
        ("behind the driver", with(false), vec![], false),
        ("in the hardware", offloaded, vec![], true),
        ("above it", eth0(), vec![above], true),
    ] {
        let all = [vec![interface.clone()], others].concat();
        for mode in [Mode::Native, Mode::Skb] {
            let refusal = admit_on(&interface, &all, mode, None, Some(&[])).unwrap_err();
            let cure = refusal.cure();
            assert_eq!(cure.contains(BESIDE_IT), expected, "{name}: {cure}");
            let at_tc = admit_on(&interface, &all, Mode::Tc, None, Some(&[]));
            assert_eq!(at_tc.is_ok(), expected, "{name}: {at_tc:?}");
        }
    }
    let tun = Interface {
        layer: LinkLayerType::None,
        ..eth0()
    };
    let refusal = admit_on(&tun, &[], Mode::Native, None, Some(&[])).unwrap_err();
    let cure =
        "take `mode = \"auto\"`, or `mode = \"tc\"` (Linux 6.6 and later), or `mode = \"skb\"`";
    assert_eq!(refusal.cure(), cure);
}

#[test]
fn the_choice_of_auto_has_a_reason() {
    let eth0 = || ethernet(2, "eth0");
    let tun = Interface {
        layer: LinkLayerType::None,
        ..eth0()
    };
    let beside = Interface {
        program: Some(7),
        native: true,
        ..eth0()
    };
    for (name, interface, because) in [
        ("a device", eth0(), None),
        (
            "veth",
            of(InfoKind::Veth, 2, "eth0"),
            Some("native XDP on veth "),
        ),
        ("tun", tun, Some("it has no Ethernet frames")),
        (
            "another program",
            beside,
            Some("it has another XDP program: id 7 (native)"),
        ),
    ] {
        let all = [interface.clone()];
        let ways = admit_on(&interface, &all, Mode::Auto, None, Some(&[])).unwrap();
        let found = ways.list[0].because.clone();
        let is_right = match (&found, because) {
            (Some(found), Some(because)) => found.starts_with(because),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        assert!(is_right, "{name}: {found:?}");
    }
}

/// Compares a row with the decision on a kernel with or without links at traffic control.
#[track_caller]
fn assert_admitted((name, interface, others, mode, ours, expected): Row, has_tcx: bool) {
    let all = [vec![interface.clone()], others].concat();
    let found = admit_on(&interface, &all, mode, ours, has_tcx.then_some(&[]));
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
