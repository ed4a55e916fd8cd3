// SPDX-License-Identifier: MIT
//! What a user's side can answer, and names that users choose. See the crate `fuzz`.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use bounded::Lines;
use serde_json::Value;

use crate::clean::{is_clean, short};
use crate::{Agent, Ask, Error, LONGEST, MOST, clean, is_container_id, is_container_name, is_unit_name};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn reply() {
    const TIME: Duration = Duration::from_secs(5);
    fuzz::run(HERE, "reply", |said| {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let begun = Instant::now();
        let answer: Result<Value, Error> = thread::scope(|scope| {
            scope.spawn(|| {
                let mut requests = Lines::new(theirs.try_clone().expect("clones"), LONGEST, MOST);
                let _ = requests.next(begun + TIME);
                // Root may have ended it.
                let _ = (&theirs).write_all(said);
                let _ = theirs.shutdown(Shutdown::Both);
            });
            Agent::over(ours, 7, TIME).expect("starts").ask(Ask::Containers, TIME)
        });
        match &answer {
            Ok(value) => {
                assert!(is_clean(value));
                assert!(value.to_string().len() <= 2 * said.len());
            }
            Err(Error::Gone) => {}
            Err(error) => {
                let text = error.to_string();
                assert!(!text.contains(char::is_control) && text.chars().count() < 500, "{text:?}");
            }
        }
        // The end of what the other side says is the end.
        assert!(begun.elapsed() < TIME, "{answer:?}");
    });
}

#[test]
fn name() {
    fuzz::run(HERE, "name", |bytes| {
        let name = String::from_utf8_lossy(bytes);
        for is_name in [is_unit_name(&name), is_container_id(&name), is_container_name(&name)] {
            // One part of a path, one word of a command line, and no option.
            let part =
                !name.is_empty() && !name.contains(['/', ' ', '\n', '%']) && !matches!(&*name, "." | "..");
            assert!(!is_name || (part && fuzz::is_plain(&name) && name.len() <= 255), "{name:?}");
        }
        // A template has nothing behind its first `@`.
        let is_template = name
            .rsplit_once('.')
            .and_then(|(stem, _)| stem.split_once('@'))
            .is_some_and(|(_, rest)| rest.is_empty());
        assert!(!is_unit_name(&name) || !is_template, "{name:?}");
        assert!(!short(&name).contains(char::is_control));
    });
}

#[test]
fn value() {
    fuzz::run(HERE, "value", |text| {
        let Ok(value) = serde_json::from_slice::<Value>(text) else { return };
        let was_clean = is_clean(&value);
        let cleaned = clean(value.clone());
        assert!(is_clean(&cleaned));
        assert!(!was_clean || cleaned == value);
    });
}
