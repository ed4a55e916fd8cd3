// SPDX-License-Identifier: MIT
//! The certificates of authorities that this system believes.

use std::fs::File;
use std::io::{ErrorKind, Read};

use anyhow::{Context, Result, bail};
use step::Root;
use ureq::tls::{Certificate, PemItem, parse_pem};

/// Where distributions have them in one file: Debian and its kin, Fedora and RHEL, SUSE.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// A system has a quarter of a megabyte of them.
const MOST: u64 = 16 << 20;

/// Reads them.
///
/// # Errors
/// There are none.
pub(crate) fn certificates(root: &Root) -> Result<Vec<Certificate<'static>>> {
    for path in BUNDLES.map(|path| root.path(path)) {
        let mut text = Vec::new();
        match File::open(&path) {
            Ok(file) => {
                file.take(MOST).read_to_end(&mut text).with_context(|| format!("read {}", path.display()))?
            }
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
        };
        let is_certificate = |item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        };
        let found: Vec<_> = parse_pem(&text).filter_map(is_certificate).collect();
        if found.is_empty() {
            bail!("there is no certificate in {}: install the package ca-certificates", path.display());
        }
        return Ok(found);
    }
    bail!("this system has no certificates of authorities: install the package ca-certificates")
}
