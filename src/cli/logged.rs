//! Any application with a log: connections at debug, requests at trace, trouble at warn.
//!
//! What peers chose is escaped and cut before it comes near a log: it can neither begin a line of
//! its own nor speak to a terminal.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stentor::protocol::http::{Request, Response};
use stentor::{
    Accept, Cause, CloseCode, Closed, Context, Fault, Form, Handler, Lost, Message, Output,
    PresenceEvent, Publication,
};
use tracing::field::{DisplayValue, display};
use tracing::{debug, trace, warn};

/// An application, and what is told about it.
#[derive(Debug)]
pub(super) struct Logged<H> {
    application: H,
    exhausted: Throttle,
    full: Throttle,
    full_for_ip: Throttle,
}

impl<H> Logged<H> {
    pub(super) fn new(application: H) -> Self {
        Self {
            application,
            exhausted: Throttle::default(),
            full: Throttle::default(),
            full_for_ip: Throttle::default(),
        }
    }

    pub(super) fn application(&mut self) -> &mut H {
        &mut self.application
    }
}

impl<H: Handler> Handler for Logged<H> {
    type State = H::State;

    fn upgrade(
        &mut self,
        ctx: &mut Context<'_, Self::State>,
        request: &Request<'_>,
    ) -> Result<Accept<Self::State>, Response> {
        let answer = self.application.upgrade(ctx, request);
        let target = Escaped(request.target());
        let origin = || request.origin().map(|origin| display(Escaped(origin)));
        match &answer {
            Ok(_) => debug!(id = %ctx.id(), peer = peer(ctx), %target, origin = origin(), "opens"),
            Err(refusal) => {
                let status = refusal.status();
                debug!(id = %ctx.id(), peer = peer(ctx), %target, status, "refused");
            }
        }
        answer
    }

    fn open(&mut self, ctx: &mut Context<'_, Self::State>) {
        if ctx.is_stream() {
            debug!(id = %ctx.id(), peer = peer(ctx), "streams");
        }
        self.application.open(ctx);
    }

    fn message(&mut self, ctx: &mut Context<'_, Self::State>, message: Message<'_>) {
        self.application.message(ctx, message);
    }

    const KEEP_ALIVE: &'static [u8] = H::KEEP_ALIVE;

    fn lost(&mut self, ctx: &mut Context<'_, Self::State>, lost: Lost) {
        let (id, count) = (ctx.id(), lost.total());
        debug!(%id, count, "too slow: messages were dropped");
        self.application.lost(ctx, lost);
    }

    fn presence(&mut self, ctx: &mut Context<'_, Self::State>, event: &PresenceEvent) {
        self.application.presence(ctx, event);
    }

    fn encode(form: Form, publication: &Publication<'_>, output: &mut Output<'_>) {
        H::encode(form, publication, output);
    }

    fn farewell(
        form: Form,
        cause: Cause,
        output: &mut Output<'_>,
    ) -> Option<(CloseCode, &'static str)> {
        H::farewell(form, cause, output)
    }

    fn drain(&mut self, ctx: &mut Context<'_, Self::State>) {
        self.application.drain(ctx);
    }

    fn close(&mut self, ctx: &mut Context<'_, Self::State>, closed: Closed<'_>) {
        let (id, code, cause) = (ctx.id(), closed.code, closed.cause);
        let reason = Escaped(closed.reason.as_bytes());
        debug!(%id, %code, %reason, %cause, "closed");
        self.application.close(ctx, closed);
    }

    fn request(&mut self, ctx: &mut Context<'_, Self::State>, request: &Request<'_>) -> Response {
        let response = self.application.request(ctx, request);
        let (id, target) = (ctx.id(), Escaped(request.target()));
        let (method, status) = (request.method(), response.status());
        trace!(%id, method, %target, status, "request");
        response
    }

    fn timer(&mut self, ctx: &mut Context<'_, Self::State>, token: u64) {
        self.application.timer(ctx, token);
    }

    fn wake(&mut self, ctx: &mut Context<'_, Self::State>) {
        self.application.wake(ctx);
    }

