//! A container image with nothing but the static programs, as an OCI archive: `podman load --input FILE`.
//!
//! It is what `dist/container/Containerfile` makes, but without a builder: the image is the same each time, and making
//! it needs no privileges.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use xshell::Shell;

use super::{Architecture, Release, archive, sums::sha256};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The arguments of knock-user, which a container can replace.
const COMMAND: [&str; 5] = [
    "--config",
    "/etc/knock/seq.toml",
    "--wait-for-interfaces",
    "--on-exit",
    "keep",
];

/// Writes the image of all architectures to `to`; `programs` has the directory of each.
///
/// # Errors
/// A file can't be read or written, or tar fails.
pub(super) fn write(
    sh: &Shell,
    release: &Release,
    programs: &[(Architecture, &Path)],
    to: &Path,
) -> Result<()> {
    let place = release.stage.join("oci");
    let blobs = place.join("blobs/sha256");
    sh.create_dir(&blobs)?;
    let mut manifests = Vec::new();
    for (architecture, programs) in programs {
        let name = architecture.debian();
        let root = release.stage.join(format!("image-{name}"));
        for program in super::PROGRAMS {
            super::copy(sh, programs.join(program), root.join("usr/bin"))?;
        }
        let layer = release.stage.join(format!("image-{name}.tar.gz"));
        archive::tarball(sh, &root, "usr", release.date, &layer)?;
        let content = read(&layer)?;
        let unpacked = sh
            .cmd("gzip")
            .args(["--decompress", "--stdout"])
            .arg(&layer);
        let unpacked = unpacked.quiet().output().context("running gzip")?.stdout;
        let config = json!({
            "architecture": name,
            "os": "linux",
            "config": {
                "Entrypoint": ["/usr/bin/knock-user"],
                "Cmd": COMMAND,
            },
            "rootfs": {"type": "layers", "diff_ids": [digest(&unpacked)]},
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": blob(&blobs, CONFIG, config.to_string().as_bytes())?,
            "layers": [blob(&blobs, LAYER, &content)?],
        });
        let mut descriptor = blob(&blobs, MANIFEST, manifest.to_string().as_bytes())?;
        descriptor["platform"] = json!({"architecture": name, "os": "linux"});
        manifests.push(descriptor);
    }
    let images = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    // The index of an archive names one image, which is an index of its architectures.
    let mut descriptor = blob(&blobs, INDEX, images.to_string().as_bytes())?;
    let reference = format!("knock:{}", release.version);
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": reference});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]});
    sh.write_file(place.join("index.json"), index.to_string())?;
    sh.write_file(
        place.join("oci-layout"),
        "{\"imageLayoutVersion\":\"1.0.0\"}",
    )?;
    archive::tarball(sh, &place, ".", release.date, to)
}

/// Writes a blob; returns its descriptor.
fn blob(blobs: &Path, kind: &str, content: &[u8]) -> Result<Value> {
    let path = blobs.join(sha256(content));
    fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
    Ok(json!({"mediaType": kind, "digest": digest(content), "size": content.len()}))
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", sha256(content))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
