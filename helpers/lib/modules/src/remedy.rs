// SPDX-License-Identifier: MIT
//! What brings the driver's modules to the running kernel, with the tool that brought them for another.

use std::fs;
use std::path::Path;

use step::Root;

use crate::DRIVER;
use crate::disk::File;
use crate::manager::{Manager, identity};

/// What brings the modules to the kernel `running`, whose folder is `here`; none where only a boot changes the
/// system.
///
/// `as_there` is the driver's module for another kernel, where there is one: its folder tells how modules come.
/// Where the kernel's own are gone too, those come first.
pub(crate) fn for_running(
    root: &Root,
    as_there: Option<&Path>,
    running: &str,
    here: &Path,
    are_all_gone: bool,
) -> Option<String> {
    let manager = Manager::of(root);
    if manager == Manager::Image {
        return None;
    }
    let folders: Vec<&str> =
        as_there.into_iter().flat_map(Path::iter).filter_map(|part| part.to_str()).collect();
    if let Some(branch) = as_there.and_then(branch) {
        let own = if are_all_gone { format!("linux-modules-{running} ") } else { String::new() };
        return Some(format!("`apt install {own}{}`", lrm_package(branch, running)));
    }
    let own = are_all_gone.then(|| kernels_own(root, manager, running));
    let builder = builder(root, &folders, running).map(|build| match here.join("build").exists() {
        true => build,
        false => format!("{}, {build}", headers(manager, running)),
    });
    let drivers = builder.unwrap_or_else(|| drivers(manager, running));
    Some(match own {
        Some(own) => format!("{own}, {drivers}"),
        None => drivers,
    })
}

/// The branch in `kernel/nvidia-BRANCH`, where Ubuntu's packages have their modules.
fn branch(file: &Path) -> Option<&str> {
    let mut folders = file.iter().skip_while(|folder| *folder != "kernel");
    folders.nth(1)?.to_str()?.strip_prefix("nvidia-")
}

/// What takes the module `file` away from the kernel `running`, as it came.
pub(crate) fn removal(root: &Root, file: &File, running: &str) -> String {
    if let Some(branch) = branch(&file.path) {
        return format!("`apt remove {} && depmod`", lrm_package(branch, running));
    }
    let version = file.version.as_deref().unwrap_or_default();
    let is_dkms = file.path.iter().any(|folder| folder == "dkms" || folder == "extra");
    let known = dkms(root).find(|name| root.path("/var/lib/dkms").join(name).join(version).is_dir());
    match known.filter(|_| is_dkms && !version.is_empty()) {
        Some(name) => format!("`dkms uninstall {name}/{version} -k {running}`"),
        None => format!("remove the package of {} and run `depmod`", file.path.display()),
    }
}

/// The command that builds the modules for the running kernel, where such a thing brought them.
fn builder(root: &Root, folders: &[&str], running: &str) -> Option<String> {
    if folders.contains(&"dkms") || (folders.is_empty() && dkms_has_it(root)) {
        return Some(format!("`dkms autoinstall -k {running}`"));
    }
    let has_akmods = ["/usr/sbin/akmods", "/usr/bin/akmods"].iter().any(|path| root.path(path).exists());
    if has_akmods && (folders.is_empty() || folders.contains(&"extra")) {
        return Some(format!("`akmods --kernels {running}`"));
    }
    // DKMS in a folder of another name, as its configuration may say.
    dkms_has_it(root).then(|| format!("`dkms autoinstall -k {running}`"))
}

/// What brings the headers of a kernel, without which nothing is built.
fn headers(manager: Manager, running: &str) -> String {
    match manager {
        // Proxmox' kernels.
        Manager::Apt if running.ends_with("-pve") => format!("`apt install proxmox-headers-{running}`"),
        Manager::Apt => format!("`apt install linux-headers-{running}`"),
        // What each kind of kernel provides (64k, rt, uek), whatever its package is called.
        Manager::Dnf => format!("`dnf install 'kernel-devel-uname-r == {running}'`"),
        Manager::Zypper => {
            format!("install kernel-{}-devel of kernel {running}", flavour(running))
        }
        _ => format!("install the headers of kernel {running}"),
    }
}

/// What brings the modules of the kernel itself.
fn kernels_own(root: &Root, manager: Manager, running: &str) -> String {
    match manager {
        Manager::Apt if identity(root).iter().any(|word| word == "ubuntu") => {
            format!("`apt install linux-modules-{running}`")
        }
        Manager::Apt if running.ends_with("-pve") => format!("`apt install proxmox-kernel-{running}`"),
        Manager::Apt => format!("`apt install linux-image-{running}`"),
        Manager::Dnf => format!("`dnf install 'kernel-modules-uname-r == {running}'`"),
        Manager::Zypper => {
            format!("install kernel-{} of kernel {running} (`zypper install --oldpackage`)", flavour(running))
        }
        Manager::Pacman => format!(
            "install the package of kernel {running} again (`pacman --upgrade` from /var/cache/pacman/pkg)"
        ),
        Manager::Portage | Manager::Image | Manager::Unknown => {
            format!("install the modules of kernel {running} again")
        }
    }
}

