//! Certificates, made by openssl.

use std::path::{Path, PathBuf};

use crate::command::run;

/// An authority and what it signs, in a directory.
#[derive(Debug)]
pub(crate) struct Authority(PathBuf);

const NEW_KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
];

impl Authority {
    /// Makes an authority.
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        let directory = directory.join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let this = Self(directory);
        let (key, cert) = (this.path("ca.key"), this.path("ca.pem"));
        let mut arguments = vec!["req", "-x509", "-days", "2", "-subj", "/CN=authority"];
        arguments.extend(NEW_KEY);
        arguments.extend(["-keyout", &key, "-out", &cert]);
        run("openssl", &arguments);
        this
    }

    /// Returns the path of a file: `ca.pem`, `NAME.pem` or `NAME.key`.
    pub(crate) fn path(&self, file: &str) -> String {
        self.0.join(file).display().to_string()
    }

    /// Signs a certificate for a user, or for a member with addresses.
    pub(crate) fn sign(&self, name: &str, addresses: &[String]) {
        let (key, request, cert) = (
            self.path(&format!("{name}.key")),
            self.path(&format!("{name}.csr")),
            self.path(&format!("{name}.pem")),
        );
        let names: Vec<_> = addresses
            .iter()
            .map(|address| format!("IP:{address}"))
            .collect();
        let extension = if names.is_empty() {
            "keyUsage=digitalSignature".to_owned()
        } else {
            format!("subjectAltName={}", names.join(","))
        };
        let subject = format!("/CN={name}");
        let mut arguments = vec!["req", "-new", "-subj", &subject, "-addext", &extension];
        arguments.extend(NEW_KEY);
        arguments.extend(["-keyout", &key, "-out", &request]);
        run("openssl", &arguments);
        run(
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                &self.path("ca.pem"),
                "-CAkey",
                &self.path("ca.key"),
                "-CAcreateserial",
                "-days",
                "2",
                "-copy_extensions",
                "copy",
                "-out",
                &cert,
            ],
        );
    }
}
