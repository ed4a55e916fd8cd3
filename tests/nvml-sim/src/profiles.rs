// SPDX-License-Identifier: MIT
//! The MIG profiles, as an A100 with 40 GB has them (NVIDIA's MIG user guide).

/// A kind of GPU instance or compute instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// `NVML_GPU_INSTANCE_PROFILE_…` or `NVML_COMPUTE_INSTANCE_PROFILE_…`.
    pub number: u32,
    /// The profile's id, by which instances are made.
    pub id: u32,
    /// Slices of compute.
    pub slices: u32,
    /// Slices of memory, which is the size of a GPU instance's placement.
    pub size: u32,
    /// How many fit.
    pub instances: u32,
    /// Where they may start.
    pub starts: &'static [u32],
}

/// Of GPU instances: 1g.5gb, 2g.10gb, 3g.20gb, 4g.20gb, 7g.40gb.
pub const GPU_INSTANCES: &[Profile] = &[
    Profile { number: 0, id: 19, slices: 1, size: 1, instances: 7, starts: &[0, 1, 2, 3, 4, 5, 6] },
    Profile { number: 1, id: 14, slices: 2, size: 2, instances: 3, starts: &[0, 2, 4] },
    Profile { number: 2, id: 9, slices: 3, size: 4, instances: 2, starts: &[0, 4] },
    Profile { number: 3, id: 5, slices: 4, size: 4, instances: 1, starts: &[0] },
    Profile { number: 4, id: 0, slices: 7, size: 8, instances: 1, starts: &[0] },
];

/// Of compute instances in one of `slices` slices: one of each width that fits.
pub fn compute_instances(slices: u32) -> Vec<Profile> {
    const WIDTHS: [(u32, u32); 5] = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 7)];
    const STARTS: [u32; 7] = [0, 1, 2, 3, 4, 5, 6];
    WIDTHS
        .into_iter()
        .filter(|(_, width)| *width <= slices)
        .map(|(number, width)| Profile {
            number,
            id: number,
            slices: width,
            size: width,
            instances: slices / width,
            starts: &STARTS[..=(slices - width) as usize],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compute_instance_fits_into_its_gpu_instance() {
        for gpu in GPU_INSTANCES {
            for compute in compute_instances(gpu.slices) {
                assert!(compute.starts.iter().all(|start| start + compute.size <= gpu.slices));
            }
        }
        assert_eq!(compute_instances(3).len(), 3);
    }
}
