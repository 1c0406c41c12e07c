//! The embedded files: compressed, validated and cached as HTTP allows.

mod common;

use std::io::Read;

use common::{Response, Server, request};
use flate2::read::GzDecoder;

const FILES: [(&str, &str); 7] = [
    ("/", "text/html; charset=utf-8"),
    ("/demo.js", "text/javascript; charset=utf-8"),
    ("/demo.css", "text/css; charset=utf-8"),
    ("/speak.js", "text/javascript; charset=utf-8"),
    ("/speak-chat.js", "text/javascript; charset=utf-8"),
    ("/speak.mjs", "text/javascript; charset=utf-8"),
    ("/speak.d.ts", "text/plain; charset=utf-8"),
];

fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Response {
    server.client().get_with(path, &[], headers)
}

#[test]
fn a_file_is_compressed_for_clients_that_accept_gzip() {
    let server = Server::start();
    for (path, content_type) in FILES {
        let plain = get(&server, path, &[]).ok();
        assert_eq!(plain.header("content-type"), Some(content_type));
        assert_eq!(plain.header("vary"), Some("Accept-Encoding"));
        for accepts in ["gzip", "deflate, gzip;q=0.5, br", "GZIP", "gzip;q=0.001"] {
            let packed = get(&server, path, &[("Accept-Encoding", accepts)]).ok();
            assert_eq!(packed.header("content-encoding"), Some("gzip"), "{accepts}");
            assert_eq!(packed.header("content-type"), Some(content_type));
            let mut unpacked = Vec::new();
            GzDecoder::new(packed.body.as_slice()).read_to_end(&mut unpacked).expect("gzip");
            assert_eq!(unpacked, plain.body);
            assert!(packed.body.len() < plain.body.len(), "{path}");
            assert_ne!(packed.header("etag"), plain.header("etag"));
        }
        for refuses in ["", "br", "gzip;q=0", "gzip; q=0.000", "gzipped", "identity"] {
            let answer = get(&server, path, &[("Accept-Encoding", refuses)]).ok();
            assert_eq!(answer.header("content-encoding"), None, "{refuses}");
            assert_eq!(answer.body, plain.body);
        }
    }
}

#[test]
fn a_cached_file_is_not_sent_again() {
    let server = Server::start();
    for (path, _) in FILES {
        for accepts in ["identity", "gzip"] {
            let file = get(&server, path, &[("Accept-Encoding", accepts)]).ok();
            let tag = file.header("etag").expect("a tag");
            assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
            for known in [tag, &format!("W/{tag}"), &format!("\"other\", {tag}"), "*"] {
                let mut client = server.client();
                let headers = [("Accept-Encoding", accepts), ("If-None-Match", known)];
                client.send(request("GET", path, &headers, None));
                let answer = client.head();
                assert_eq!(answer.status, 304, "{known}");
                for name in ["etag", "cache-control", "vary"] {
                    assert_eq!(answer.header(name), file.header(name), "{name}");
                }
                assert_eq!(answer.header("content-length"), None);
                assert_eq!(answer.header("content-type"), None);
                // Nothing follows that head except the next response.
                client.get("/health", &[]).ok();
            }
            let headers = [("Accept-Encoding", accepts), ("If-None-Match", "\"0123456789abcdef\"")];
            assert_eq!(get(&server, path, &headers).ok().body, file.body);
        }
    }
}

#[test]
fn head_returns_the_headers_of_get() {
    let server = Server::start();
    for accepts in ["identity", "gzip"] {
        let file = get(&server, "/", &[("Accept-Encoding", accepts)]).ok();
        let mut client = server.client();
        client.send(request("HEAD", "/", &[("Accept-Encoding", accepts)], None));
        let head = client.head();
        let without_date = |answer: &Response| {
            answer.headers.iter().filter(|(name, _)| name != "Date").cloned().collect::<Vec<_>>()
        };
        assert_eq!(without_date(&head), without_date(&file));
        client.get("/health", &[]).ok();
    }
}

#[test]
fn the_page_has_a_strict_content_security_policy() {
    let page = Server::start().get("/", &[]).ok();
    let policy = page.header("content-security-policy").expect("a policy");
    for rule in ["default-src 'none'", "script-src 'self'", "base-uri 'none'", "form-action 'none'"]
    {
        assert!(policy.split("; ").any(|its| its == rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("cache-control"), Some("no-cache"));
}

#[test]
fn the_client_script_is_served_without_the_demo() {
    let server = Server::with(&["--no-demo"]);
    for (path, _) in &FILES[3..] {
        let file = get(&server, path, &[("Origin", "https://elsewhere.example")]).ok();
        assert_eq!(file.header("access-control-allow-origin"), Some("*"));
        assert!(
            file.header("cache-control").is_some_and(|its| its.starts_with("public, max-age="))
        );
        // Cross-origin isolated pages load only files with this header.
        assert_eq!(file.header("cross-origin-resource-policy"), Some("cross-origin"));
    }
    for (path, _) in &FILES[1..3] {
        assert_eq!(get(&server, path, &[]).status, 404, "{path}");
    }
}
