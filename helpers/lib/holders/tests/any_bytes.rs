//! A short run of what `fuzz/` does at length: bytes of any kind, and bytes that look right.

use proptest::prelude::*;

/// Text made of what the readers look for.
fn alike() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "0::",
        "/",
        "\n",
        " ",
        ":",
        "-",
        "(",
        ")",
        "user.slice",
        "user@1000.service",
        "docker-",
        ".scope",
        "kubepods",
        "-pod",
        "libpod-payload-",
        "lxc.payload.",
        "job_1",
        "step_0",
        "slurm",
        "name=systemd",
        " (deleted)",
        "7f00-7f01 r--s 00000000 00:05 9 ",
        "/dev/nvidia0",
        "Uid:\t0",
        "btime 7",
        "y",
        "n",
        "195 nvidia",
        "Block devices:",
        "hidepid=2",
        " - proc ",
        "\\x2d",
        "_",
        "\u{fffd}",
        "é",
        "\0",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn none_makes_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        holders::read_anything(&bytes);
    }

    #[test]
    fn nor_does_what_looks_right(bytes in alike()) {
        holders::read_anything(&bytes);
    }
}
