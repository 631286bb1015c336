//! Where this user keeps the files of knock-client.

use std::env;
use std::path::PathBuf;

/// Returns the path of a file that has a default place: `$XDG_CONFIG_HOME/knock/NAME`, or `~/.config/knock/NAME`.
///
/// `None` means that this user has no home directory.
#[must_use]
pub(crate) fn config_file(name: &str) -> Option<PathBuf> {
    let set = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let directory = set.filter(|path| path.is_absolute());
    let directory = directory.or_else(|| Some(env::home_dir()?.join(".config")))?;
    Some(directory.join("knock").join(name))
}
