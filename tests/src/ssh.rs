//! The door of most tests: the sequence of the README.

/// The port that it opens.
pub const SSH: u16 = 22;
/// Its configuration.
pub const DOOR: &str = r#"
    [[door]]
    name = "ssh"
    knock = ["tcp/7000", "udp/8000", "tcp/9000"]
    open = ["tcp/22"]
"#;
/// Its knocks, for a client's command line.
pub const KNOCKS: &str = "tcp/7000 udp/8000 tcp/9000";
