//! The console.

/// Who sees the console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsoleOptions {
    /// It is served.
    pub enabled: bool,
    /// What opens it, beside the API key.
    pub admin_token: Option<String>,
}
