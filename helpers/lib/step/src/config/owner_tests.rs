// SPDX-License-Identifier: MIT
use super::tests::tree;
use super::*;

#[test]
fn what_others_can_write_is_not_believed() {
    use std::os::unix::fs::PermissionsExt;
    let text = "[verify]\nsmoke = [\"/opt/smoke\"]";
    let (_directory, root) = tree(&[("/etc/nvidia-reload/conf.d/a.toml", text), ("/opt/smoke", "")]);
    for path in ["/opt/smoke", "/etc/nvidia-reload/conf.d/a.toml", "/etc/nvidia-reload/conf.d", "/opt"] {
        let mode =
            |mode| fs::set_permissions(root.path(path), fs::Permissions::from_mode(mode)).expect("sets");
        mode(0o777);
        let error = format!("{:#}", Config::load(&root).expect_err("must refuse"));
        let culprit = root.path(path);
        for word in ["owner ", "mode 0777", &format!("`chmod go-w {}`", culprit.display())] {
            assert!(error.contains(word), "{path}: {error}");
        }
        mode(0o755);
        Config::load(&root).expect("is right again");
    }
    fs::remove_file(root.path("/opt/smoke")).expect("removes");
    Config::load(&root).expect("that it is missing is said when it is run");
}
