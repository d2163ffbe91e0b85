//! The loads that can be made, each a loop of its own.

pub mod broadcast;
pub mod churn;
pub mod connect;
pub mod echo;
pub mod idle;
mod scout;
mod stamp;

use serde::{Deserialize, Serialize};

use crate::failure::Error;
use crate::outcome::Outcome;
use crate::worker::{Job, Line};

/// A load.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Messages that come back.
    Echo(echo::Options),
    /// Messages that go to all members of a topic.
    Broadcast(broadcast::Options),
    /// Connections that come and go while messages flow.
    Churn(churn::Options),
    /// Connections made and ended.
    Connect(connect::Options),
    /// Connections that do nothing.
    Idle(idle::Options),
}

impl Load {
    /// Its name for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Load::Echo(_) => "echo",
            Load::Broadcast(_) => "broadcast",
            Load::Churn(_) => "churn",
            Load::Connect(_) => "connect",
            Load::Idle(_) => "idle",
        }
    }

    /// The load in one line.
    pub fn describe(&self) -> String {
        match self {
            Load::Echo(options) => options.describe(),
            Load::Broadcast(options) => options.describe(),
            Load::Churn(options) => options.describe(),
            Load::Connect(options) => options.describe(),
            Load::Idle(options) => options.describe(),
        }
    }

    /// How many connections it holds at a time.
    pub fn connections(&self) -> usize {
        match self {
            Load::Echo(options) => options.connections,
            Load::Broadcast(options) => options.connections(),
            Load::Churn(options) => options.connections,
            Load::Connect(options) => options.connections,
            Load::Idle(options) => options.connections,
        }
    }
}

/// Makes one process' share of a load.
///
/// # Errors
///
/// If there is nothing to report.
pub fn run(job: &Job, line: &mut Line<'_>) -> Result<Outcome, Error> {
    match &job.load {
        Load::Echo(options) => echo::run(options, job, line),
        Load::Broadcast(options) => broadcast::run(options, job, line),
        Load::Churn(options) => churn::run(options, job, line),
        Load::Connect(options) => connect::run(options, job, line),
        Load::Idle(options) => idle::run(options, job, line),
    }
}
