//! A short run of what `fuzz/` does at length: bytes of any kind, and bytes that look right.

use proptest::prelude::*;

/// Text made of what the readers look for.
fn alike() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "NVRM: ",
        "Xid (",
        "PCI:",
        "0000:01:00",
        "00010000:01:00",
        ".0",
        " GPU-I:05",
        " GPU-CI:00",
        "): ",
        "79",
        "154",
        "145",
        "13",
        "74",
        "119",
        ", ",
        "pid=",
        "7",
        "name=",
        "'<unknown>'",
        "<unknown>",
        "changed from 0x0 (",
        ") to 0x1 (",
        "\n",
        "\\x0a",
        "#012",
        "[",
        "]",
        "kernel: ",
        "host ",
        "10:00:00 ",
        "<4>",
        "<12>",
        "4,1,2,-;",
        "kern  :warn  : ",
        "MESSAGE=",
        "10.0.0.1: kern: warning: [",
        "2026-03-11T08:02:25.5",
        "]: ",
        "<4>1 ",
        "kernel - - [a x=\"",
        "\"] ",
        "{",
        "}",
        "\"MESSAGE\":\"",
        "\"_TRANSPORT\":\"kernel\",",
        "\"",
        "\u{1e}",
        "data: ",
        "\u{1b}[33m",
        "message repeated 3 times: [",
        " [s=a;i=1]",
        "    MESSAGE=",
        "    _TRANSPORT=kernel",
        "nvidia-nvswitch",
        "0: SXid (PCI:",
        "23001",
        "Fatal",
        "Link ",
        "-1",
        "RLW_CTRL ",
        "XC0 i0 ",
        "(0x1 0x2",
        ")",
        "é",
        "\u{0}",
        "GPU at PCI:",
        ": GPU-",
        "GPU ",
        "GPU6 ",
        "f: ",
        "API mismatch: the client ",
        "'",
        "' (pid ",
        "has the version ",
        "1.2",
        "The NVIDIA GPU ",
        " (PCI ID: ",
        "10de:1eb8",
        " installed in this system ",
        "has fallen off the bus",
        "uvm encountered global fatal error ",
        "0x60",
        "nvidia-modeset: ",
        "ERROR: GPU:",
        "Loading ",
        "loading NVIDIA UNIX ",
        "(GPC ",
        ", TPC ",
        "RST: Yes",
        "D-RST: No",
        " on GPU in the ",
        "(",
        "#",
        "\\",
    ]);
    prop::collection::vec(word, 0..24).prop_map(|words| words.concat().into_bytes())
}

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
    fn none_makes_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        xid::read_anything(&bytes);
    }

    #[test]
    fn nor_does_what_looks_right(bytes in alike()) {
        xid::read_anything(&bytes);
    }

    #[test]
    fn what_the_driver_writes_is_read_back((line, domain, bus, code, name) in xid()) {
        let Some(xid::Event::Xid(xid)) = xid::parse(&line) else { panic!("not recognised: {line}") };
        prop_assert_eq!((xid.at.pci.domain, xid.at.pci.bus, xid.xid), (domain, bus, code));
        prop_assert_eq!(xid.name, Some(name));
        prop_assert_eq!(xid.msg, "text");
    }
}
