//! What is remembered of SPA packets: each opens once, whatever happens to the daemon, the
//! configuration and the host in between.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails with the test")]

mod changes;
mod keys;
mod locks;
mod losses;

use std::{fs, path::Path, thread, time::Duration};

use knock_common::Reason;
use knock_sequence::spa::{Channel, DoorId, PrivateKey};
use knock_tests::{
    daemon::{self, Daemon},
    fwknop::{access_at, seal},
    namespace::SPA_MARK,
    net::{self, Family, Net, SERVER_LINK},
    pins,
    server::Server,
    ssh::SSH,
    wait,
};
use knock_user::host::paths::RUN;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use keys::{
    DOORS, KeyedHost, gets_in, is_on_disk, is_refused, lose_pins, packet, reboot_uncleanly, send,
    stamps, start, unix_ns,
};

const WEB: u16 = 80;

#[test]
fn a_packet_opens_once_whatever_happens_to_daemon_and_configuration() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = KeyedHost::new();
        let channel = keys.channel();
        let config = keys.config("alice", &keys.text());
        let mut daemon = start(net, &config);
        type Between<'a> = &'a dyn Fn(&Net, Daemon) -> Daemon;
        let restarts = |net: &Net, daemon: Daemon| {
            daemon.kill();
            start(net, &config)
        };
        let stops = |net: &Net, daemon: Daemon| {
            daemon.stop();
            start(net, &config)
        };
        let detaches = |net: &Net, daemon: Daemon| {
            daemon::detach(&net.server);
            let ended = daemon.wait();
            assert!(ended.status.success(), "{ended:?}");
            start(net, &config)
        };
        let killed_and_detached = |net: &Net, daemon: Daemon| {
            daemon.kill();
            daemon::detach(&net.server);
            start(net, &config)
        };
        let reloads = |_: &Net, mut daemon: Daemon| {
            daemon.reload(&config.replace("10s", "9s"));
            daemon.reload(&config);
            daemon
        };
        let renames_the_user = |_: &Net, mut daemon: Daemon| {
            daemon.reload(&keys.config("carol", &keys.text()));
            daemon
        };
        let removes_the_key = |_: &Net, mut daemon: Daemon| {
            let other = PrivateKey::generate().unwrap();
            daemon.reload(&keys.config("alice", &format!("\"{}\"", other.public())));
            daemon.reload(&config);
            daemon
        };
        let removes_all_users = |_: &Net, mut daemon: Daemon| {
            let (_, doors) = DOORS.split_at(DOORS.rfind("[[door]]").unwrap());
            daemon.reload(doors);
            daemon.reload(&config);
            daemon
        };
        let rows: [(&str, Between<'_>); 9] = [
            ("nothing", &|_, daemon| daemon),
            ("kill -9 and a start", &restarts),
            ("an orderly end and a start", &stops),
            ("detach and a start", &detaches),
            ("kill -9, detach and a start", &killed_and_detached),
            ("a reload", &reloads),
            ("a renamed user", &renames_the_user),
            ("a removed key that comes back", &removes_the_key),
            ("no users for a while", &removes_all_users),
        ];
        for (row, between) in rows {
            let used = gets_in(net, &channel, row);
            daemon = between(net, daemon);
            is_refused(net, &used, row);
            gets_in(net, &channel, row);
        }
        daemon.stop();
    });
}

#[test]
fn a_packet_that_was_used_while_no_daemon_runs_opens_once() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = KeyedHost::new();
        let channel = keys.channel();
        let config = keys.config("alice", &keys.text());
        start(net, &config).kill();
        let used = gets_in(net, &channel, "without a daemon");
        is_refused(net, &used, "without a daemon");
        let daemon = start(net, &config);
        is_refused(net, &used, "after the start");
        daemon.stop();
    });
}

