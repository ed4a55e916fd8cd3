// SPDX-License-Identifier: MIT
//! Which GPUs a run is about: one of some GPUs only leaves the users of the others alone.

use crate::device::Kind;
use crate::model::{Holder, Scan};

/// The GPUs that a run is about, by the names of their device nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope(Vec<String>);

impl FromIterator<String> for Scope {
    fn from_iter<T: IntoIterator<Item = String>>(nodes: T) -> Self {
        Self(nodes.into_iter().collect())
    }
}

impl Scope {
    /// Whether it is all GPUs: the scope of no names.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a node of this name is of a GPU of the scope.
    pub fn has_node(&self, name: &str) -> bool {
        self.is_all() || self.0.iter().any(|node| node == name)
    }

    /// Whether `holder` may use a GPU of the scope. Who has nodes of GPUs uses those and no others;
    /// who has none of any, but nvidiactl or nvidia-uvm, may use any GPU: a file of nvidiactl is all
    /// that NVML needs. Fabric Manager is an exception, since a reset of one GPU needs it
    /// (nvidia-smi's manual page, --gpu-reset).
    pub fn has(&self, holder: &Holder) -> bool {
        let is_node = |kind| matches!(kind, Kind::Gpu | Kind::DrmCard | Kind::DrmRender | Kind::Framebuffer);
        let mut nodes = holder.devices.iter().filter(|device| is_node(device.kind)).peekable();
        if self.is_all() {
            return true;
        }
        if nodes.peek().is_some() {
            return nodes.any(|device| self.has_node(&device.name));
        }
        !holder.devices.iter().any(|device| matches!(device.kind, Kind::Nvswitch | Kind::Nvlink))
    }
}

impl Scan {
    /// What of it is within `scope`. References that nothing explains are left out where that is not
    /// all: they may be of any GPU.
    pub fn within(mut self, scope: &Scope) -> Self {
        if !scope.is_all() {
            self.holders.retain(|holder| scope.has(holder));
            self.consoles.retain(|console| console.framebuffers.iter().any(|name| scope.has_node(name)));
            self.unexplained.clear();
        }
        self
    }

    /// Whether no holder is left within `scope`: for all GPUs [`Scan::is_free`].
    pub fn is_free_within(&self, scope: &Scope) -> bool {
        if scope.is_all() { self.is_free() } else { !self.holders.iter().any(|holder| scope.has(holder)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, Via};
    use crate::model::{Module, Owner};

    fn holder(devices: &[(Kind, &str)]) -> Holder {
        let device = |(kind, name): &(Kind, &str)| Device {
            rdev: None,
            kind: *kind,
            name: (*name).to_owned(),
            module: "nvidia".to_owned(),
            via: Via::Fd,
            count: 1,
            path: String::new(),
        };
        Holder {
            pid: 7,
            start_ticks: 0,
            since: None,
            uid: 0,
            user: None,
            comm: String::new(),
            command: Vec::new(),
            state: 'S',
            devices: devices.iter().map(device).collect(),
            owner: Owner::Process,
            screen: false,
            gpu_memory: None,
        }
    }

    #[test]
    fn users_of_other_gpus_are_left_alone() {
        let scope: Scope = ["nvidia1", "renderD129"].map(str::to_owned).into_iter().collect();
        let has = |devices: &[(Kind, &str)]| scope.has(&holder(devices));
        assert!(has(&[(Kind::Ctl, "nvidiactl"), (Kind::Gpu, "nvidia1")]));
        assert!(has(&[(Kind::Gpu, "nvidia0"), (Kind::Gpu, "nvidia1")]));
        assert!(has(&[(Kind::DrmRender, "renderD129")]));
        assert!(!has(&[(Kind::Ctl, "nvidiactl"), (Kind::Uvm, "nvidia-uvm"), (Kind::Gpu, "nvidia0")]));
        assert!(!has(&[(Kind::Gpu, "nvidia10")]), "another one's name may begin alike");
        // Who knows.
        assert!(has(&[(Kind::Ctl, "nvidiactl")]));
        assert!(has(&[(Kind::Uvm, "nvidia-uvm")]));
        // Fabric Manager.
        assert!(!has(&[(Kind::Ctl, "nvidiactl"), (Kind::Nvswitch, "nvidia-nvswitchctl")]));
        assert!(Scope::default().has(&holder(&[(Kind::Nvswitch, "nvidia-nvswitchctl")])), "all means all");
    }

    #[test]
    fn a_run_of_one_gpu_is_through_when_its_users_are_gone() {
        let module =
            Module { name: "nvidia".into(), refcount: Some(3), dependents: Vec::new(), of_driver: true };
        let other = holder(&[(Kind::Gpu, "nvidia0")]);
        let scan = Scan { modules: vec![module], holders: vec![other], ..Scan::default() };
        let scope: Scope = ["nvidia1".to_owned()].into_iter().collect();
        assert!(scan.is_free_within(&scope));
        assert!(!scan.is_free_within(&Scope::default()));
        assert!(scan.within(&scope).holders.is_empty());
    }
}
