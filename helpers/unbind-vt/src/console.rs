// SPDX-License-Identifier: MIT
//! Binding and unbinding a console.

use std::fs;

use anyhow::{Context, Result, bail};
use step::Root;

/// Whether `vtcon` is bound.
pub(crate) fn is_bound(root: &Root, vtcon: &str) -> Result<bool> {
    let path = root.path("/sys/class/vtconsole").join(vtcon).join("bind");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim_end() == "1")
}

/// Binds or unbinds `vtcon`, and reads back that it is so.
pub(crate) fn bind(root: &Root, vtcon: &str, bound: bool) -> Result<()> {
    let path = root.path("/sys/class/vtconsole").join(vtcon).join("bind");
    fs::write(&path, if bound { "1" } else { "0" }).with_context(|| format!("write {}", path.display()))?;
    if is_bound(root, vtcon)? != bound {
        bail!("{} was written and has not changed", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unbinding_and_binding_are_inverses() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        fs::create_dir_all(root.path("/sys/class/vtconsole/vtcon1")).expect("creates");
        fs::write(root.path("/sys/class/vtconsole/vtcon1/bind"), "1\n").expect("writes");
        bind(&root, "vtcon1", false).expect("unbinds");
        assert!(!is_bound(&root, "vtcon1").expect("reads"));
        bind(&root, "vtcon1", true).expect("binds");
        assert!(is_bound(&root, "vtcon1").expect("reads"));
    }
}