/// After an orderly end, the file has all stamps, so packets are accepted at once after a reboot.
#[test]
fn stamps_outlive_a_reboot_after_an_orderly_end() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = KeyedHost::new();
        let channel = keys.channel();
        let config = keys.config("alice", &keys.text());
        let daemon = start(net, &config);
        let used = gets_in(net, &channel, "before");
        daemon.stop();
        lose_pins();
        let daemon = start(net, &config);
        is_refused(net, &used, "afterwards");
        gets_in(net, &channel, "afterwards");
        let ended = daemon.stop();
        assert!(!ended.stderr.contains("users get in"), "{}", ended.stderr);
    });
}

/// Removing both the pins and the record of what was used does not make used packets new: no source gets in for
/// the length of the window, and this is reported.
#[test]
fn a_used_packet_stays_used_after_its_record_is_lost() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = KeyedHost::new();
        let channel = keys.channel();
        let config = keys.config("alice", &keys.text());
        let file = stamps(&net.server);
        let directory = file.parent().unwrap();
        let lock = file.with_extension("lock");
        let mark = Path::new(SPA_MARK);
        type Lose<'a> = &'a dyn Fn();
        let remove = |paths: &[&Path]| paths.iter().for_each(|path| fs::remove_file(path).unwrap());
        let rows: [(&str, Lose<'_>); 8] = [
            ("the file", &|| remove(&[&file])),
            ("the content of the file", &|| fs::write(&file, "").unwrap()),
            ("garbage", &|| fs::write(&file, "{\"open\": [").unwrap()),
            ("its directory", &|| fs::remove_dir_all(directory).unwrap()),
            ("file and mark", &|| remove(&[&file, mark])),
            ("file and lock", &|| remove(&[&file, &lock])),
            ("the mark is garbage", &|| {
                remove(&[&file, &lock]);
                fs::write(mark, "garbage").unwrap();
            }),
            ("an old file", &|| {
                let text = fs::read_to_string(&file).unwrap();
                let mut state: Value = serde_json::from_str(&text).unwrap();
                state["keys"] = json!({});
                state["open"] = json!({"b0@1": "another boot"});
                fs::write(&file, state.to_string()).unwrap();
            }),
        ];
        for (row, lose) in rows {
            for is_killed in [false, true] {
                let row = format!("{row}, killed: {is_killed}");
                let daemon = start(net, &config);
                let used = gets_in(net, &channel, &row);
                match is_killed {
                    true => {
                        daemon.kill();
                        daemon::detach(&net.server);
                    }
                    false => _ = daemon.stop(),
                }
                lose_pins();
                lose();
                let daemon = start(net, &config);
                is_refused(net, &used, &row);
                let ended = daemon.stop();
                let warned = ended.stderr.contains("users get in with SPA packets in");
                assert!(warned, "{row}: {}", ended.stderr);
                // As on a host on which nobody has used anything yet.
                lose_pins();
                let _removed = fs::remove_file(mark);
                net.server.forget_used();
                net.server.state();
            }
        }
    });
}

/// The killed daemon wrote only what was used until then.
#[test]
fn detach_records_what_was_used_without_a_daemon() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = KeyedHost::new();
        let channel = keys.channel();
        let config = keys.config("alice", &keys.text());
        start(net, &config).kill();
        let used = gets_in(net, &channel, "without a daemon");
        daemon::detach(&net.server);
        lose_pins();
        let daemon = start(net, &config);
        is_refused(net, &used, "after a reboot");
        gets_in(net, &channel, "after a reboot");
        let ended = daemon.stop();
        assert!(!ended.stderr.contains("users get in"), "{}", ended.stderr);
    });
}

