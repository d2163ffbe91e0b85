//! The limit of open files: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::SetupError;

/// Files that are no connections: listeners, the poll, standard streams, and whatever a library
/// opens for a moment.
pub(super) const RESERVED: usize = 64;

/// Connections are numbered with 32 bits.
const MOST: u64 = 1 << 31;

/// Raises the soft limit to the hard one, and answers for how many connections that is enough.
///
/// # Errors
///
/// The limit leaves no file for a connection.
pub(super) fn raise_limit() -> Result<usize, SetupError> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    // macOS refuses a soft limit without bound: the old one is good enough then.
    let limit = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => maximum,
        Err(_) => current,
    };
    connections(limit.unwrap_or(MOST))
}

fn connections(open_files: u64) -> Result<usize, SetupError> {
    let files = open_files.min(MOST) as usize;
    match files.checked_sub(RESERVED) {
        None | Some(0) => Err(SetupError::new(
            "max-connections",
            format_args!(
                "at most {files} files may be open, and {RESERVED} are kept for other things; \
                 raise the limit with `ulimit -n`"
            ),
        )),
        Some(connections) => Ok(connections),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_no_connections() {
        assert_eq!(connections(1024), Ok(960));
        assert_eq!(connections(65), Ok(1));
        assert_eq!(connections(u64::MAX), Ok((1 << 31) - 64));
        for few in [0, 64] {
            let error = connections(few).unwrap_err().to_string();
            assert!(error.contains("ulimit -n"), "{error}");
        }
    }
}
