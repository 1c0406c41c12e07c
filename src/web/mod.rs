//! Files that the binary carries: the browser client and the demo chat. `build.rs` packs them.

/// A file to serve.
#[derive(Debug)]
pub struct File {
    /// Where it is served.
    pub path: &'static str,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its `Cache-Control`.
    pub cache_control: &'static str,
    /// Further fields of its head, whole lines.
    pub fields: &'static str,
    /// Whether it is part of the demo, which an operator may not want.
    pub is_demo: bool,
    /// What is in it.
    pub bytes: &'static [u8],
    /// The same, packed by gzip.
    pub gzip: &'static [u8],
    /// Names its content, without quotes: for `ETag`.
    pub tag: &'static str,
}

/// A file of this folder, with what `build.rs` made of it.
macro_rules! file {
    ($name:literal at $path:literal, $($rest:tt)*) => {
        File {
            path: $path,
            bytes: include_bytes!(concat!(env!("OUT_DIR"), "/", $name)),
            gzip: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz")),
            tag: include_str!(concat!(env!("OUT_DIR"), "/", $name, ".tag")),
            $($rest)*
        }
    };
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// The parts of the demo have to fit each other: a browser asks each time whether its own are still right.
const CHECKED: &str = "no-cache";

/// Pages all over the web load the client: they have a new one within an hour, and never wait for it.
const KEPT: &str = "public, max-age=3600, stale-while-revalidate=86400";

const FILES: [File; 6] = [
    file!("index.html" at "/", content_type: HTML, cache_control: CHECKED, fields: SAFETY, is_demo: true),
    file!("demo.js" at "/demo.js", content_type: SCRIPT, cache_control: CHECKED, fields: "", is_demo: true),
    file!("demo.css" at "/demo.css", content_type: STYLE, cache_control: CHECKED, fields: "", is_demo: true),
    file!("speak.js" at "/speak.js", content_type: SCRIPT, cache_control: KEPT, fields: FOR_ALL, is_demo: false),
    file!("speak.mjs" at "/speak.mjs", content_type: SCRIPT, cache_control: KEPT, fields: FOR_ALL, is_demo: false),
    file!("speak.d.ts" at "/speak.d.ts", content_type: TEXT, cache_control: KEPT, fields: FOR_ALL, is_demo: false),
];

/// Fields for the page: nothing from elsewhere but this machine's direct door, and a channel's name in an address goes
/// nowhere.
const SAFETY: &str = "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' *:7732 data:; connect-src 'self' *:7732 ws://*:7732; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'self'\r\n\
    Referrer-Policy: no-referrer\r\n";

/// Fields for the client: also a page that wants to be isolated (`Cross-Origin-Embedder-Policy: require-corp`) may load it.
const FOR_ALL: &str = "Cross-Origin-Resource-Policy: cross-origin\r\n";

/// What `/` says where there is no demo.
pub const BARE: &[u8] = concat!("{\"speak\":\"", env!("CARGO_PKG_VERSION"), "\"}\n").as_bytes();

/// A transparent GIF of one pixel: a page that can load it can reach the door.
pub const PIXEL: &[u8] =
    b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

/// The file served at this path.
#[must_use]
pub fn file(path: &str, has_demo: bool) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path && (has_demo || !file.is_demo))
}
