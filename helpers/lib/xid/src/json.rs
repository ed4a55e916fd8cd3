// SPDX-License-Identifier: MIT
//! Objects of a log in JSON: the journal's, dmesg's, and those of log shippers that say whose a message is.

use serde_json::{Map, Value};

/// What is longer is no message of the kernel.
const LONGEST: usize = 1 << 20;

/// More than any shipper nests.
const DEEPEST: usize = 6;

/// Finds the objects in a log, each on a line of its own or on several. An object in an array counts by
/// itself, as in what `dmesg --json` writes.
#[derive(Default)]
pub(crate) struct Objects {
    /// The object so far; the line on which it begins.
    text: String,
    number: usize,
    /// The brackets that are open, and how many of them were so when the object began.
    open: Vec<char>,
    outside: usize,
    inside: bool,
}

impl Objects {
    /// Whether an object, or the array around objects, goes on with the next line.
    pub(crate) fn goes_on(&self) -> bool {
        !self.open.is_empty()
    }

    /// Gives up what is not complete.
    pub(crate) fn give_up(&mut self) {
        *self = Self::default();
    }

    /// Whether `line` can begin an object.
    pub(crate) fn begins(line: &str) -> bool {
        let line = unframed(line);
        let elements = line.strip_prefix('[').map(str::trim_start);
        line.starts_with('{')
            || elements.is_some_and(|elements| elements.is_empty() || elements.starts_with('{'))
    }

    /// Takes a line, and gives `each` the objects that end on it, with the number of the line where they
    /// began.
    pub(crate) fn take(&mut self, number: usize, line: &str, mut each: impl FnMut(usize, &str)) {
        let (mut quoted, mut escaped) = (false, false);
        for c in unframed(line).chars() {
            if !quoted && c == '{' && self.open.last().is_none_or(|outer| *outer == '[') {
                self.text.clear();
                self.number = number;
                self.outside = self.open.len();
                self.inside = true;
            }
            if self.inside {
                self.text.push(c);
            }
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                _ if quoted => {}
                '{' | '[' => self.open.push(c),
                '}' | ']' => {
                    let _ = self.open.pop();
                    if self.inside && self.open.len() == self.outside {
                        each(self.number, &self.text);
                        self.text.clear();
                        self.inside = false;
                    }
                }
                _ => {}
            }
        }
        // No text of JSON goes over the end of a line, and nothing real is so long or so deep.
        if quoted || self.text.len() > LONGEST || self.open.len() > 2 * DEEPEST {
            self.give_up();
        }
        if self.inside {
            self.text.push(' ');
        }
    }
}

/// Without what is put before an object: `journalctl -o json-seq` a record separator, `-o json-sse` the
/// name of the field.
fn unframed(line: &str) -> &str {
    let line = line.trim_start_matches('\u{1e}');
    line.strip_prefix("data: ").unwrap_or(line).trim()
}

/// The message in an object, where the object says that it is the kernel's and nothing in it says
/// something else.
pub(crate) fn kernels_message(text: &str) -> Option<String> {
    let Value::Object(object) = serde_json::from_str(text).ok()? else { return None };
    let mut found = Found::default();
    found.look(&object, "", 0);
    let is_kernels = found.is_kernels || found.is_of_ring();
    found.message.filter(|_| is_kernels && !found.is_foreign).map(|(_, text)| text)
}

#[derive(Default)]
struct Found {
    /// The message, and the rank of its field's name.
    message: Option<(usize, String)>,
    /// A field says that it is the kernel's.
    is_kernels: bool,
    /// A field says that it is not.
    is_foreign: bool,
    /// The fields that only records of the kernel's log have together.
    ring: Vec<&'static str>,
}

/// Where the message is: the first that is there counts.
const MESSAGES: [&str; 4] = ["message", "msg", "short_message", "log"];

/// What only a process or a container has.
const OF_PROCESSES: [&str; 12] = [
    "pid",
    "procid",
    "syslog_pid",
    "uid",
    "comm",
    "exe",
    "cmdline",
    "stream",
    "container",
    "container_id",
    "container_name",
    "kubernetes",
];

/// What a program says of itself in its own log.
const OF_PROGRAMS: [&str; 12] = [
    "level",
    "logger",
    "app",
    "application",
    "service",
    "source",
    "module",
    "name",
    "component",
    "file",
    "filename",
    "caller_file",
];

impl Found {
    fn look(&mut self, object: &Map<String, Value>, above: &str, depth: usize) {
        for (name, value) in object {
            // Elastic's names are paths.
            let mut path: Vec<&str> = above.split('.').chain(name.split('.')).collect();
            let own = path.pop().unwrap_or_default().trim_start_matches('_').to_ascii_lowercase();
            let above = path.last().copied().unwrap_or_default().to_ascii_lowercase();
            self.field(&above, &own.replace('-', "_"), value);
            if let Value::Object(inner) = value
                && depth < DEEPEST
            {
                self.look(inner, name, depth + 1);
            }
        }
    }

    fn field(&mut self, above: &str, name: &str, value: &Value) {
        if let Some(rank) = MESSAGES.iter().position(|known| *known == name)
            && self.message.as_ref().is_none_or(|(before, _)| rank < *before)
            && let Some(text) = text_of(value)
        {
            self.message = Some((rank, text));
        }
        match (above, name) {
            (_, "transport") => self.says(value, |text| text == "kernel"),
            ("facility", "code" | "name")
            | (_, "facility" | "syslog_facility" | "facility_label" | "facility_name" | "fac")
                if !value.is_object() =>
            {
                self.says(value, |text| matches!(text, "0" | "kern" | "kernel"));
            }
            ("process", "name")
            | (
                _,
                "syslog_identifier" | "identifier" | "ident" | "appname" | "app_name" | "program"
                | "programname" | "syslogtag",
            ) => self.says(value, |text| matches!(text, "kernel" | "kernel:")),
            (_, name) if OF_PROCESSES.contains(&name) => {
                self.is_foreign |= !(value.is_null() || matches!(value.as_str(), Some("" | "-")));
            }
            // A number is the facility and the level, a word the level.
            (_, "pri") => {
                self.ring.push("priority");
                self.is_foreign |= value.as_u64().is_some_and(|priority| priority >> 3 != 0);
            }
            (_, "priority") if value.is_u64() => self.ring.push("priority"),
            (_, "time") if value.is_number() => self.ring.push("time"),
            (_, "sequence") if value.is_u64() => self.ring.push("time"),
            (_, "msg") => self.ring.push("msg"),
            // A program's own log has them; one that quotes the kernel is not the kernel.
            (_, name) if OF_PROGRAMS.contains(&name) && value.is_string() => self.ring.push("program"),
            _ => {}
        }
    }

    fn says(&mut self, value: &Value, is_kernels: impl Fn(&str) -> bool) {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Null => return,
            other => other.to_string(),
        };
        match is_kernels(&text.to_ascii_lowercase()) {
            true => self.is_kernels = true,
            false => self.is_foreign = true,
        }
    }

    /// Whether the fields are those of dmesg, or of what Fluent Bit reads from /dev/kmsg: neither has
    /// others to say it.
    fn is_of_ring(&self) -> bool {
        ["priority", "time", "msg"].iter().all(|field| self.ring.contains(field))
            && !self.ring.contains(&"program")
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        // Where it is not UTF-8 the journal gives its bytes.
        Value::Array(bytes) => {
            let bytes = bytes.iter().map(|byte| u8::try_from(byte.as_u64()?).ok());
            Some(String::from_utf8_lossy(&bytes.collect::<Option<Vec<u8>>>()?).into_owned())
        }
        _ => None,
    }
}
