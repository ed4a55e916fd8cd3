// SPDX-License-Identifier: MIT
//! What comes over a socket. See the crate `fuzz`.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::Lines;

#[test]
fn lines() {
    const LONGEST: usize = 16 << 10;
    fuzz::run(env!("CARGO_MANIFEST_DIR"), "lines", |said| {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let deadline = Instant::now() + Duration::from_secs(10);
        let received = thread::scope(|scope| {
            scope.spawn(|| {
                // Who listens may have had enough.
                let _ = (&theirs).write_all(said);
                let _ = theirs.shutdown(Shutdown::Write);
            });
            let mut lines = Lines::new(ours, LONGEST, 64 << 10);
            let mut received = Vec::new();
            loop {
                match lines.next(deadline) {
                    Ok(Some(line)) => {
                        // A line may be read to its end with what was read last.
                        assert!(line.len() <= 2 * LONGEST && !line.contains(&b'\n'));
                        received.extend([&line[..], b"\n"].concat());
                    }
                    Ok(None) => break received,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
                        assert!(said.len() > LONGEST);
                        break received;
                    }
                }
            }
        });
        assert!(said.starts_with(&received));
        let whole = said.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        assert!(received.len() == whole || said.len() > LONGEST);
    });
}
