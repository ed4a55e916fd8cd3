// SPDX-License-Identifier: MIT
//! Asks NVML one question, answers in JSON, and ends.
//!
//! A program of its own, since a process that has talked to NVML holds the driver until it ends; and a
//! small one, since it starts in every run twice.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use gpu::Question;

/// Ask NVIDIA's management library one question; the answer is JSON.
#[derive(Debug, Parser)]
#[command(name = "ask-nvml", disable_version_flag = true)]
struct Arguments {
    question: Question,
    /// For `state`: the library to ask where the linker's does not fit the loaded driver.
    #[arg(long)]
    fallback: Option<PathBuf>,
    /// For `state`: do not wake up GPUs that were not started since the driver was loaded.
    #[arg(long)]
    if_started: bool,
}

fn main() -> ExitCode {
    let Arguments { question, fallback, if_started } = Arguments::parse();
    let answer = gpu::only_look().and_then(|()| answer(question, fallback.as_deref(), if_started));
    match answer {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ask-nvml: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn answer(question: Question, fallback: Option<&Path>, if_started: bool) -> Result<String> {
    Ok(match question {
        Question::Library => serde_json::to_string(&gpu::library()?)?,
        Question::State => serde_json::to_string(&gpu::state(fallback, if_started)?)?,
        Question::Links => serde_json::to_string(&gpu::links()?)?,
        Question::Usage => serde_json::to_string(&gpu::usage())?,
    })
}
