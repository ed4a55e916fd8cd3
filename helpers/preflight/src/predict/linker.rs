// SPDX-License-Identifier: MIT
//! Where the linker finds libraries: its cache, as ldconfig of glibc writes it (sysdeps/generic/dl-cache.h).

use std::path::PathBuf;

/// The cache's name and version, from glibc 2.2 on. Before it there may be a cache of an older format.
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
/// Magic, two counts, flags, the offset of extensions, and what is reserved.
const HEADER: usize = 48;
/// Flags, the offsets of name and path, the system's version, and hardware capabilities.
const ENTRY: usize = 24;
/// The part of an entry's flags that is the machine, and its value for this one (glibc's FLAG_X8664_LIB64 and
/// FLAG_AARCH64_LIB64). Libraries of other machines are in the same cache: i386 and x32, or 32-bit ARM.
const MACHINE: usize = 0xff00;
const OWN: usize = if cfg!(target_arch = "aarch64") { 0x0a00 } else { 0x0300 };

/// The paths of the library `name` for this machine in the linker's cache, in the linker's order. Nothing where `cache`
/// is no such cache.
pub(crate) fn paths(cache: &[u8], name: &str) -> Vec<PathBuf> {
    let Some(cache) = current(cache) else { return Vec::new() };
    let Some(count) = number(cache, MAGIC.len()) else { return Vec::new() };
    let entries = cache.get(HEADER..).unwrap_or_default().chunks_exact(ENTRY).take(count);
    entries
        .filter(|entry| number(entry, 0).is_some_and(|flags| flags & MACHINE == OWN))
        .filter(|entry| text(cache, number(entry, 4)) == Some(name))
        .filter_map(|entry| text(cache, number(entry, 8)).map(PathBuf::from))
        .collect()
}

/// From the magic on: all offsets count from there.
fn current(cache: &[u8]) -> Option<&[u8]> {
    let start = cache.windows(MAGIC.len()).position(|window| window == MAGIC)?;
    cache.get(start..)
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_ne_bytes(bytes.try_into().ok()?)).ok()
}

fn text(cache: &[u8], at: Option<usize>) -> Option<&str> {
    let rest = cache.get(at?..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    str::from_utf8(&rest[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn cache(before: &[u8], libraries: &[(u32, &str, &str)]) -> Vec<u8> {
        let mut cache = MAGIC.to_vec();
        let mut strings = Vec::new();
        cache.extend((libraries.len() as u32).to_ne_bytes());
        cache.extend([0; 24]);
        for (flags, name, path) in libraries {
            let mut place = |text: &str| {
                let at = HEADER + libraries.len() * ENTRY + strings.len();
                strings.extend(text.bytes().chain([0]));
                (at as u32).to_ne_bytes()
            };
            cache.extend(flags.to_ne_bytes());
            cache.extend(place(name));
            cache.extend(place(path));
            cache.extend([0; 12]);
        }
        before.iter().copied().chain(cache).chain(strings).collect()
    }

    #[test]
    fn libraries_are_found_by_name() {
        let own = OWN as u32 | 3;
        let libraries = [
            (own, "liba.so.1", "/a/liba.so.1"),
            (0x3, "liba.so.1", "/i386/liba.so.1"),
            (0x803, "liba.so.1", "/x32/liba.so.1"),
            // 32-bit ARM, with and without an FPU.
            (0x903, "liba.so.1", "/armhf/liba.so.1"),
            (0xb03, "liba.so.1", "/armel/liba.so.1"),
            (own, "liba.so.1", "/b/liba.so.1"),
        ];
        for before in [&b""[..], b"ld.so-1.7.0\0an older format\0"] {
            let cache = cache(before, &libraries);
            assert_eq!(paths(&cache, "liba.so.1"), [Path::new("/a/liba.so.1"), Path::new("/b/liba.so.1")]);
            assert_eq!(paths(&cache, "libb.so.1"), Vec::<PathBuf>::new());
        }
    }

    #[test]
    fn the_cache_of_this_machine_is_read() {
        let cache = std::fs::read("/etc/ld.so.cache").expect("reads");
        let paths = paths(&cache, "libc.so.6");
        assert!(paths.iter().any(|path| path.exists()), "{paths:?}");
    }

    proptest! {
        #[test]
        fn any_cache_is_read(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..300usize) {
            paths(&bytes, "a");
            let good = cache(&bytes, &[(OWN as u32 | 3, "a", "/a")]);
            paths(&good[..cut.min(good.len())], "a");
            bytes.splice(0..0, MAGIC.iter().copied());
            paths(&bytes, "a");
        }
    }
}
