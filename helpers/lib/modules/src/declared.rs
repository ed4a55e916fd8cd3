// SPDX-License-Identifier: MIT
//! All that a module file declares of itself, as far as it decides whether a kernel takes it.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::kmod::{KmodModule, Symbol};

/// What a module file declares of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// `modinfo -F license`.
    pub license: Option<String>,
    /// The firmware that it asks for, as names below the directories of firmware.
    pub firmware: Vec<String>,
    /// Its parameters with their types (`bool`, `uint`, `array of int`, …), where it tells them.
    pub parameters: BTreeMap<String, Option<String>>,
    /// Its signature.
    pub signature: Option<Signature>,
    /// The symbols that it cannot do without. Where the kernel has versions of symbols, the one of
    /// `module_layout` is among them.
    pub needs: Vec<Symbol>,
    /// The symbols that it has for other modules.
    pub exports: Vec<Symbol>,
}

/// Who signed a module, as far as the library can tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    /// The name in the certificate.
    pub signer: Option<String>,
    /// The number of the certificate, in hexadecimal.
    pub key: Option<String>,
}

impl Declared {
    /// What `module` declares; `info` is its `.modinfo`, which was read already.
    pub(crate) fn read(module: &KmodModule<'_>, info: &[(String, String)]) -> Result<Self> {
        let mut declared =
            Self { needs: module.needed_symbols()?, exports: module.symbols()?, ..Self::of(info) };
        declared.needs.retain(|symbol| !symbol.name.is_empty());
        Ok(declared)
    }

    fn of(info: &[(String, String)]) -> Self {
        let mut declared = Self::default();
        let mut signature = Signature::default();
        let mut is_signed = false;
        for (key, value) in info {
            match key.as_str() {
                "license" => declared.license = Some(value.clone()),
                "firmware" => declared.firmware.push(value.clone()),
                "parm" => {
                    let name = value.split(':').next().unwrap_or_default();
                    declared.parameters.entry(name.to_owned()).or_default();
                }
                "parmtype" => {
                    if let Some((name, kind)) = value.split_once(':') {
                        declared.parameters.insert(name.to_owned(), Some(kind.to_owned()));
                    }
                }
                // Not the module's own words but libkmod's, of the signature behind it.
                "sig_id" => is_signed = true,
                "signer" => signature.signer = Some(value.clone()).filter(|signer| !signer.is_empty()),
                "sig_key" => signature.key = Some(value.clone()).filter(|key| !key.is_empty()),
                _ => {}
            }
        }
        declared.signature = is_signed.then_some(signature);
        declared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_their_types() {
        let info = |text: &str| -> Vec<(String, String)> {
            text.lines().filter_map(|line| line.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect()
        };
        let declared = Declared::of(&info(
            "license=NVIDIA\nparmtype=modeset:bool\nparm=modeset:Enable: it\nparm=bare:no type\nfirmware=a\nfirmware=b\nsig_id=PKCS#7\nsigner=",
        ));
        assert_eq!(declared.license.as_deref(), Some("NVIDIA"));
        assert_eq!(declared.firmware, ["a", "b"]);
        assert_eq!(declared.parameters.get("modeset"), Some(&Some("bool".into())));
        assert_eq!(declared.parameters.get("bare"), Some(&None));
        assert_eq!(declared.signature, Some(Signature::default()));
        assert_eq!(Declared::of(&info("license=GPL")).signature, None);
    }
}