/// A file in another directory has what a process used that could not write to the first one.
#[test]
fn stamps_recorded_by_another_process_stay_used() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = KeyedHost::new();
        let channel = keys.channel();
        let config = keys.config("alice", &keys.text());
        let daemon = start(net, &config);
        let used = gets_in(net, &channel, "before");
        daemon.stop();
        lose_pins();
        let path = stamps(&net.server);
        let elsewhere = Path::new(RUN).join(path.file_name().unwrap());
        fs::copy(&path, &elsewhere).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let mut state: Value = serde_json::from_str(&text).unwrap();
        state["keys"] = json!({});
        fs::write(&path, state.to_string()).unwrap();
        let daemon = start(net, &config);
        is_refused(net, &used, "afterwards");
        gets_in(net, &channel, "afterwards");
        assert!(!elsewhere.exists(), "it was not merged");
        daemon.stop();
    });
}

/// Where stamps were lost, packets made before the loss or within the window open nothing, and this
/// is reported once.
#[test]
fn no_packet_opens_for_the_window_after_an_unclean_end() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = KeyedHost::new();
        let channel = keys.channel();
        let config = keys.config("alice", &keys.text());
        let daemon = start(net, &config);
        let used = gets_in(net, &channel, "before");
        daemon.kill();
        reboot_uncleanly(&net.server);
        // The file as an earlier boot left it, without the stamps that were used in its last second.
        let path = stamps(&net.server);
        let text = fs::read_to_string(&path).unwrap();
        let mut state: Value = serde_json::from_str(&text).unwrap();
        state["keys"] = json!({});
        fs::write(&path, state.to_string()).unwrap();

        let lost = unix_ns();
        let mut daemon = start(net, &config);
        is_refused(net, &used, "after the loss");
        daemon.reload(&config.replace("\"alice\"", "\"carol\""));
        is_refused(net, &used, "after a reload");
        // A new packet is refused until the window has passed.
        let source = net.new_source(Family::V4);
        let opened = json!({"event": "opened", "source": source.name()});
        wait::until("a new packet opens the door", || {
            send(&source, &packet(&channel, DoorId::FIRST));
            thread::sleep(Duration::from_millis(100));
            !daemon.events_like(&opened).is_empty()
        });
        assert!(unix_ns() - lost >= 10_000_000_000, "it opened at once");
        is_refused(net, &used, "after the window");
        let ended = daemon.stop();
        let reports = ended
            .stderr
            .matches("users get in with SPA packets in")
            .count();
        assert_eq!(reports, 1, "{}", ended.stderr);
    });
}

#[test]
fn a_used_stamp_is_on_the_disk_within_seconds() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = KeyedHost::new();
        let daemon = start(net, &keys.config("alice", &keys.text()));
        gets_in(net, &keys.channel(), "a packet");
        is_on_disk(net, &keys);
        daemon.kill();
        is_on_disk(net, &keys);
        daemon::detach(&net.server);
    });
}

#[test]
fn keys_are_replaced_one_after_the_other() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = KeyedHost::new();
        let new = PrivateKey::generate().unwrap();
        let both = format!("{}, \"{}\"", keys.text(), new.public());
        let mut daemon = start(net, &keys.config("alice", &both));
        let [old_key, new_key] =
            [&keys.client, &new].map(|key| Channel::new(key, keys.host.public()).unwrap());
        gets_in(net, &old_key, "the old key beside the new one");
        gets_in(net, &new_key, "the new key beside the old one");
        daemon.reload(&keys.config("alice", &format!("\"{}\"", new.public())));
        let source = net.new_source(Family::V4);
        send(&source, &packet(&old_key, DoorId::FIRST));
        daemon.wait_for_event(&json!({"reason": "spa-unknown", "source": source.name()}));
        source.finds_closed(SSH, "the old key was removed");
        gets_in(net, &new_key, "the new key alone");

        // The host's key is replaced in the same way.
        let host = PrivateKey::generate().unwrap();
        keys.write("old.key", &keys.host);
        keys.write("host.key", &host);
        let one = format!("\"{}\"", new.public());
        let config = keys.config("alice", &one);
        let old_line = format!("old_key = {:?}\n", keys.path("old.key"));
        let overlap = config.replacen("[spa]\n", &format!("[spa]\n{old_line}"), 1);
        daemon.reload(&overlap);
        let new_host = Channel::new(&new, host.public()).unwrap();
        let used = gets_in(net, &new_key, "the old host key");
        gets_in(net, &new_host, "the new host key");
        is_refused(net, &used, "used under the old host key");
        daemon.reload(&config);
        is_refused(
            net,
            &packet(&new_key, DoorId::FIRST),
            "without the old host key",
        );
        gets_in(net, &new_host, "the new host key alone");
        daemon.stop();
    });
}