/// What brings the driver's modules where nothing builds them.
fn drivers(manager: Manager, running: &str) -> String {
    let install = format!("install the driver's modules for kernel {running}");
    match manager {
        Manager::Apt => format!("{install} (`apt search nvidia.*{running}` looks for them)"),
        Manager::Dnf => {
            format!("{install} (`dnf provides '*/modules/{running}/*/nvidia.ko*'` looks for them)")
        }
        Manager::Zypper => {
            format!("{install} (`zypper search 'nvidia*-kmp-{}'` looks for them)", flavour(running))
        }
        Manager::Portage => format!(
            "`emerge --oneshot x11-drivers/nvidia-drivers`, with the sources of kernel {running} at /usr/src/linux"
        ),
        Manager::Pacman | Manager::Image | Manager::Unknown => install,
    }
}

/// The last part of SUSE's releases: `default`, `azure`, `64kb`.
fn flavour(release: &str) -> &str {
    release.rsplit_once('-').map_or("default", |(_, flavour)| flavour)
}

/// Ubuntu's package that has the modules in `kernel/nvidia-BRANCH`.
pub(crate) fn lrm_package(branch: &str, running: &str) -> String {
    // `570srv-open` is of linux-modules-nvidia-570-server-open.
    format!("linux-modules-nvidia-{}-{running}", branch.replacen("srv", "-server", 1))
}

/// Whether DKMS has a driver of NVIDIA's, under whatever name a distribution gave it.
fn dkms_has_it(root: &Root) -> bool {
    dkms(root).next().is_some()
}

/// The names of NVIDIA's drivers in DKMS.
fn dkms(root: &Root) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(root.path("/var/lib/dkms")).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(DRIVER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        files: &[&str],
        identity: &str,
        as_there: Option<&str>,
        running: &str,
        gone: bool,
    ) -> Option<String> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        for path in files.iter().chain(&["/etc/x"]) {
            fs::create_dir_all(root.path(path)).expect("creates");
        }
        fs::write(root.path("/etc/os-release"), identity).expect("writes");
        for_running(&root, as_there.map(Path::new), running, &root.path("/here"), gone)
    }

    #[test]
    fn ubuntus_package_is_named_as_the_modules_came() {
        for (folder, package) in [
            ("nvidia-570", "linux-modules-nvidia-570-6.8.0-60-generic"),
            ("nvidia-570srv", "linux-modules-nvidia-570-server-6.8.0-60-generic"),
            ("nvidia-570-open", "linux-modules-nvidia-570-open-6.8.0-60-generic"),
            ("nvidia-570srv-open", "linux-modules-nvidia-570-server-open-6.8.0-60-generic"),
        ] {
            let there = format!("/lib/modules/6.8.0-71-generic/kernel/{folder}/nvidia.ko");
            let remedy = of(&[], "ID=ubuntu", Some(&there), "6.8.0-60-generic", false);
            assert_eq!(remedy, Some(format!("`apt install {package}`")));
            let remedy = of(&[], "ID=ubuntu", Some(&there), "6.8.0-60-generic", true);
            assert_eq!(remedy, Some(format!("`apt install linux-modules-6.8.0-60-generic {package}`")));
        }
    }

    #[test]
    fn what_builds_modules_needs_the_headers_first() {
        let dkms = Some("/lib/modules/6.1/updates/dkms/nvidia.ko.xz");
        let build = "`dkms autoinstall -k 6.0`";
        let said =
            |files: &[&str], identity: &str, gone| of(files, identity, dkms, "6.0", gone).unwrap_or_default();
        assert_eq!(said(&["/here/build"], "ID=debian", false), build);
        assert_eq!(said(&[], "ID=debian", false), format!("`apt install linux-headers-6.0`, {build}"));
        assert_eq!(
            said(&[], "ID=debian", true),
            format!("`apt install linux-image-6.0`, `apt install linux-headers-6.0`, {build}")
        );
        assert_eq!(
            said(&[], "ID=rocky\nID_LIKE=rhel", false),
            format!("`dnf install 'kernel-devel-uname-r == 6.0'`, {build}")
        );
        let akmod = Some("/usr/lib/modules/6.1/extra/nvidia/nvidia.ko.xz");
        let remedy = of(&["/usr/sbin/akmods"], "ID=fedora", akmod, "6.0", false);
        assert_eq!(
            remedy.as_deref(),
            Some("`dnf install 'kernel-devel-uname-r == 6.0'`, `akmods --kernels 6.0`")
        );
        assert_eq!(
            of(&["/var/lib/dkms/nvidia-open", "/here/build"], "", None, "6.0", false).as_deref(),
            Some(build)
        );
    }

    #[test]
    fn each_package_manager_has_its_words() {
        let there = Some("/lib/modules/6.1/extra/nvidia.ko");
        for (identity, running, words) in [
            ("ID=rhel", "6.0.el9", "dnf provides '*/modules/6.0.el9/*/nvidia.ko*'"),
            ("ID=sles", "6.4.0-azure", "zypper search 'nvidia*-kmp-azure'"),
            ("ID=gentoo", "6.0", "emerge --oneshot x11-drivers/nvidia-drivers"),
            ("ID=arch", "6.0", "install the driver's modules for kernel 6.0"),
        ] {
            let remedy = of(&[], identity, there, running, false).expect("there is one");
            assert!(remedy.contains(words), "{remedy}");
        }
        assert_eq!(of(&[], "ID=flatcar", there, "6.0", false), None);
        let branch = Some("/lib/modules/6.1/kernel/nvidia-580srv/nvidia.ko");
        assert_eq!(of(&[], "ID=ubuntu-core\nID_LIKE=debian", branch, "6.0", false), None);
    }
}
