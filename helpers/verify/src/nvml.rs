//! Whether programs that use the driver will get on with it: NVML's own word.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use gpu::{Answer, HELPER, Question, ask_helper};
use step::Context;

/// NVML starts in tens of milliseconds; on a machine with many GPUs that wake up, in seconds.
const TIME: Duration = Duration::from_secs(60);

/// Asks, in a process of its own.
pub(crate) fn ask() -> Result<Answer> {
    let answer = ask_helper(Path::new(HELPER), Question::Nvml, TIME)?;
    Ok(answer.unwrap_or(Answer::Hung { seconds: TIME.as_secs() }))
}

/// Whether the answer is that of a driver that serves.
pub(crate) fn judge(context: &Context, answer: Answer) -> Result<()> {
    match answer {
        Answer::Ok { driver_version, devices } => {
            context.info(format!("NVML works: driver {driver_version}, {devices} devices"));
            Ok(())
        }
        Answer::NoLibrary { reason } => {
            context.warn(format!("NVML cannot be asked, its library is not installed: {reason}"));
            Ok(())
        }
        Answer::Mismatch => bail!("NVML's library is of another version than the driver that serves now"),
        Answer::NotLoaded => bail!("NVML does not see a driver"),
        Answer::Failed { reason } => bail!("NVML does not start: {reason}"),
        Answer::Hung { seconds } => bail!("NVML did not answer in {seconds} seconds"),
    }
}
