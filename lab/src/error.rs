//! What can end a lab command early, and the matching exit code.

/// Why a lab command gave up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// This machine cannot run the command at all.
    #[error("the lab cannot run here: {0}")]
    Unsupported(String),
    /// The request itself makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A program the command needs is not installed.
    #[error("`{program}` was not found; {fix}")]
    MissingProgram {
        /// The program looked for.
        program: String,
        /// What to do about it.
        fix: String,
    },
    /// A namespace, device, route or setting could not be made.
    #[error("could not {what}: {cause}")]
    Setup {
        /// The step that failed.
        what: String,
        /// What the system said.
        cause: String,
    },
    /// A contender or the load failed.
    #[error("{0}")]
    Run(String),
    /// SIGINT or SIGTERM arrived; everything was cleaned up.
    #[error("interrupted by signal {0}; namespaces and processes were removed")]
    Interrupted(i32),
}

impl LabError {
    /// Shorthand for a failed step.
    #[expect(clippy::needless_pass_by_value, reason = "so that it fits `map_err`")]
    pub fn setup(what: impl Into<String>, cause: impl ToString) -> Self {
        Self::Setup { what: what.into(), cause: cause.to_string() }
    }

    /// The exit code of the process: test drivers take 77 as "skipped".
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::MissingProgram { .. } => 3,
            Self::Setup { .. } => 4,
            Self::Run(_) => 5,
            Self::Unsupported(_) => 77,
            Self::Interrupted(signal) => 128u8.saturating_add(u8::try_from(*signal).unwrap_or(127)),
        }
    }
}
