//! The pages: each one file with everything in it, and the headers that let it do no more than it
//! does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use stentor::protocol::http::Response;

const TOPIC: &str = include_str!("page/topic.html");
const CONSOLE: &str = include_str!("page/console.html");

/// The pages as they are answered.
#[derive(Debug)]
pub(super) struct Pages {
    topic: Response,
    console: Response,
}

impl Pages {
    /// The page of a topic.
    pub(super) fn topic(&self) -> Response {
        self.topic.clone()
    }

    /// The page of the console.
    pub(super) fn console(&self) -> Response {
        self.console.clone()
    }
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            topic: response(TOPIC),
            console: response(CONSOLE),
        }
    }
}

fn response(html: &'static str) -> Response {
    let response = HEADERS
        .into_iter()
        .chain([("Content-Security-Policy", policy(html).as_str())])
        .try_fold(Response::new(200).html(html), |response, (name, value)| {
            response.header(name, value)
        });
    response.expect("the headers are constant but for a hash")
}

const HEADERS: [(&str, &str); 3] = [
    // The page belongs to the server that runs: an update shows at once.
    ("Cache-Control", "no-cache"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
];

/// Nothing runs but this script, nothing styles but this sheet, and nothing is reached but this
/// server.
fn policy(html: &str) -> String {
    let script = hash_of("script", html);
    let style = hash_of("style", html);
    format!(
        "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// The source expression of the only element of this name (Content Security Policy §2.3.1).
fn hash_of(element: &str, html: &str) -> String {
    let content = html
        .split_once(&format!("<{element}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{element}>")))
        .map(|(content, _)| content)
        .expect("the page has one such element, without attributes");
    format!("sha256-{}", STANDARD.encode(Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use stentor::protocol::http::ResponseFraming;

    use super::*;

    #[test]
    fn hashes_are_those_of_the_elements() {
        // The example of the specification.
        assert_eq!(
            hash_of("script", "<p><script>alert('Hello, world.');</script>"),
            "sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng="
        );
    }

    #[test]
    fn the_pages_need_nothing_from_elsewhere() {
        for page in [TOPIC, CONSOLE] {
            let html = page.replace("http://www.w3.org/2000/svg", ""); // A name, not an address.
            for outside in ["http:", "https://", "src=", "@import", "url("] {
                assert!(!html.contains(outside), "{outside}");
            }
            // The policy would block them.
            for inline in [" style=", " onclick=", " onsubmit=", "javascript:"] {
                assert!(!html.contains(inline), "{inline}");
            }
        }
    }

    #[test]
    fn each_page_comes_with_its_headers() {
        let pages = Pages::default();
        for response in [pages.topic(), pages.console()] {
            let mut output = Vec::new();
            response.encode(&mut output, ResponseFraming::default());
            let output = String::from_utf8(output).unwrap();
            for part in [
                "HTTP/1.1 200 OK\r\n",
                "\r\nContent-Type: text/html; charset=utf-8\r\n",
                "\r\nContent-Security-Policy: default-src 'none'; script-src 'sha256-",
                "\r\nX-Content-Type-Options: nosniff\r\n",
            ] {
                assert!(output.contains(part), "{part}");
            }
            assert!(output.ends_with("</html>\n"));
        }
    }
}