    fn fault(&mut self, ctx: &mut Context<'_, Self::State>, fault: Fault<'_>) {
        let now = ctx.now();
        match &fault {
            Fault::Refused(error) => {
                let status = error.status();
                debug!(id = %ctx.id(), peer = peer(ctx), status, %error, "refused");
            }
            Fault::BadAcceptance(error) => warn!(%error, "an upgrade was answered wrongly"),
            Fault::AcceptExhausted(error) => {
                if let Some(unsaid) = self.exhausted.admit(now) {
                    warn!(%error, unsaid, "cannot accept connections; tries again");
                }
            }
            Fault::Full => {
                if let Some(unsaid) = self.full.admit(now) {
                    let connections = ctx.connection_count();
                    warn!(
                        connections,
                        unsaid, "turned a connection away: max-connections are there"
                    );
                }
            }
            Fault::FullForIp(ip) => {
                if let Some(unsaid) = self.full_for_ip.admit(now) {
                    warn!(
                        %ip,
                        unsaid,
                        "turned a connection away: max-connections-per-ip are there from its address"
                    );
                }
            }
            _ => warn!(?fault, "fault"),
        }
        self.application.fault(ctx, fault);
    }
}

/// The address of the peer, which a unix socket has none of. Costs a system call: for lines that
/// are really written.
fn peer<S>(ctx: &Context<'_, S>) -> Option<DisplayValue<SocketAddr>> {
    ctx.peer_addr().map(display)
}

/// Lets one warning of a kind through in ten seconds, and counts the others.
#[derive(Debug, Default)]
struct Throttle {
    last: Option<Instant>,
    unsaid: u64,
}

impl Throttle {
    const PAUSE: Duration = Duration::from_secs(10);

    /// Whether to speak; then with how many were not said since the last time.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let is_early = |last| now.saturating_duration_since(last) < Self::PAUSE;
        if self.last.is_some_and(is_early) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// What a peer wrote: graphic characters as they are, all others escaped, and cut.
struct Escaped<'a>(&'a [u8]);

impl Escaped<'_> {
    /// Enough to recognise anything; a request target may have 8 KiB.
    const LONGEST: usize = 256;
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(Self::LONGEST)];
        f.write_char('"')?;
        for chunk in shown.utf8_chunks() {
            // Everything that is not printable, of Unicode's as well: also what turns text around.
            write!(f, "{}", chunk.valid().escape_debug())?;
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        f.write_str(if shown.len() < self.0.len() {
            "\"…"
        } else {
            "\""
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(bytes: impl AsRef<[u8]>) -> String {
        Escaped(bytes.as_ref()).to_string()
    }

    #[test]
    fn what_a_peer_wrote_stays_within_its_line() {
        assert_eq!(escaped("/t/news?a=1"), "\"/t/news?a=1\"");
        assert_eq!(escaped("Grüße, 世界"), "\"Grüße, 世界\"");
        assert_eq!(escaped("a\r\nb"), r#""a\r\nb""#);
        assert_eq!(escaped("\x1b[31m\x07"), r#""\u{1b}[31m\u{7}""#);
        assert_eq!(escaped("\u{9b}2J"), r#""\u{9b}2J""#); // CSI in one character.
        assert_eq!(escaped("\u{202e}txt"), r#""\u{202e}txt""#); // Right to left.
        assert_eq!(escaped("\u{2028}"), r#""\u{2028}""#); // A line, to some.
        assert_eq!(escaped(b"\xff\0"), r#""\xff\0""#);
        assert_eq!(escaped(r#"" id=7"#), r#""\" id=7""#);
        let long = escaped("a".repeat(10_000));
        assert!(long.len() < 300 && long.ends_with("a\"…"), "{long}");
    }

    #[test]
    fn a_warning_is_said_once_in_a_while_with_what_was_left_unsaid() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.admit(start), Some(0));
        assert_eq!(throttle.admit(start), None);
        assert_eq!(throttle.admit(start + Duration::from_secs(9)), None);
        assert_eq!(throttle.admit(start + Duration::from_secs(10)), Some(2));
        assert_eq!(throttle.admit(start + Duration::from_secs(11)), None);
    }
}
