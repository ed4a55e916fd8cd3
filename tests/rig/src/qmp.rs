// SPDX-License-Identifier: MIT
//! QEMU's control protocol, over the standard input and output of the process:
//! no socket that could be left behind.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How long QEMU may take to answer. It answers at once, unless the host is
/// overloaded.
const ANSWER: Duration = Duration::from_secs(60);

/// A control connection.
pub struct Qmp {
    commands: ChildStdin,
    messages: Receiver<Value>,
}

impl Qmp {
    /// Greets QEMU; fails when it ends before it answers.
    pub fn connect(commands: ChildStdin, answers: ChildStdout) -> Result<Self> {
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(answers).lines().map_while(Result::ok) {
                if let Ok(message) = serde_json::from_str(&line)
                    && sender.send(message).is_err()
                {
                    return;
                }
            }
        });
        let mut qmp = Qmp { commands, messages };
        qmp.call("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns what it returns.
    pub fn call(&mut self, command: &str, arguments: Value) -> Result<Value> {
        writeln!(self.commands, "{}", json!({ "execute": command, "arguments": arguments }))
            .with_context(|| format!("QEMU takes no more commands ({command})"))?;
        let until = Instant::now() + ANSWER;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok(message) => {
                    if let Some(error) = message.get("error") {
                        bail!("QEMU refused {command}: {}", error["desc"].as_str().unwrap_or_default());
                    }
                    // Anything else is the greeting or an event.
                    if let Some(value) = message.get("return") {
                        return Ok(value.clone());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("QEMU did not answer {command} in {} s", ANSWER.as_secs())
                }
                Err(RecvTimeoutError::Disconnected) => bail!("QEMU ended"),
            }
        }
    }

    /// Saves the state of the stopped machine through a shell command that
    /// reads it on standard input.
    pub fn save(&mut self, sink: &str) -> Result<()> {
        self.call("migrate-set-parameters", json!({ "max-bandwidth": 1u64 << 40 }))?;
        self.call("migrate", json!({ "uri": format!("exec:{sink}") }))?;
        self.wait_migrated()
    }

    /// Takes the state in from a shell command that writes it, and goes on.
    pub fn load(&mut self, source: &str) -> Result<()> {
        self.call("migrate-incoming", json!({ "uri": format!("exec:{source}") }))?;
        self.wait_migrated()?;
        self.call("cont", json!({}))?;
        Ok(())
    }

    fn wait_migrated(&mut self) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(180);
        while Instant::now() < until {
            let answer = self.call("query-migrate", json!({}))?;
            match answer["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    bail!("the machine's state: {}", answer["error-desc"].as_str().unwrap_or("failed"))
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        bail!("the machine's state took longer than 180 s")
    }
}
