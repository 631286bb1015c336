use std::net::Ipv4Addr;

use tokio::time::sleep;

use super::*;
use crate::host::listener;

const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Longer than any step of these tests takes.
const LONG: Duration = Duration::from_secs(60);

fn lines(doors: &[(&str, Option<u32>)]) -> BTreeMap<String, Option<u32>> {
    doors
        .iter()
        .map(|(name, line)| ((*name).to_owned(), *line))
        .collect()
}

/// Starts a server on a free port.
fn start(doors: &[(&str, Option<u32>)]) -> (NextLineServer, SocketAddr) {
    let listener = listener::listen(HERE).unwrap();
    let at = listener.local_addr().unwrap();
    let server = NextLineServer::default();
    server.set_lines(lines(doors));
    let serving = tokio::spawn(serve(listener, Arc::clone(&server.lines)));
    let server = NextLineServer {
        lines: server.lines,
        listening: Listening::serving(at, serving),
    };
    (server, at)
}

/// Returns all that a client receives after this request. A reset ends the reply, too.
async fn request(at: SocketAddr, question: &[u8]) -> String {
    let asking = async {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let _gone = stream.write_all(question).await;
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    timeout(LONG, asking).await.unwrap()
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(test);
}

/// Name, doors, question, answer.
type Row<'a> = (&'a str, &'a [(&'a str, Option<u32>)], &'a [u8], &'a str);

#[test]
fn only_the_name_of_a_door_is_answered() {
    let one: &[(&str, Option<u32>)] = &[("ssh", Some(12))];
    let two: &[(&str, Option<u32>)] = &[("ssh", Some(12)), ("web", Some(3)), ("old", None)];
    let long = [b'a'; 1 << 16];
    let rows: [Row<'_>; 11] = [
        ("a door", two, b"ssh\n", "12\n"),
        ("another", two, b"web\n", "3\n"),
        ("its file is used up", two, b"old\n", ""),
        ("no such door", two, b"nobody\n", ""),
        ("no name, several doors", two, b"\n", ""),
        ("no name, one door", one, b"\n", "12\n"),
        ("no name, no door", &[], b"\n", ""),
        ("more than a name", one, b"ssh\nssh\n", "12\n"),
        ("not a text", one, b"\xff\n", ""),
        ("Windows", one, b"ssh\r\n", ""),
        ("without an end", one, &long, ""),
    ];
    run(async {
        for (name, doors, question, answer) in rows {
            let (_server, at) = start(doors);
            assert_eq!(request(at, question).await, answer, "{name}");
        }
    });
}

#[test]
fn the_reply_follows_the_file() {
    run(async {
        let (server, at) = start(&[("ssh", Some(1))]);
        assert_eq!(request(at, b"ssh\n").await, "1\n");
        server.set_lines(lines(&[("ssh", Some(2))]));
        assert_eq!(request(at, b"ssh\n").await, "2\n");
    });
}

/// Silent clients occupy their connections only until the time limit.
#[test]
fn silent_clients_are_disconnected() {
    run(async {
        let (_server, at) = start(&[("ssh", Some(1))]);
        let mut silent = Vec::new();
        for _ in 0..OF_A_SOURCE_MAX {
            silent.push(TcpStream::connect(at).await.unwrap());
        }
        let mut many = TcpStream::connect(at).await.unwrap();
        let mut answer = Vec::new();
        let asked = timeout(LONG, many.read_to_end(&mut answer)).await;
        assert_eq!(asked.unwrap().unwrap_or(0), 0, "one too many");
        for mut stream in silent {
            let mut answer = Vec::new();
            let ended = timeout(LONG, stream.read_to_end(&mut answer)).await;
            assert_eq!(ended.unwrap().unwrap_or(0), 0);
        }
        assert_eq!(request(at, b"ssh\n").await, "1\n", "there is room again");
    });
}

#[test]
fn the_server_retries_moves_and_stops() {
    run(async {
        let taken = listener::listen(HERE).unwrap();
        let at = taken.local_addr().unwrap();
        let mut server = NextLineServer::default();
        server.set_lines(lines(&[("ssh", Some(1))]));
        server.listen(Some(at));
        drop(taken);
        // The port is free now, and the next attempt gets it.
        let end = Instant::now() + LONG;
        while TcpStream::connect(at).await.is_err() {
            assert!(Instant::now() < end, "it does not try again");
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(request(at, b"ssh\n").await, "1\n");
        server.listen(None);
        while TcpStream::connect(at).await.is_ok() {
            assert!(Instant::now() < end, "it still listens");
            sleep(Duration::from_millis(10)).await;
        }
        server.listen(Some(at));
        assert_eq!(request(at, b"ssh\n").await, "1\n");
    });
}

#[test]
fn a_burst_is_followed_by_an_even_rate() {
    let start = Instant::now();
    let mut pace = Pace::new(start);
    for number in 1..=BURST {
        assert!(pace.next(start) <= start, "{number}");
    }
    assert_eq!(pace.next(start), start + INTERVAL);
    assert_eq!(pace.next(start), start + INTERVAL * 2);
    let later = start + LONG;
    assert!(pace.next(later) <= later, "a pause allows a burst");
}

#[test]
fn an_ipv6_network_is_one_source() {
    for (address, source) in [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
    ] {
        let [address, source]: [IpAddr; 2] = [address, source].map(|a| a.parse().unwrap());
        assert_eq!(network(address), source);
    }
}
