use super::*;

fn found(text: &str, name: &str) -> Result<Option<Profile>, String> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.toml");
    std::fs::write(&path, text).expect("a file");
    let place = format!("{}", directory.path().display());
    find(&path, name, true).map_err(|error| error.to_string().replace(&place, "DIR"))
}

const FILE: &str = r#"
    [profile.home]
    host = "example.org"
    knock = ["tcp/7000", "8000:udp", "9000"]
    delay = "20ms"
    timeout = "5s"
    then_connect = 22
    retries = 2
    family = "dual-stack"
    log = "~/knock.log"

    [profile.work]
    one_time = "once"
    then_connect = "tcp/443"

    [profile.reply]
    knock = ["7000"]
    then_connect = "reply"
    handshake = true
"#;

#[test]
fn a_profile_is_found_by_its_name_or_host() {
    let home = Profile {
        host: Some("example.org".to_owned()),
        knock: Some(
            ["tcp/7000", "udp/8000", "tcp/9000"]
                .map(|word| word.parse().expect("a knock"))
                .to_vec(),
        ),
        delay: Some(Duration::from_millis(20)),
        timeout: Some(Duration::from_secs(5)),
        then_connect: Some(ConnectTo::Port(22)),
        retries: Some(2),
        family: Some(Families::DualStack),
        log: env::home_dir().map(|home| home.join("knock.log")),
        ..Profile::default()
    };
    assert_eq!(found(FILE, "home"), Ok(Some(home.clone())));
    assert_eq!(found(FILE, "example.org"), Ok(Some(home)));
    assert_eq!(found(FILE, "elsewhere"), Ok(None));
    let work = found(FILE, "work").expect("no error").expect("a profile");
    assert_eq!(work.then_connect, Some(ConnectTo::Port(443)));
    assert!(!work.handshake);
    let reply = found(FILE, "reply").expect("no error").expect("a profile");
    assert_eq!(
        (reply.then_connect, reply.handshake),
        (Some(ConnectTo::Reply), true)
    );
    let once = work.one_time.expect("a path");
    assert!(once.is_absolute() && once.ends_with("once"), "{once:?}");
}

#[test]
fn an_error_names_its_line() {
    let rows = [
        ("syntax", "[profile", "DIR/config.toml:1: "),
        (
            "a key",
            "[profile.a]\nknock = [\"1\"]\nports = 1\n",
            "DIR/config.toml:3: unknown key ports: the keys here are host, knock, file, ",
        ),
        (
            "a table",
            "[home]\nknock = [\"1\"]\n",
            "DIR/config.toml:1: unknown key home: each profile is a table of its own, as in [profile.home]",
        ),
        (
            "a knock",
            "[profile.a]\nknock = [\"ssh\"]\n",
            "DIR/config.toml:2: \"ssh\" is not a knock",
        ),
        (
            "no knocks",
            "[profile.a]\nknock = []\n",
            "DIR/config.toml:2: no knocks",
        ),
        (
            "a duration",
            "[profile.a]\nknock = [\"1\"]\ndelay = \"5\"\n",
            "DIR/config.toml:3: \"5\" is not a duration",
        ),
        (
            "no time",
            "[profile.a]\nknock = [\"1\"]\ntimeout = \"0s\"\n",
            "DIR/config.toml:3: '0s' leaves no time",
        ),
        (
            "a port",
            "[profile.a]\nknock = [\"1\"]\nthen_connect = 70000\n",
            "DIR/config.toml:3: '70000' is not a TCP port",
        ),
        (
            "a family",
            "[profile.a]\nknock = [\"1\"]\nfamily = \"v4\"\n",
            "DIR/config.toml:3: unknown variant `v4`",
        ),
        (
            "an address",
            "[profile.a]\nspa = \"knock1:e06Qm75__kTEZaIgA31gjuNYl9Me-XLwf3SJLLD3PxM\"\nsource = \"999.1.1.1\"\n",
            "DIR/config.toml:3: \"999.1.1.1\" is not an IP address: write one such as 203.0.113.7",
        ),
        (
            "no source",
            "[profile.b]\nknock = [\"1\"]\n\n[profile.a]\n",
            "DIR/config.toml:4: [profile.a] needs exactly one of knock, file, one_time, otp and spa",
        ),
        (
            "two sources",
            "[profile.a]\nknock = [\"1\"]\nfile = \"x\"\n",
            "DIR/config.toml:1: [profile.a] needs exactly one of",
        ),
        (
            "a private key",
            "[profile.a]\nspa = \"knock1-private:ERER\"\n",
            "DIR/config.toml:2: this is a private key, which must stay where it was made",
        ),
        (
            "a door without spa",
            "[profile.a]\nknock = [\"1\"]\ndoor = \"ssh\"\n",
            "DIR/config.toml:1: [profile.a] has door, which is for single packet authorization",
        ),
        (
            "a handshake with spa",
            "[profile.a]\nspa = \"knock1:e06Qm75__kTEZaIgA31gjuNYl9Me-XLwf3SJLLD3PxM\"\nhandshake = true\n",
            "DIR/config.toml:1: [profile.a] has handshake, which is for knocks",
        ),
        (
            "a port of SPA",
            "[profile.a]\nspa = \"knock1:e06Qm75__kTEZaIgA31gjuNYl9Me-XLwf3SJLLD3PxM\"\nport = \"tcp/1\"\n",
            "DIR/config.toml:3: \"tcp/1\" is not a UDP port",
        ),
    ];
    for (name, text, message) in rows {
        let error = found(text, "a").expect_err(name);
        assert!(error.starts_with(message), "{name}: {error}");
    }
}

#[test]
fn a_missing_file_has_no_profiles() {
    let path = Path::new("/nonexistent/config.toml");
    assert_eq!(find(path, "home", false).expect("no error"), None);
    let error = find(path, "home", true).expect_err("it was asked for");
    assert!(
        error
            .to_string()
            .starts_with("cannot read /nonexistent/config.toml: ")
    );
}
