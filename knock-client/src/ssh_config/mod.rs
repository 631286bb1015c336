//! `ssh-config`: prints the block of ssh's configuration that opens the door of a profile.

pub(crate) mod error;

pub use error::SshConfigError;

use crate::failure::Failure;
use crate::profile::{self, Profile, ProfileError};
use crate::reply::ConnectTo;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;

/// Arguments of `ssh-config`.
#[derive(Args, Debug)]
pub struct SshConfig {
    /// Print the block of this profile
    #[arg(value_name = "PROFILE")]
    pub name: String,

    /// Let ssh connect by itself after the door has been opened, instead of through this program
    #[arg(long)]
    pub exec: bool,

    /// Read profiles from this file [default: ~/.config/knock/config.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Prints the block to `out`.
///
/// # Errors
///
/// There is no such profile, ssh can't have its name, or `out` can't be written.
pub fn run(args: &SshConfig, out: &mut impl Write) -> Result<(), Failure> {
    let path = profile::path(args.config.as_deref()).ok_or(ProfileError::NoHome)?;
    let profile = profile::named(&path, &args.name)?;
    let text = block(args, &profile)?;
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(Failure::Output)
}

fn block(args: &SshConfig, profile: &Profile) -> Result<String, SshConfigError> {
    let name = &args.name;
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.starts_with('-') || !name.chars().all(fits) {
        return Err(SshConfigError::Name { name: name.clone() });
    }
    let config = match &args.config {
        Some(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            let text = path.display().to_string();
            if text.contains(|c: char| "\"'\\".contains(c) || c.is_control()) {
                return Err(SshConfigError::Path { path });
            }
            format!(" --config '{}'", text.replace('%', "%%"))
        }
        None => String::new(),
    };
    // Without one of its own, ssh looks the name of the block up.
    let host = profile.host.as_deref().unwrap_or(name).replace('%', "%%");
    let port = match profile.then_connect {
        Some(ConnectTo::Port(port)) if port != 22 => format!("    Port {port}\n"),
        Some(ConnectTo::Port(_) | ConnectTo::Reply) | None => String::new(),
    };
    Ok(match args.exec {
        false => format!(
            "Host {name}\n    HostName {host}\n{port}    ProxyCommand knock-client proxy{config} {name} %p\n"
        ),
        true => format!(
            "Match originalhost {name} exec \"knock-client{config} {name}\"\n    HostName {host}\n{port}"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn printed(profile: &str, exec: bool, config: Option<&str>) -> String {
        let text = format!("[profile.home]\nknock = [\"7000\"]\n{profile}");
        let found = profile::find_in(&text, Path::new("config.toml"), "home");
        let args = SshConfig {
            name: "home".to_owned(),
            exec,
            config: config.map(PathBuf::from),
        };
        let block = block(&args, &found.expect("a profile").expect("a profile"));
        block.unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn a_block_has_the_host_and_the_port_of_its_profile() {
        for (name, profile, exec, config, expected) in [
            (
                "the name alone",
                "",
                false,
                None,
                "Host home\n    HostName home\n    ProxyCommand knock-client proxy home %p\n",
            ),
            (
                "a host",
                "host = \"example.org\"\nthen_connect = 22\n",
                false,
                None,
                "Host home\n    HostName example.org\n    ProxyCommand knock-client proxy home %p\n",
            ),
            (
                "a port",
                "host = \"example.org\"\nthen_connect = 2222\n",
                false,
                None,
                "Host home\n    HostName example.org\n    Port 2222\n    \
                 ProxyCommand knock-client proxy home %p\n",
            ),
            (
                "a scope, and a file",
                "host = \"fe80::1%eth0\"\n",
                false,
                Some("/etc/knock 50%/config.toml"),
                "Host home\n    HostName fe80::1%%eth0\n    ProxyCommand knock-client proxy --config \
                 '/etc/knock 50%%/config.toml' home %p\n",
            ),
            (
                "without a relay",
                "host = \"example.org\"\nthen_connect = 2222\n",
                true,
                None,
                "Match originalhost home exec \"knock-client home\"\n    HostName example.org\n    Port 2222\n",
            ),
            (
                "a path with quotes",
                "",
                true,
                Some("/tmp/\"a"),
                "ssh can't use the path /tmp/\"a: it has quotes, backslashes or line ends; move the file",
            ),
        ] {
            assert_eq!(printed(profile, exec, config), expected, "{name}");
        }
    }

    #[test]
    fn a_name_that_ssh_reads_otherwise_is_refused() {
        for name in ["", "my home", "*", "!home", "-F", "a,b", "a\"b", "%h"] {
            let args = SshConfig {
                name: name.to_owned(),
                exec: false,
                config: None,
            };
            let error = block(&args, &Profile::default()).expect_err(name);
            assert!(
                error.to_string().starts_with("ssh can't have a host named"),
                "{name}"
            );
        }
    }
}
