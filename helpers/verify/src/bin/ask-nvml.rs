//! Asks NVML one question, answers in JSON, and ends.
//!
//! A program of its own, since whoever has talked to NVML holds the driver until it ends; and a
//! small one, since it starts in every run twice.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use gpu::Question;

/// Ask NVIDIA's management library one question; the answer is JSON.
#[derive(Debug, Parser)]
#[command(name = "ask-nvml", disable_version_flag = true)]
struct Arguments {
    question: Question,
    /// For `state`: the library to ask where the linker's does not fit the loaded driver.
    #[arg(long)]
    kept: Option<PathBuf>,
    /// For `state`: do not wake up GPUs that were not started since the driver was loaded.
    #[arg(long)]
    if_started: bool,
}

fn main() -> ExitCode {
    let Arguments { question, kept, if_started } = Arguments::parse();
    let answer = match question {
        Question::Library => gpu::library().and_then(|library| Ok(serde_json::to_string(&library)?)),
        Question::State => {
            gpu::state(kept.as_deref(), if_started).and_then(|state| Ok(serde_json::to_string(&state)?))
        }
        Question::Links => gpu::links().and_then(|links| Ok(serde_json::to_string(&links)?)),
        Question::Usage => serde_json::to_string(&gpu::usage()).map_err(Into::into),
    };
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
