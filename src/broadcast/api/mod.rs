//! The HTTP API.

/// Who uses the HTTP API, and how it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiOptions {
    /// What requests bring; without it there is no API.
    pub key: Option<String>,
    /// Anyone may use it.
    pub insecure: bool,
    /// Errors are statuses.
    pub transport_errors: bool,
}
