// SPDX-License-Identifier: MIT
//! What the driver writes is read back, whatever the code, the GPU and the process.

use proptest::prelude::*;

/// A message of any code about any GPU.
fn xid() -> impl Strategy<Value = (String, u32, u8, u32, String)> {
    (any::<u32>(), any::<u8>(), 0u8..32, any::<u32>(), any::<u32>(), "[a-zA-Z0-9_./:-]{1,15}").prop_map(
        |(domain, bus, device, code, pid, name)| {
            let line = format!(
                "NVRM: Xid (PCI:{domain:04x}:{bus:02x}:{device:02x}): {code}, pid={pid}, name={name}, text"
            );
            (line, domain, bus, code, name)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn what_the_driver_writes_is_read_back((line, domain, bus, code, name) in xid()) {
        let Some(xid::Event::Xid(xid)) = xid::parse(&line) else { panic!("not recognised: {line}") };
        prop_assert_eq!((xid.at.pci.domain, xid.at.pci.bus, xid.xid), (domain, bus, code));
        prop_assert_eq!(xid.name, Some(name));
        prop_assert_eq!(xid.msg, "text");
    }
}
