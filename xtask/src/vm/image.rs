//! Builds the initramfs: programs with their libraries, and modules with their dependencies.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use xshell::Shell;

use super::kernel::KernelPackage;
use crate::shell;

/// A directory that becomes the machine's file system.
pub(crate) struct RootImage<'a> {
    sh: &'a Shell,
    root: PathBuf,
}

impl<'a> RootImage<'a> {
    /// Creates an image with empty directories, and removes an earlier one.
    pub(crate) fn new(sh: &'a Shell, root: &Path, directories: &[&str]) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(root).with_context(|| format!("removing {}", root.display()))?;
        }
        make(root)?;
        for directory in directories {
            make(&root.join(directory))?;
        }
        Ok(Self {
            sh,
            root: root.to_owned(),
        })
    }

    /// Adds a program and its libraries.
    pub(crate) fn program(&self, path: &Path, place: &str) -> Result<()> {
        self.copy(path, Path::new(place))?;
        // It fails for a program without libraries.
        let listed = self.sh.cmd("ldd").arg(path).quiet().ignore_status();
        let listed = listed.ignore_stderr().read().context("running `ldd`")?;
        for library in libraries(&listed) {
            self.copy(library, library.strip_prefix("/").unwrap_or(library))?;
        }
        Ok(())
    }

    /// Adds the files of a directory, in the same place.
    pub(crate) fn directory(&self, path: &Path) -> Result<()> {
        let listing = || format!("listing {}", path.display());
        for file in fs::read_dir(path).with_context(listing)? {
            let file = file.with_context(listing)?.path();
            self.copy(&file, file.strip_prefix("/").unwrap_or(&file))?;
        }
        Ok(())
    }

    /// Adds an executable script.
    pub(crate) fn file(&self, place: &str, text: &str) -> Result<()> {
        let path = self.root.join(place);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Adds these modules of a kernel, and those that they need; what is built into the kernel is skipped.
    pub(crate) fn modules(&self, kernel: &KernelPackage, names: &[&str]) -> Result<()> {
        let (from, place) = kernel.modules();
        let read = |name: &str| {
            let path = from.join(name);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        for module in needed(&read("modules.dep")?, names)? {
            self.copy(&from.join(&module), &place.join(&module))?;
        }
        for index in ["modules.dep", "modules.alias", "modules.builtin"] {
            self.copy(&from.join(index), &place.join(index))?;
        }
        Ok(())
    }

    /// Packs it into one file beside it.
    pub(crate) fn pack(&self) -> Result<PathBuf> {
        let packed = self.root.with_extension("cpio");
        let pack = "cd \"$1\" && find . | busybox cpio -o -H newc >\"$2\"";
        let pack = self.sh.cmd("sh").args(["-c", pack, "sh"]);
        shell::run_quietly("packing programs", pack.args([&self.root, &packed]))?;
        Ok(packed)
    }

    /// Adds a file.
    pub(crate) fn copy(&self, from: &Path, place: &Path) -> Result<()> {
        let to = self.root.join(place);
        if let Some(directory) = to.parent() {
            make(directory)?;
        }
        fs::copy(from, &to)
            .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
        Ok(())
    }
}

fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))
}

/// Returns the paths in what `ldd` prints: `libc.so.6 => /lib/libc.so.6 (0x…)`, and the loader by itself.
fn libraries(listed: &str) -> impl Iterator<Item = &Path> {
    listed.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.find(|word| word.starts_with('/')).map(Path::new)
    })
}

/// Returns these modules and all that they need, by the lines of `modules.dep`: `a.ko: b.ko c.ko`. What is
/// built into the kernel has no line.
fn needed(dependencies: &str, names: &[&str]) -> Result<BTreeSet<PathBuf>> {
    let lines: BTreeMap<&str, &str> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .collect();
    let mut needed = BTreeSet::new();
    for name in names {
        let file = format!("{name}.ko");
        let found = lines
            .iter()
            .find(|(path, _)| path.rsplit('/').next() == Some(&file));
        if let Some((path, others)) = found {
            needed.insert(PathBuf::from(path));
            needed.extend(others.split_whitespace().map(PathBuf::from));
        }
    }
    ensure!(
        !needed.is_empty(),
        "the kernel has none of these modules: {}",
        names.join(", ")
    );
    Ok(needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_of_a_program_are_found() {
        let listed = "\tlinux-vdso.so.1 (0x00007f69cb97d000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f69ca81e000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f69cb97f000)";
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert!(libraries(listed).eq(expected.map(Path::new)));
        assert_eq!(libraries("\tstatically linked").count(), 0);
    }

    #[test]
    fn modules_are_loaded_after_those_that_they_need() {
        let lines = "kernel/net/ipv4/tcp_diag.ko: kernel/net/ipv4/inet_diag.ko
kernel/net/ipv4/inet_diag.ko:
kernel/drivers/net/veth.ko:
kernel/drivers/net/nveth.ko:";
        let needed = needed(lines, &["veth", "tcp_diag", "built_in"]).unwrap();
        let expected = [
            "kernel/drivers/net/veth.ko",
            "kernel/net/ipv4/inet_diag.ko",
            "kernel/net/ipv4/tcp_diag.ko",
        ];
        assert!(needed.iter().eq(expected.map(Path::new)), "{needed:?}");
    }
}
