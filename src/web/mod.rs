//! Files that the binary carries: the demo chat and the browser client.

/// A file to serve.
#[derive(Debug)]
pub struct File {
    /// Where it is served.
    pub path: &'static str,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// What is in it.
    pub bytes: &'static [u8],
}

const FILES: [File; 6] = [
    File { path: "/", content_type: "text/html; charset=utf-8", bytes: include_bytes!("index.html") },
    File { path: "/demo.js", content_type: "text/javascript; charset=utf-8", bytes: include_bytes!("demo.js") },
    File { path: "/demo.css", content_type: "text/css; charset=utf-8", bytes: include_bytes!("demo.css") },
    File { path: "/speak.js", content_type: "text/javascript; charset=utf-8", bytes: include_bytes!("speak.js") },
    File { path: "/speak.mjs", content_type: "text/javascript; charset=utf-8", bytes: include_bytes!("speak.mjs") },
    File { path: "/speak.d.ts", content_type: "text/plain; charset=utf-8", bytes: include_bytes!("speak.d.ts") },
];

/// Fields for pages: nothing from elsewhere but the other door, and a channel's name in an address goes nowhere.
pub const SAFETY: &str = "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' http://*:7732 data:; connect-src 'self' http://*:7732; base-uri 'none'; form-action 'none'; frame-ancestors 'self'\r\n\
    Referrer-Policy: no-referrer\r\n";

/// What `/` says where there is no demo.
pub const BARE: &[u8] = concat!("{\"speak\":\"", env!("CARGO_PKG_VERSION"), "\"}\n").as_bytes();

/// A transparent GIF of one pixel: a page that can load it can reach the door.
pub const PIXEL: &[u8] =
    b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

/// The file served at this path.
#[must_use]
pub fn file(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}
