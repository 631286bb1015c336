//! The link over which frames are sent and received.

use anyhow::{Context as _, Result};
use knock_tests::net::{CLIENT_LINK, Net, SERVER_LINK};

use crate::{generator::process_named, timing};

/// The CPU of the server: its interrupts and daemons.
pub const SERVER_CPU: usize = 1;

/// Makes a network whose link has one queue, which the server reads in batches (NAPI) with any
/// receiver.
pub fn one_queue() -> Net {
    let net = Net::new();
    net.server.run("ethtool", &["-K", SERVER_LINK, "gro", "on"]);
    for (namespace, link) in [(&net.server, SERVER_LINK), (&net.client, CLIENT_LINK)] {
        namespace.run("ethtool", &["-L", link, "rx", "1", "tx", "1"]);
    }
    // Answers to spoofed sources have somewhere to go.
    net.server.ip("route add 10.0.0.0/8 via 192.0.2.1");
    net
}

/// Lets a thread on [`SERVER_CPU`] read the server's link, as another host would.
///
/// Returns the id of the thread.
pub fn receive_on_one_cpu(net: &Net) -> Result<i32> {
    // `ip netns exec` has the /sys of the namespace.
    let set = format!("echo 1 > /sys/class/net/{SERVER_LINK}/threaded");
    let name = net.server.name();
    net.server
        .run("ip", &["netns", "exec", name, "sh", "-c", &set]);
    let thread = format!("napi/{SERVER_LINK}-");
    let id = process_named(&thread).with_context(|| format!("there is no thread {thread}*"))?;
    timing::pin_thread(id, SERVER_CPU)?;
    // Interrupts don't wait for programs.
    timing::go_first(id)?;
    Ok(id)
}