#[test]
fn a_key_expires_while_no_daemon_runs() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = KeyedHost::new();
        let channel = keys.channel();
        let now_s = || unix_ns() / 1_000_000_000;
        let mut end_s = 0;
        // A busy machine takes longer to start.
        for seconds in [6, 30, 90] {
            end_s = now_s() + seconds;
            let end = jiff::Timestamp::from_second(i64::try_from(end_s).unwrap()).unwrap();
            let key = format!("{{ key = {}, until = {end} }}", keys.text());
            start(net, &keys.config("alice", &key)).kill();
            if now_s() + 4 <= end_s {
                break;
            }
            daemon::detach(&net.server);
        }
        gets_in(net, &channel, "before the end");
        wait::until("the key expires", || now_s() > end_s);
        is_refused(net, &packet(&channel, DoorId::FIRST), "after the end");
        let instance = pins::instances(&net.server).remove(0);
        assert!(pins::counted(&instance, Reason::SpaExpired) > 0);
        daemon::detach(&net.server);
    });
}

#[test]
fn a_door_is_opened_by_knocks_and_by_users() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[WEB]);
        let keys = KeyedHost::new();
        let daemon = start(net, &keys.config("alice", &keys.text()));
        for family in Family::ALL {
            let [knocks, user] = [(); 2].map(|()| net.new_source(family));
            knocks.knock("tcp/7000 udp/8000 tcp/6000");
            drop(knocks.finds_open(WEB, "knocks"));
            send(&user, &packet(&keys.channel(), DoorId::of_name("web")));
            drop(user.finds_open(WEB, "a packet"));
            let by_user =
                json!({"event": "opened", "source": user.name(), "door": "web", "user": "alice"});
            daemon.wait_for_event(&by_user);
            let by_knocks =
                daemon.events_like(&json!({"event": "opened", "source": knocks.name()}));
            assert_eq!(by_knocks.len(), 1);
            assert_eq!(by_knocks[0].get("user"), None, "{by_knocks:?}");
        }
        daemon.stop();
    });
}

#[test]
fn users_are_listed_with_the_last_use_of_their_keys() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let keys = KeyedHost::new();
        let other = PrivateKey::generate().unwrap();
        let both = format!(
            "{}, {{ key = \"{}\", until = 2020-01-31, note = \"old phone\" }}",
            keys.text(),
            other.public()
        );
        let daemon = start(net, &keys.config("alice", &both));
        gets_in(net, &keys.channel(), "a packet");
        let listed = || {
            let (code, answer) = daemon::ask(&net.server, &["users", "--json"]);
            assert_eq!(code, Some(0), "{answer}");
            serde_json::from_str::<Value>(&answer).unwrap()
        };
        let check = |listed: &Value, row: &str| {
            let user = &listed["users"][0];
            assert_eq!(user["name"], "alice", "{row}");
            assert_eq!(user["doors"], json!(["ssh", "web"]), "{row}");
            let [used, expired] = [0, 1].map(|place| &user["keys"][place]);
            assert!(used["used"].is_string(), "{row}: {used}");
            assert_eq!(used["expired"], false, "{row}");
            assert_eq!(expired["used"], Value::Null, "{row}");
            assert_eq!(expired["expired"], true, "{row}");
            assert_eq!(expired["note"], "old phone", "{row}");
        };
        check(&listed(), "by the daemon");
        is_on_disk(net, &keys);
        daemon.kill();
        check(&listed(), "without a daemon");
        daemon::detach(&net.server);
    });
}

#[test]
fn two_instances_share_the_used_stamps() {
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        net.add_second_link();
        let keys = KeyedHost::new();
        let config = keys.config("alice", &keys.text());
        let first = start(net, &config);
        let second = Daemon::start_with(&net.server, &config, &["--iface", net::SERVER_LINK_2]);
        let used = gets_in(net, &keys.channel(), SERVER_LINK);
        let other = net.new_source(Family::V4).to(Family::V4.second_server());
        send(&other, &used);
        let replayed = json!({"reason": "spa-replayed", "source": other.name()});
        second.wait_for_event(&replayed);
        other.finds_closed(SSH, "on the other interface");
        for daemon in [first, second] {
            daemon.leave(Signal::SIGTERM);
        }
    });
}

/// The same for packets of fwknop, which have no stamps.
#[test]
fn a_packet_of_fwknop_opens_once_whatever_happens() {
    const PASSPHRASE: &str = "0123456789abcdefghijklmnopqrstuv";
    const HMAC_KEY: &str = "an HMAC key";
    net::test(|net| {
        let _server = Server::tcp(&net.server, &[SSH]);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("bob.fwknop");
        fs::write(&file, format!("KEY {PASSPHRASE}\nHMAC_KEY {HMAC_KEY}\n")).unwrap();
        let config =
            format!("[[user]]\nname = \"bob\"\nfwknop = {file:?}\ndoors = [\"ssh\"]\n{DOORS}");
        let mut salt = [7; 8];
        let mut opens = |net: &Net, row: &str| {
            salt[0] += 1;
            let text = access_at("bob", unix_ns() / 1_000_000_000, "0.0.0.0,tcp/22");
            let packet = seal(
                PASSPHRASE.as_bytes(),
                HMAC_KEY.as_bytes(),
                salt,
                text.as_bytes(),
            );
            let source = net.new_source(Family::V4);
            send(&source, packet.as_bytes());
            drop(source.finds_open(SSH, row));
            packet
        };
        let mut daemon = start(net, &config);
        let rows: [(&str, &dyn Fn(Daemon) -> Daemon); 5] = [
            ("nothing", &|daemon| daemon),
            ("kill -9 and a start", &|daemon| {
                daemon.kill();
                start(net, &config)
            }),
            ("an orderly end and a start", &|daemon| {
                daemon.stop();
                start(net, &config)
            }),
            ("a renamed user", &|mut daemon| {
                daemon.reload(&config.replace("\"bob\"", "\"carol\""));
                daemon
            }),
            ("an orderly end and a reboot", &|daemon| {
                daemon.stop();
                lose_pins();
                start(net, &config)
            }),
        ];
        for (row, between) in rows {
            let used = opens(net, row);
            daemon = between(daemon);
            let source = net.new_source(Family::V4);
            send(&source, used.as_bytes());
            daemon.wait_for_event(&json!({"reason": "spa-replayed", "source": source.name()}));
            source.finds_closed(SSH, row);
            opens(net, row);
        }
        daemon.kill();
        reboot_uncleanly(&net.server);
        let daemon = start(net, &config);
        let source = net.new_source(Family::V4);
        let text = access_at("bob", unix_ns() / 1_000_000_000, "0.0.0.0,tcp/22");
        let packet = seal(
            PASSPHRASE.as_bytes(),
            HMAC_KEY.as_bytes(),
            [1; 8],
            text.as_bytes(),
        );
        send(&source, packet.as_bytes());
        source.finds_closed(SSH, "an unclean end");
        let ended = daemon.stop();
        assert!(
            ended.stderr.contains("users of fwknop get in in"),
            "{}",
            ended.stderr
        );
    });
}
